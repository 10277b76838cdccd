"""REQUIRETLS by a pool: the upstreams that can take the message are found, and it fails when there is none."""

from collections.abc import AsyncIterator, Sequence

import msgspec
import pytest
import trustme
from asking import DOOR, send, told
from relay_house import SLOW, House
from tls_names import server_side

from smarthost.mail.event import Kind
from smarthost.mail.route import Deliver, NextHop, Route, TlsLevel, Upstream
from smarthost.sink.desk import SinkSettings
from smarthost.sink.server import Sink
from smarthost.wire.extensions import Extensions

MAIL = "Subject: x\r\n\r\nhello\r\n"
PLAIN, LACKING, STRANGE, ABLE = "plain", "lacking", "strange", "able"


@pytest.fixture
async def upstreams(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, Sink]]:
    """Start one without STARTTLS, one without REQUIRETLS, one whose certificate nobody trusts, and one that can."""
    authority = trustme.CA()
    file = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(file)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    trusted, strange = (server_side(each, "localhost")[0] for each in (authority, trustme.CA()))
    offers = SinkSettings(offers=Extensions(requiretls=True))
    made = {
        PLAIN: Sink(offers),
        LACKING: Sink(SinkSettings(), trusted),
        STRANGE: Sink(offers, strange),
        ABLE: Sink(offers, trusted),
    }
    for sink in made.values():
        await sink.start()
    yield made
    for sink in made.values():
        await sink.stop()


async def opened(house: House, upstreams: dict[str, Sink], names: Sequence[str], *dead: int) -> Route:
    """Open a house whose mail goes by a pool of some of them, in their order; `dead` are ports where nobody is."""
    route = Route("relayhost", Deliver.RELAYHOST, (), TlsLevel.MAY)
    members = []
    for port in (*(upstreams[name].address[1] for name in names), *dead):
        hop = NextHop("localhost", port)
        members.append(Upstream(msgspec.structs.replace(route, next_hops=(hop,), upstream=str(hop)), len(members)))
    hops = tuple(member.route.next_hops[0] for member in members)
    pool = msgspec.structs.replace(route, next_hops=hops, pool=tuple(members))
    await house.open(fallback=pool, listeners=(DOOR,), retry=SLOW)
    return pool


async def test_the_upstream_that_can_is_found(house: House, upstreams: dict[str, Sink]) -> None:
    """Three that cannot take it are passed over with no attempt spent; other mail goes to the first as ever."""
    await opened(house, upstreams, (PLAIN, LACKING, STRANGE, ABLE))
    for _ in range(3):
        relayed = await told(house, await send(house, "250@example.net", MAIL, "REQUIRETLS"), Kind.RELAYED)
        assert relayed.tls.endswith(" verified=ca") and relayed.site.endswith("+requiretls") and relayed.attempt == 1
    await told(house, await send(house, "250@example.net", MAIL), Kind.RELAYED)
    assert {name: sink.counts.messages for name, sink in upstreams.items()} == {
        PLAIN: 1,
        LACKING: 0,
        STRANGE: 0,
        ABLE: 3,
    }
    assert all(mail.mail.endswith(" REQUIRETLS") for mail in upstreams[ABLE].messages)


async def test_it_fails_where_none_can(house: House, upstreams: dict[str, Sink]) -> None:
    """When the last upstream has shown that it cannot the message fails, and so does the next; other mail goes."""
    await opened(house, upstreams, (LACKING, PLAIN, STRANGE))
    for _ in range(2):
        failed = await told(house, await send(house, "250@example.net", MAIL, "REQUIRETLS"), Kind.FAILED)
        assert failed.status in ("5.7.10", "5.7.30")
    await told(house, await send(house, "250@example.net", MAIL), Kind.RELAYED)
    assert upstreams[LACKING].messages and not upstreams[PLAIN].messages  # with the reports of the two


async def test_it_waits_for_one_that_is_away(house: House, upstreams: dict[str, Sink]) -> None:
    """An upstream that cannot be reached may be able: the message waits for it, and does not fail."""
    await opened(house, upstreams, (LACKING,), 1)
    number = await send(house, "250@example.net", MAIL, "REQUIRETLS")

    async def why() -> str:
        return str([row async for row in house.server.operations.why(number)].pop()["text"])

    relay = house.server.relay
    await house.until(lambda: any(each.blocked_by for each in relay.scheduler.queues.values()), 30)
    assert "does not offer REQUIRETLS" in await why() and Kind.FAILED not in house.kinds(number)
