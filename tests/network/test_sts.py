"""MTA-STS policies of domains: announced, fetched, kept and refreshed; what goes wrong on the way, and what stays."""

import asyncio
import logging
import math
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from dns_server import Clock, DnsServer, dns_server
from policy_server import PolicyServer, policy_server

from smarthost.mail.route import StsMode
from smarthost.network.sts import StsPolicies

DAY = 86_400.0
ZONE = """
_mta-sts.to.example. 60 IN TXT "v=STSv1; id=1;"
mta-sts.to.example. 60 IN A 127.0.0.1
none.example. 60 IN A 127.0.0.1
_mta-sts.lost.example. 60 IN TXT "v=STSv1; id=1;"
example. 300 IN SOA ns.example. root.example. 1 2 3 4 30
"""


@pytest.fixture
async def zone() -> AsyncIterator[DnsServer]:
    """Serve what announces policies."""
    async with dns_server(ZONE) as server:
        yield server


@pytest.fixture
def web(authority: trustme.CA) -> Iterator[PolicyServer]:
    """Serve a policy."""
    with policy_server(authority, "mta-sts.to.example") as server:
        yield server


@pytest.fixture
def make(make_policies: Callable[..., StsPolicies]) -> Callable[[], StsPolicies]:
    """Give what makes what is tested, as after a restart."""
    return make_policies


async def settled(policies: StsPolicies) -> None:
    """Wait until no fetch runs."""
    async with asyncio.timeout(10):
        while policies._fetching:
            await asyncio.sleep(0.01)


async def test_a_policy_is_fetched_once_and_kept(
    make: Callable[[], StsPolicies], web: PolicyServer, zone: DnsServer
) -> None:
    """Many who ask at once wait for one fetch; afterwards, and after a restart, none is needed."""
    policies = make()
    found = await asyncio.gather(*(policies.of("To.Example.") for _ in range(20)))
    assert {each.mode for each in found if each is not None} == {StsMode.ENFORCE} and None not in found
    assert web.asked == [f"mta-sts.to.example:{web.port}"]
    again = make()
    policy = await again.of("to.example")
    assert policy is not None and policy.lists("mx.example") and len(web.asked) == 1


async def test_domains_without_a_policy(make: Callable[[], StsPolicies], web: PolicyServer) -> None:
    """Where nothing is announced nothing is fetched."""
    assert await make().of("none.example") is None
    assert await make().of("servfail.example") is None
    assert not web.asked


async def test_a_new_id_leads_to_a_new_policy(
    make: Callable[[], StsPolicies], web: PolicyServer, zone: DnsServer, clock: Clock
) -> None:
    """While the new one is fetched the old one holds."""
    policies = make()
    await policies.of("to.example")
    web.text = web.text.replace("enforce", "testing")
    zone.load(ZONE.replace("id=1", "id=2"))
    clock.now += 61
    policy = await policies.of("to.example")
    assert policy is not None and policy.mode is StsMode.ENFORCE
    await settled(policies)
    policy = await policies.of("to.example")
    assert policy is not None and policy.mode is StsMode.TESTING and len(web.asked) == 2


async def test_a_policy_is_refreshed_before_it_expires(
    make: Callable[[], StsPolicies], web: PolicyServer, clock: Clock
) -> None:
    """After half its time, and a day at most, it is fetched again, and then holds anew."""
    policies = make()
    await policies.of("to.example")
    clock.now += 0.6 * DAY
    await policies.of("to.example")
    await settled(policies)
    assert len(web.asked) == 2
    clock.now += 0.45 * DAY
    assert await policies.of("to.example") is not None


@pytest.mark.parametrize("gone", ["record", "dns", "server"])
async def test_a_policy_holds_whatever_its_sources_say(
    make: Callable[[], StsPolicies], web: PolicyServer, zone: DnsServer, clock: Clock, gone: str
) -> None:
    """Who can suppress the record, or the server, cannot switch a policy off before it expires (RFC 8461 10)."""
    await make().of("to.example")
    policies = make()
    clock.now += 0.7 * DAY
    if gone == "record":
        zone.load("example. 300 IN SOA ns.example. root.example. 1 2 3 4 30")
    elif gone == "dns":
        zone.is_down = True
    else:
        web.status = 500
    assert await policies.of("to.example") is not None
    await settled(policies)
    assert await policies.of("to.example") is not None
    clock.now += 0.4 * DAY
    assert await policies.of("to.example") is None


