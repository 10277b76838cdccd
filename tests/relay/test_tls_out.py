"""TLS on the way out of a whole relay: what log, history and reports say, client certificates, MTA-STS end to end."""

import asyncio
import errno
import ssl
from pathlib import Path

import msgspec
import pytest
import trustme
from asking import DOOR, send, told
from dns_server import dns_server
from policy_server import policy_server
from relay_house import SLOW, House
from test_watching import read_metrics, sample
from tls_names import server_side

from smarthost.config_types import Dns
from smarthost.crypto.tls import certificate_expiry
from smarthost.mail.entry import Why
from smarthost.mail.event import Kind
from smarthost.mail.route import Deliver, NextHop, Route, TlsLevel
from smarthost.policy.routing import Match, RouteRule
from smarthost.sink.desk import SinkSettings
from smarthost.sink.server import Sink
from smarthost.wire.extensions import Extensions

SECRET = "From: app@example.org\r\nMessage-ID: <known@example.org>\r\nSubject: secret\r\n\r\nsecret\r\n"
HERE = "127.0.0.77"  # a loopback address whose ports 25 and 443 are likely to be free
ZONE = f"""
_mta-sts.good.example. 300 IN TXT "v=STSv1; id=1"
mta-sts.good.example. 300 IN A {HERE}
good.example. 300 IN MX 10 mx.good.example.
mx.good.example. 300 IN A {HERE}
"""


