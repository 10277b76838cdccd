"""Messages that ask something of TLS themselves, through a whole relay: TLS-Required: No, and REQUIRETLS (RFC 8689)."""

import json
import ssl
import time
from collections.abc import AsyncIterator

import pytest
import trustme
from asking import DOOR, send, told
from dns_server import DnsServer, dns_server
from relay_house import SLOW, House
from tls_names import server_side

from smarthost.config_types import Dns
from smarthost.mail.event import Kind
from smarthost.mail.route import Deliver, NextHop, Route, TlsLevel
from smarthost.policy.routing import Match, RouteRule
from smarthost.sink.desk import SinkSettings
from smarthost.sink.server import Sink
from smarthost.wire.extensions import Extensions

ASKS = "TLS-Required: No\r\nSubject: x\r\n\r\nhello\r\n"
POLICY = "version: STSv1\nmode: enforce\nmx: mx.to.example\nmax_age: 86400\n"


@pytest.fixture
async def zone() -> AsyncIterator[DnsServer]:
    """Serve a domain whose mail host is on loopback, as a validating resolver would."""
    async with dns_server("to.example. 60 IN MX 1 mx.to.example.\nmx.to.example. 60 IN A 127.0.0.1") as server:
        server.is_validating = True
        yield server


async def sink_with(context: ssl.SSLContext | None, monkeypatch: pytest.MonkeyPatch) -> Sink:
    """Start a sink where MX records lead."""
    sink = Sink(SinkSettings(offers=Extensions(requiretls=True)), context)
    await sink.start()
    monkeypatch.setattr("smarthost.delivery.resolve.SMTP_PORT", sink.address[1])
    return sink


async def opened(house: House, zone: DnsServer, route: Route) -> None:
    """Open a house whose mail goes by a route."""
    rules = (RouteRule(Match(recipient=("*@to.example",)), route),)
    await house.open(route_rules=rules, listeners=(DOOR,), dns=Dns((zone.address,)), retry=SLOW)


@pytest.mark.parametrize("demand", ["sts", "dane"])
async def test_tls_required_no_goes_where_a_policy_would_refuse(
    house: House, zone: DnsServer, monkeypatch: pytest.MonkeyPatch, demand: str
) -> None:
    """The same host, the same bad certificate: mail waits, and goes with the field; REQUIRETLS stands above that."""
    context, _ = server_side(trustme.CA(), "other.example")
    sink = await sink_with(context, monkeypatch)
    if demand == "sts":
        folder = house.folder / "mta-sts"
        folder.mkdir(parents=True, mode=0o700)
        folder.joinpath("to.example.json").write_text(json.dumps({"id": "1", "fetched": time.time(), "text": POLICY}))
    else:
        zone.load(
            "to.example. 60 IN MX 1 mx.to.example.\nmx.to.example. 60 IN A 127.0.0.1\n"
            f"_{sink.address[1]}._tcp.mx.to.example. 60 IN TLSA 3 1 1 {'ab' * 32}"
        )
    level = TlsLevel.MAY if demand == "sts" else TlsLevel.DANE
    try:
        await opened(house, zone, Route("mx", Deliver.MX, tls=level, mta_sts=True))
        bound = await send(house, "250@to.example", ASKS.replace("TLS-Required", "X-Other"))
        both = await send(house, "250@to.example", ASKS, "REQUIRETLS")
        free = await send(house, "250@to.example", ASKS)
        relayed = await told(house, free, Kind.RELAYED)
        assert relayed.tls.startswith("TLSv1.3") and relayed.tls.endswith(" verified=none")
        assert (await told(house, bound, Kind.DELAYED)).status == "4.7.5"
        refused = await told(house, both, Kind.FAILED)
        assert refused.status == "5.7.10"
        [mail] = sink.messages
        assert b"TLS-Required: No\r\n" in mail.content
        await house.until(lambda: house.server.relay.scheduler.total == 0)
        [entry] = await house.server.spool.entries_of(bound)
        assert entry.queue == "mx/to.example"
    finally:
        await sink.stop()


@pytest.mark.parametrize("level", [TlsLevel.ENCRYPT, TlsLevel.VERIFY])
async def test_tls_required_no_does_not_overrule_the_operator(
    house: House, zone: DnsServer, monkeypatch: pytest.MonkeyPatch, level: TlsLevel
) -> None:
    """Where the route demands TLS a host without it gets nothing, whatever a message says."""
    sink = await sink_with(None, monkeypatch)
    try:
        await opened(house, zone, Route("mx", Deliver.MX, tls=level, mta_sts=True))
        delayed = await told(house, await send(house, "250@to.example", ASKS), Kind.DELAYED)
        assert delayed.status == "4.7.4" and not sink.messages
    finally:
        await sink.stop()


async def test_requiretls_tries_tls_where_a_broken_host_is_spared(
    house: House, zone: DnsServer, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """At level may plain text is remembered for other mail; a message that needs TLS has its own session, verified."""
    authority = trustme.CA()
    file = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(file)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    context, _ = server_side(authority, "localhost")
    sink = await sink_with(context, monkeypatch)
    try:
        route = Route("named", Deliver.RELAYHOST, (NextHop("localhost", sink.address[1]),), TlsLevel.MAY)
        await opened(house, zone, route)
        now = time.time()
        place = f"named localhost:{sink.address[1]}"
        house.server.relay.tls_policies._broken.pause(place, now + 86_400.0, "it was broken", now)
        common = await send(house, "250@to.example", ASKS)
        assert (await told(house, common, Kind.RELAYED)).tls == ""
        needy = await send(house, "250@to.example", ASKS, "REQUIRETLS")
        relayed = await told(house, needy, Kind.RELAYED)
        assert relayed.tls.endswith(" verified=ca") and relayed.site.endswith("+requiretls")
        assert [mail.mail.endswith(" REQUIRETLS") for mail in sink.messages] == [False, True]
    finally:
        await sink.stop()


async def test_requiretls_that_cannot_be_had_does_not_pause_other_mail(
    house: House, zone: DnsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message fails with 5.7.10, and what goes to the same host without it goes on."""
    context, _ = server_side(trustme.CA(), "localhost")
    sink = await sink_with(context, monkeypatch)
    try:
        route = Route("named", Deliver.RELAYHOST, (NextHop("localhost", sink.address[1]),), TlsLevel.MAY)
        await opened(house, zone, route)
        failed = await told(house, await send(house, "250@to.example", ASKS, "REQUIRETLS"), Kind.FAILED)
        assert failed.status == "5.7.10" and "certificate" in failed.reply
        assert (await told(house, await send(house, "250@to.example", ASKS), Kind.RELAYED)).tls.endswith("=none")
    finally:
        await sink.stop()
