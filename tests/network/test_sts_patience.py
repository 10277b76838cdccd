"""MTA-STS where many domains' policies are slow to come: nobody waits long, and what is known still holds."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import trustme
from dns_server import Clock, DnsServer, dns_server
from policy_server import PolicyServer, policy_server

from smarthost.network.sts import MOST_FETCHES, MOST_FETCHING, StsPolicies

DAY = 86_400.0
TARPITS = [f"tarpit{number}.example" for number in range(MOST_FETCHES)]
ZONE = "\n".join(
    f'_mta-sts.{domain}. 60 IN TXT "v=STSv1; id=1;"\nmta-sts.{domain}. 60 IN A 127.0.0.1'
    for domain in (*TARPITS, "to.example")
)


@pytest.fixture
async def zone() -> AsyncIterator[DnsServer]:
    """Serve what announces policies."""
    async with dns_server(ZONE) as server:
        yield server


@pytest.fixture
def web(authority: trustme.CA) -> Iterator[PolicyServer]:
    """Serve the policies of all."""
    with policy_server(authority, "mta-sts.to.example", *(f"mta-sts.{domain}" for domain in TARPITS)) as server:
        yield server


@pytest.fixture
def make(make_policies: Callable[..., StsPolicies]) -> Callable[[], StsPolicies]:
    """Give what makes what is tested: a fetch takes 5 s at most, and mail waits half a second for one."""

    def make() -> StsPolicies:
        policies = make_policies(timeout=5.0)
        policies.patience = 0.5
        return policies

    return make


async def all_begun(policies: StsPolicies) -> None:
    """Wait until every place for a fetch is taken."""
    async with asyncio.timeout(10):
        while not policies._places.locked():
            await asyncio.sleep(0.01)


async def test_mail_does_not_hang_behind_tarpits(make: Callable[[], StsPolicies], web: PolicyServer) -> None:
    """With a tarpit in each place mail to another domain leaves without its policy, which comes when it is its turn."""
    web.delay = 3.0
    policies = make()
    stuck = [asyncio.ensure_future(policies.of(domain)) for domain in TARPITS]
    await all_begun(policies)
    began = time.monotonic()
    assert await policies.of("to.example") is None
    assert time.monotonic() - began < 2.5, "it waited for a tarpit"
    assert policies.is_fetching("to.example") and "not come to an end" in policies.fault("to.example")
    assert await asyncio.gather(*stuck) == [None] * len(stuck)
    web.delay = 0.0
    async with asyncio.timeout(20):
        while policies.is_fetching("to.example"):
            await asyncio.sleep(0.05)
    assert await policies.of("to.example") is not None and policies.fault("to.example") == ""
    await policies.stop()


async def test_a_policy_that_is_known_holds_behind_tarpits(
    make: Callable[[], StsPolicies], web: PolicyServer, clock: Clock
) -> None:
    """One that is due for a refresh is used as it is, at once."""
    policies = make()
    assert await policies.of("to.example") is not None
    web.delay = 3.0
    stuck = [asyncio.ensure_future(policies.of(domain)) for domain in TARPITS]
    await all_begun(policies)
    clock.now += 0.6 * DAY
    policies.patience = 60.0
    async with asyncio.timeout(2.5):
        assert await policies.of("to.example") is not None
    assert policies.is_fetching("to.example") and policies.fault("to.example") == ""
    await policies.stop()
    await asyncio.gather(*stuck, return_exceptions=True)


async def test_the_fetches_that_wait_are_bounded(
    make: Callable[[], StsPolicies], web: PolicyServer, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """Beyond some number a fetch is not begun at all, and tried again in five minutes."""
    monkeypatch.setattr("smarthost.network.sts.MOST_FETCHING", 1)
    assert MOST_FETCHING > MOST_FETCHES
    web.delay = 1.0
    policies = make()
    assert await policies.of(TARPITS[0]) is None
    assert await policies.of("to.example") is None
    assert "go first" in policies.fault("to.example") and not policies.is_fetching("to.example")
    assert policies.again("to.example") == clock.now + 300
    await policies.stop()


async def test_a_policy_that_is_renewed_just_now_is_waited_for(
    make: Callable[[], StsPolicies], web: PolicyServer, zone: DnsServer, clock: Clock
) -> None:
    """Where the policy that is kept stands in the way the new one counts, as soon as it is there."""
    policies = make()
    await policies.of("to.example")
    web.text = web.text.replace("mx.example", "new.example")
    zone.load(ZONE.replace("id=1", "id=2"))
    clock.now += 61
    before = await policies.of("to.example")
    assert before is not None and before.lists("mx.example")
    policies.patience = 10.0
    after = await policies.renewed("to.example")
    assert after is not None and after.lists("new.example")