@pytest.mark.parametrize(
    ("status", "content_type", "text", "said"),
    [
        (404, "text/plain", "", "status 404"),
        (302, "text/plain", "", "status 302"),
        (200, "text/html", "", "not text/plain"),
        (200, "text/plain", "version: STSv1\n", "cannot be used: the mode"),
        (200, "text/plain", "x" * 70_000, "too long"),
    ],
)
async def test_what_a_server_may_answer(
    make: Callable[[], StsPolicies],
    web: PolicyServer,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    status: int,
    content_type: str,
    text: str,
    said: str,
) -> None:
    """No redirect is followed, nothing but a policy in plain text is taken; it is told, and tried in 5 minutes."""
    good = web.text
    web.status, web.content_type, web.text = status, content_type, text
    policies = make()
    with caplog.at_level(logging.WARNING):
        assert await policies.of("to.example") is None
    assert said in caplog.records[-1].message and "to.example announces" in caplog.records[-1].message
    web.status, web.content_type, web.text = 200, "text/plain", good
    assert await policies.of("to.example") is None and len(web.asked) == 1
    clock.now += 301
    assert await policies.of("to.example") is not None


async def test_the_server_must_prove_its_name(
    make: Callable[[], StsPolicies], web: PolicyServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A certificate of nobody we trust is no policy."""
    trustme.CA().issue_cert("mta-sts.to.example").configure_cert(web.context)
    assert await make().of("to.example") is None
    assert "no valid certificate" in caplog.text and not web.asked


async def test_the_name_of_the_certificate_counts(
    make: Callable[[], StsPolicies], zone: DnsServer, web: PolicyServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The certificate must be for mta-sts.DOMAIN, not for the domain's other names."""
    zone.load(ZONE + "mta-sts.lost.example. 60 IN A 127.0.0.1")
    assert await make().of("lost.example") is None
    assert "no valid certificate" in caplog.text


async def test_a_server_that_does_not_answer(
    make: Callable[[], StsPolicies], web: PolicyServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A fetch ends in time, whether the server is silent or sends an octet now and then."""
    web.delay = 3.0
    async with asyncio.timeout(8):
        assert await make().of("to.example") is None
    web.delay, web.drips = 0.0, True
    async with asyncio.timeout(8):
        assert await make().of("to.example") is None
    assert caplog.text.count("announces") == 2


async def test_no_address(make: Callable[[], StsPolicies], caplog: pytest.LogCaptureFixture) -> None:
    """A policy that is announced for a host that is not in DNS is none."""
    assert await make().of("lost.example") is None
    assert "no address" in caplog.text


async def test_a_damaged_file_is_as_good_as_none(
    make: Callable[[], StsPolicies], tmp_path: Path, web: PolicyServer
) -> None:
    """It is told, and the policy fetched anew."""
    (tmp_path / "mta-sts").mkdir()
    (tmp_path / "mta-sts" / "to.example.json").write_text("{")
    assert await make().of("to.example") is not None and len(web.asked) == 1


async def test_a_folder_that_cannot_be_written(
    make: Callable[[], StsPolicies], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The policy holds all the same, until a restart."""
    (tmp_path / "mta-sts").write_text("in the way")
    assert await make().of("to.example") is not None
    assert "cannot be kept" in caplog.text


async def test_expired_files_are_deleted(make: Callable[[], StsPolicies], tmp_path: Path, clock: Clock) -> None:
    """What has expired does not stay on disk for ever."""
    folder = tmp_path / "mta-sts"
    await make().of("to.example")
    folder.joinpath("old.example.json").write_text(folder.joinpath("to.example.json").read_text())
    clock.now += 1.5 * DAY
    await make().of("to.example")
    assert [file.name for file in folder.iterdir()] == ["to.example.json"]


async def test_a_slow_handshake_buys_no_more_time(
    make: Callable[[], StsPolicies], web: PolicyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that lets the time run out during its handshake cannot drip afterwards for as long as it likes."""
    slow = ssl.SSLContext.wrap_socket

    def wrap(*given: Any, **named: Any) -> ssl.SSLSocket:
        made = slow(*given, **named)
        if not made.server_side:
            time.sleep(1.3)
        return made

    web.drips = True
    policies = make()
    monkeypatch.setattr(ssl.SSLContext, "wrap_socket", wrap)
    async with asyncio.timeout(8):
        assert await policies.of("to.example") is None


async def test_a_policy_that_could_not_be_had_is_asked_for_soon(
    make: Callable[[], StsPolicies], web: PolicyServer, zone: DnsServer, clock: Clock
) -> None:
    """Until when a domain's finding may be believed is the next fetch; where nothing is announced any more, never."""
    policies = make()
    assert policies.again("to.example") == math.inf
    web.status = 500
    assert await policies.of("to.example") is None
    assert policies.again("To.example.") == clock.now + 300
    clock.now += 301
    assert policies.again("to.example") == math.inf
    web.status = 200
    assert await policies.of("to.example") is not None
    assert policies.again("to.example") == math.inf


async def test_a_policy_from_the_future_is_fetched_again(
    make: Callable[[], StsPolicies], web: PolicyServer, clock: Clock
) -> None:
    """What was fetched while the clock was ahead by years does not hold for years without another look."""
    clock.now += 1000 * DAY
    await make().of("to.example")
    clock.now -= 1000 * DAY
    policies = make()
    assert await policies.of("to.example") is not None
    await settled(policies)
    assert len(web.asked) == 2
    clock.now += 1.1 * DAY
    web.status = 500
    assert await policies.of("to.example") is None