@pytest.fixture
def authority(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> trustme.CA:
    """Give an authority, which is the system's for this test."""
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "system-ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "system-ca.pem"))
    return made


async def by_tls(house: House, context: ssl.SSLContext, **changes: object) -> Route:
    """Let the sink speak TLS; gives a route to it that verifies."""
    house.sink = Sink(SinkSettings(), context)
    await house.sink.start()
    next_hop = NextHop("localhost", house.sink.address[1])
    route = Route("relayhost", Deliver.RELAYHOST, (next_hop,), TlsLevel.VERIFY)
    return msgspec.structs.replace(route, **changes)


async def test_log_report_and_metric_say_what_tls_proved(house: House, authority: trustme.CA) -> None:
    """The mail log, the history and the report name cipher and proof; the metric has the certificate's end."""
    context, chain = server_side(authority, "localhost")
    await house.open(fallback=await by_tls(house, context), http_address="127.0.0.1:0")
    number = await house.send("250@example.net", "550@example.net")
    await house.until(lambda: Kind.FAILED in house.kinds(number) and Kind.RELAYED in house.kinds(number))
    told = [event for event in house.events if event.message == number and event.event is not Kind.ACCEPTED]
    assert told and all(event.tls.startswith("TLSv1.3 TLS_") and event.tls.endswith(" verified=ca") for event in told)
    await house.until(lambda: any(event.event is Kind.REPORTED for event in house.events))
    report = next(event for event in house.events if event.event is Kind.REPORTED)
    await house.until(lambda: Kind.RELAYED in house.kinds(report.message))
    [content] = [mail.content for mail in house.sink.messages if b"delivery-status" in mail.content]
    assert b"X-Smarthost-TLS: TLSv1.3 TLS_" in content and b" verified=ca\r\n" in content
    [(place, expires)] = house.server.relay.counters.certificate_expiry.items()
    assert place[0].startswith("relayhost/") and place[1] == f"localhost:{house.sink.address[1]}"
    assert expires == certificate_expiry(chain[0])
    assert house.server._status is not None
    text = await asyncio.to_thread(read_metrics, house.server._status.address)
    assert sample(text, "smarthost_upstream_certificate_expiry_timestamp_seconds", 'host="localhost:') == expires


async def test_an_upstream_that_asks_for_a_certificate_gets_ours(
    house: House, authority: trustme.CA, tmp_path: Path
) -> None:
    """Without one the session is refused; with one of the authority that the upstream trusts mail goes."""
    made = authority.issue_cert("relay.example")
    certificate, key = tmp_path / "client.pem", tmp_path / "client.key"
    made.cert_chain_pems[0].write_to_path(certificate)
    made.private_key_pem.write_to_path(key)
    context, _ = server_side(authority, "localhost")
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    bare = await by_tls(house, context)
    route = msgspec.structs.replace(bare, client_certificate=str(certificate), client_key=str(key))
    await house.open(fallback=route, retry=SLOW)
    number = await house.send("250@example.net")
    await house.until(lambda: Kind.RELAYED in house.kinds(number))
    house.server.relay.apply(msgspec.structs.replace(house.config, fallback=bare), house.server.relay.keyring)
    number = await house.send("250@example.net")
    await house.until(lambda: Kind.DELAYED in house.kinds(number))


async def test_mta_sts_from_dns_to_delivery(house: House, authority: trustme.CA) -> None:
    """A policy that is enforced: the listed host is verified; once another is listed mail waits, and says for what."""
    context, _ = server_side(authority, "mx.good.example")
    sink = Sink(SinkSettings(listen=f"{HERE}:25"), context)
    try:
        await sink.start()
        web = policy_server(authority, "mta-sts.good.example", address=(HERE, 443))
        server = web.__enter__()
    except OSError as error:
        await sink.stop()
        if error.errno not in (errno.EACCES, errno.EADDRINUSE, errno.EADDRNOTAVAIL):
            raise
        pytest.skip(f"ports 25 and 443 of {HERE} cannot be had: {error}")
    try:
        async with dns_server(ZONE) as zone:
            server.text = "version: STSv1\nmode: enforce\nmx: *.good.example\nmax_age: 86400\n"
            route = Route("mx", Deliver.MX, mta_sts=True)
            await house.open(fallback=route, dns=Dns((zone.address,)), retry=SLOW)
            relayed = await told(house, await house.send("250@good.example"), Kind.RELAYED)
            assert relayed.tls.endswith(" verified=sts") and relayed.site == "mx/mx.good.example+sts"
            zone.load(ZONE.replace("mx.good.example", "mx.bad.example"))
            house.server.relay.apply(house.config, house.server.relay.keyring)
            waiting = await house.send("250@good.example")
            delayed = await told(house, waiting, Kind.DELAYED)
            assert delayed.status == "4.7.5" and "lists none of its hosts: mx.bad.example" in delayed.reply
            await house.until(lambda: house.server.relay.scheduler.total == 0)
            [entry] = await house.server.spool.entries_of(waiting)
            assert entry.why is Why.TLS_POLICY
    finally:
        await asyncio.to_thread(web.__exit__, None, None, None)
        await sink.stop()


async def test_requiretls_goes_to_proved_hosts_that_offer_it(house: House, authority: trustme.CA) -> None:
    """RFC 8689: MAIL asks for it again; without proof or offer the message fails, and its report returns no content."""
    context, _ = server_side(authority, "localhost")
    sinks = [Sink(SinkSettings(offers=Extensions(requiretls=offered)), context) for offered in (True, False)]
    sinks.append(Sink(SinkSettings(offers=Extensions(requiretls=True)), server_side(trustme.CA(), "localhost")[0]))
    for sink in sinks:
        await sink.start()
    hops = [NextHop("localhost", sink.address[1]) for sink in sinks]
    ways = [(hops[0], TlsLevel.VERIFY), (hops[2], TlsLevel.ENCRYPT), (hops[1], TlsLevel.VERIFY)]
    routes = [
        RouteRule(Match(recipient=(f"*@{name}.example",)), Route(name, Deliver.RELAYHOST, (hop,), level))
        for name, (hop, level) in zip(("good", "unproved", "unoffered"), ways, strict=True)
    ]
    await house.open(route_rules=tuple(routes), listeners=(DOOR,))
    try:
        numbers = {
            name: await send(house, f"250@{name}.example", SECRET, "REQUIRETLS")
            for name in ("good", "unproved", "unoffered")
        }
        relayed = await told(house, numbers["good"], Kind.RELAYED)
        assert relayed.tls.endswith(" verified=ca")
        for name in ("unproved", "unoffered"):
            failed = await told(house, numbers[name], Kind.FAILED)
            assert failed.status == ("5.7.10" if name == "unproved" else "5.7.30")
            assert ("certificate" if name == "unproved" else "REQUIRETLS") in failed.reply
        await house.until(lambda: len(house.sink.messages) == 2)
        assert [mail.mail.endswith(" REQUIRETLS") for mail in sinks[0].messages] == [True]
        for report in house.sink.messages:
            assert b"Status: 5.7." in report.content and b"secret" not in report.content
            assert b"Message-ID: <known@example.org>" in report.content
    finally:
        for sink in sinks:
            await sink.stop()


@pytest.mark.parametrize("is_validating", [True, False])
async def test_requiretls_does_not_believe_forged_mx_records(
    house: House, authority: trustme.CA, is_validating: bool
) -> None:
    """A trusted certificate of a host that nothing but DNS without DNSSEC names is no proof (RFC 8689 4.2.1)."""
    context, _ = server_side(authority, "mx.named.example")
    sink = Sink(SinkSettings(offers=Extensions(requiretls=True)), context)
    await sink.start()
    hop = NextHop("named.example", sink.address[1], by_mx=True)
    named = RouteRule(Match(recipient=("*@any.example",)), Route("named", Deliver.RELAYHOST, (hop,), TlsLevel.VERIFY))
    zone_text = "named.example. 300 IN MX 10 mx.named.example.\nmx.named.example. 300 IN A 127.0.0.1"
    async with dns_server(zone_text) as zone:
        zone.is_validating = is_validating
        await house.open(route_rules=(named,), listeners=(DOOR,), dns=Dns((zone.address,)))
        try:
            number = await send(house, "250@any.example", SECRET, "REQUIRETLS")
            await told(house, number, Kind.RELAYED if is_validating else Kind.FAILED)
            assert sink.counts.messages == int(is_validating)
        finally:
            await sink.stop()
