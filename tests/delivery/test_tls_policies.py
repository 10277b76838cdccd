"""What TLS proves on the way to a host: levels, MTA-STS and DANE, what is remembered, and what a session then says."""

import logging
from pathlib import Path

import msgspec
import pytest
import trustme
from dns_server import Clock, DnsServer
from smtp_peer import smtp_peer
from tls_names import BROKEN, END, OFFERED, PLAIN, SECURED, server_side, tlsa_text
from tls_way import Way, opened

from smarthost.delivery.connect import Unreached
from smarthost.mail.outcome import Action, Stage
from smarthost.mail.route import Deliver, Host, Route, Site, StsMode, TlsLevel
from smarthost.network.dns import Dnssec, Resolver
from smarthost.network.session import SessionSettings

DAY = 86_400.0


@pytest.mark.parametrize(
    ("level", "sts", "proof"),
    [
        (TlsLevel.MAY, StsMode.NONE, "none"),
        (TlsLevel.ENCRYPT, StsMode.NONE, "none"),
        (TlsLevel.VERIFY, StsMode.NONE, "ca"),
        (TlsLevel.MAY, StsMode.ENFORCE, "sts"),
        (TlsLevel.DANE, StsMode.ENFORCE, "sts"),
        (TlsLevel.MAY, StsMode.TESTING, "ca"),
        (TlsLevel.DANE, StsMode.NONE, "none"),
    ],
)
async def test_how_the_peer_was_verified_is_told(
    way: Way, authority: trustme.CA, level: TlsLevel, sts: StsMode, proof: str
) -> None:
    """A session says protocol, cipher and what the peer has proved."""
    context, _ = server_side(authority, "mx.example")
    async with smtp_peer(SECURED + END, context=context) as peer:
        session = await opened(way, way.site(peer, level, sts))
    assert session.tls.startswith("TLSv1.3 TLS_") and session.tls.endswith(f" verified={proof}")
    assert (session.proof, session.trial_fault, session.plain_because) == (proof, "", "")


async def test_a_broken_host_gets_plain_text_for_three_days(
    way: Way, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """The handshake that failed is not tried with each message; it is told once, and forgotten when a person asks."""
    dialogs = [BROKEN, PLAIN + END, PLAIN + END, BROKEN, PLAIN + END, BROKEN, PLAIN + END]
    async with smtp_peer(*dialogs, complete=False) as peer:
        site = way.site(peer, TlsLevel.MAY)
        with caplog.at_level(logging.WARNING):
            assert (await opened(way, site)).tls == ""
            assert len(peer.reads) == 2
            clock.now += 2 * DAY
            await opened(way, site)
        assert len(peer.reads) == 3
        assert [record.message for record in caplog.records if "plain text" in record.message] == [
            caplog.records[0].message
        ]
        policy = await way.policy(site)
        assert policy.level is TlsLevel.NONE and "no handshake is tried for 24 h" in policy.sentence
        clock.now += 2 * DAY
        await opened(way, site)
        assert len(peer.reads) == 5
        way.connector.clear()
        await opened(way, site)
        assert len(peer.reads) == 7


async def test_a_broken_host_is_never_spared_where_tls_is_needed(way: Way) -> None:
    """What was learnt at level may means nothing under MTA-STS."""
    async with smtp_peer(BROKEN, PLAIN + END, BROKEN, complete=False) as peer:
        await opened(way, way.site(peer, TlsLevel.MAY))
        unreached = await way.connector.connect(way.site(peer, TlsLevel.MAY, StsMode.ENFORCE))
    assert isinstance(unreached, Unreached)
    assert (unreached.fault.stage, unreached.verdict.action) == (Stage.STARTTLS, Action.DELAYED)


async def test_mta_sts_enforced_refuses_what_is_not_verified(way: Way, authority: trustme.CA) -> None:
    """A certificate for another name is no proof, and nothing goes in plain text."""
    context, _ = server_side(authority, "other.example")
    async with smtp_peer(SECURED, context=context, complete=False) as peer:
        unreached = await way.connector.connect(way.site(peer, TlsLevel.MAY, StsMode.ENFORCE))
        assert len(peer.reads) == 1
    assert isinstance(unreached, Unreached)
    assert str(unreached.verdict.status) == "4.7.5" and "certificate" in unreached.reason


async def test_mta_sts_testing_tells_and_goes_on(
    way: Way, authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    """What the policy would refuse is a line in the log, once, and the mail goes as the route says."""
    context, _ = server_side(authority, "other.example")
    async with smtp_peer(SECURED, SECURED + END, SECURED + END, context=context, complete=False) as peer:
        site = way.site(peer, TlsLevel.MAY, StsMode.TESTING)
        with caplog.at_level(logging.WARNING):
            session = await opened(way, site)
            await opened(way, site)
        assert len(peer.reads) == 3
    assert session.proof == "none" and "certificate" in session.trial_fault
    [told] = [record.message for record in caplog.records if "testing" in record.message]
    assert "to.example" in told and "mx.example" in told


@pytest.mark.parametrize("usage", [2, 3])
async def test_dane_verifies(way: Way, zone: DnsServer, usage: int) -> None:
    """With a record that DNSSEC proves, a certificate of an unknown authority is proof; it stands above MTA-STS."""
    context, chain = server_side(trustme.CA(), "mx.example", whole=True)
    async with smtp_peer(SECURED + END, context=context) as peer:
        data = tlsa_text(chain[-1] if usage == 2 else chain[0], usage)
        zone.load(f"_{peer.port}._tcp.mx.example. 300 IN TLSA {data}")
        site = way.site(peer, TlsLevel.DANE, StsMode.ENFORCE)
        session = await opened(way, site)
        policy = await way.policy(site)
    assert session.tls.endswith(" verified=dane")
    assert (policy.level, policy.source, policy.server_name) == (TlsLevel.DANE, "dane", "mx.example")
    assert "1 TLSA record " in policy.sentence


async def test_dane_refuses_another_certificate(way: Way, zone: DnsServer, authority: trustme.CA) -> None:
    """A certificate that no record vouches for is refused, though a known authority signed it; mail waits."""
    context, _ = server_side(authority, "mx.example")
    _, other = server_side(authority, "mx.example")
    async with smtp_peer(SECURED, context=context, complete=False) as peer:
        zone.load(f"_{peer.port}._tcp.mx.example. 300 IN TLSA {tlsa_text(other[0], 3)}")
        unreached = await way.connector.connect(way.site(peer, TlsLevel.DANE))
        assert len(peer.reads) == 1 and all(b"EHLO" in read or b"STARTTLS" in read for read in peer.reads[0])
    assert isinstance(unreached, Unreached)
    assert str(unreached.verdict.status) == "4.7.5" and "DANE" in unreached.reason
    assert unreached.verdict.action is Action.DELAYED


async def test_dane_needs_tls(way: Way, zone: DnsServer) -> None:
    """A host with records that offers no STARTTLS gets no mail (RFC 7672 2.2)."""
    async with smtp_peer(PLAIN + END, complete=False) as peer:
        zone.load(f"_{peer.port}._tcp.mx.example. 300 IN TLSA 3 1 1 {'ab' * 32}")
        unreached = await way.connector.connect(way.site(peer, TlsLevel.DANE))
    assert isinstance(unreached, Unreached) and "STARTTLS" in unreached.reason


async def test_unusable_records_still_demand_tls(way: Way, zone: DnsServer) -> None:
    """Records of usages 0 and 1 prove nothing, but say that there is TLS (RFC 7672 2.2): any certificate will do."""
    context, chain = server_side(trustme.CA(), "other.example")
    async with smtp_peer(SECURED + END, context=context) as peer:
        zone.load(f"_{peer.port}._tcp.mx.example. 300 IN TLSA {tlsa_text(chain[0], 1)}")
        site = way.site(peer, TlsLevel.DANE)
        assert (await way.policy(site)).level is TlsLevel.ENCRYPT
        assert (await opened(way, site)).tls.endswith(" verified=none")


async def test_without_proof_dane_is_may(way: Way, zone: DnsServer) -> None:
    """Hosts that DNSSEC does not prove are not asked about; records that it does not prove count for nothing."""
    async with smtp_peer(BROKEN, PLAIN + END, complete=False) as peer:
        name = f"_{peer.port}._tcp.mx.example."
        zone.load(f"{name} 300 IN TLSA 3 1 1 {'ab' * 32}")
        zone.insecure.add(name)
        unproved = way.site(peer, TlsLevel.DANE, secure=False)
        policy = await way.policy(unproved)
        assert policy.level is TlsLevel.MAY and "does not prove" in policy.sentence
        assert not zone.questions[name, "TLSA"]
        assert (await way.policy(way.site(peer, TlsLevel.DANE))).level is TlsLevel.MAY
        assert (await opened(way, unproved)).tls == ""


async def test_bogus_records_delay(way: Way, zone: DnsServer) -> None:
    """Where DNS fails on the records the host is not used (RFC 7672 2.1.3): somebody may be hiding them."""
    async with smtp_peer(complete=False) as peer:
        zone.failing.add((f"_{peer.port}._tcp.mx.example.", "TLSA"))
        unreached = await way.connector.connect(way.site(peer, TlsLevel.DANE))
        assert not peer.reads
    assert isinstance(unreached, Unreached)
    assert unreached.verdict.action is Action.DELAYED and "TLSA" in unreached.reason


async def test_a_named_next_hop_without_records_is_verified(way: Way) -> None:
    """For a relayhost the level dane falls back to verify, never to less."""
    async with smtp_peer(complete=False) as peer:
        site = way.site(peer, TlsLevel.DANE)
        route = msgspec.structs.replace(site.route, deliver=Deliver.RELAYHOST)
        policy = await way.policy(msgspec.structs.replace(site, route=route))
    assert (policy.level, policy.source) == (TlsLevel.VERIFY, "route")


async def test_the_name_behind_an_alias_comes_first(way: Way, zone: DnsServer) -> None:
    """Records are looked for at the end of the aliases, then at the host's own name (RFC 7672 2.2.2)."""
    host = Host("mx.example", ("127.0.0.1",), 25, secure=True, tlsa_names=("real.example", "mx.example"))
    site = Site("mx/mx.example", (host,), Route("mx", Deliver.MX, tls=TlsLevel.DANE), 9e9)
    record = f"IN TLSA 3 1 1 {'ab' * 32}"
    zone.load(f"_25._tcp.mx.example. 300 {record}")
    assert (await way.policy(site)).server_name == "mx.example"
    zone.load(f"_25._tcp.mx.example. 300 {record}\n_25._tcp.real.example. 300 {record}")
    way.resolver.clear()
    assert (await way.policy(site)).server_name == "real.example"


async def test_a_resolver_that_is_not_believed_proves_nothing(way: Way, zone: DnsServer, clock: Clock) -> None:
    """With dnssec off the bit is neither asked for nor believed."""
    resolver = Resolver([zone.address], clock, lambda *_: None, dnssec=Dnssec.OFF)
    assert not resolver.believes_ad and way.resolver.believes_ad
    zone.load("mx.example. 300 IN A 192.0.2.1")
    found = [await each.addresses("mx.example") for each in (resolver, way.resolver)]
    assert [each.secure for each in found] == [False, True]  # type: ignore[union-attr]


async def test_mta_sts_testing_lets_a_refused_starttls_pass(way: Way) -> None:
    """A host that offers STARTTLS and then refuses it gets its mail all the same while the policy is only tested."""
    refuses = OFFERED + "<- 454 4.7.0 not now\n"
    async with smtp_peer(refuses, refuses + END, complete=False) as peer:
        session = await opened(way, way.site(peer, TlsLevel.MAY, StsMode.TESTING))
    assert session.tls == "" and "454" in session.trial_fault


async def test_unusable_records_do_not_weaken_mta_sts(way: Way, zone: DnsServer) -> None:
    """Records of usage 1 beside a policy that is enforced: the certificate must be trusted, not just any."""
    context, chain = server_side(trustme.CA(), "mx.example")
    async with smtp_peer(SECURED, context=context, complete=False) as peer:
        zone.load(f"_{peer.port}._tcp.mx.example. 300 IN TLSA {tlsa_text(chain[0], 1)}")
        site = way.site(peer, TlsLevel.DANE, StsMode.ENFORCE)
        policy = await way.policy(site)
        assert (policy.level, policy.source) == (TlsLevel.VERIFY, "sts")
        assert isinstance(await way.connector.connect(site), Unreached)


async def test_our_own_files_do_not_make_a_host_broken(way: Way, tmp_path: Path) -> None:
    """With a client certificate that cannot be read nothing goes in plain text, and the host is not remembered."""
    settings = way.settings

    def with_client(site: Site) -> SessionSettings:
        missing = str(tmp_path / "missing.pem")
        return msgspec.structs.replace(settings(site), client=(missing, missing))

    way.connector._settings_for = with_client
    async with smtp_peer(PLAIN + END, complete=False) as peer:
        site = way.site(peer, TlsLevel.MAY)
        unreached = await way.connector.connect(site)
        assert isinstance(unreached, Unreached) and "missing.pem" in unreached.reason
        assert not peer.reads and (await way.policy(site)).level is TlsLevel.MAY


async def test_a_fault_of_ours_at_one_host_leaves_the_others(
    way: Way, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where a peer finds a fault in this program its mail waits like other mail, and the next host is tried."""

    def fail(*_: object) -> str:
        raise RuntimeError("a fault")

    monkeypatch.setattr(way.connector._contexts, "check_tlsa", fail)
    context, chain = server_side(trustme.CA(), "mx.example")
    async with smtp_peer(SECURED, context=context, complete=False) as peer, smtp_peer(PLAIN + END) as other:
        zone_text = f"_{peer.port}._tcp.mx.example. 300 IN TLSA {tlsa_text(chain[0], 3)}"
        way.zone.load(zone_text)
        site = way.site(peer, TlsLevel.DANE)
        second = Host("backup.example", ("127.0.0.1",), other.port, preference=20)
        session = await opened(way, msgspec.structs.replace(site, hosts=(*site.hosts, second)))
    assert session.host is second and "a fault" in caplog.text


async def test_what_one_domain_demands_does_not_keep_others_from_the_host(way: Way, authority: trustme.CA) -> None:
    """A host that fails an enforced policy is left alone for that domain's mail, not for those that demand nothing."""
    context, _ = server_side(authority, "other.example")
    async with smtp_peer(SECURED, SECURED + END, context=context, complete=False) as peer:
        assert isinstance(await way.connector.connect(way.site(peer, TlsLevel.MAY, StsMode.ENFORCE)), Unreached)
        again = await way.connector.connect(way.site(peer, TlsLevel.MAY, StsMode.ENFORCE))
        assert isinstance(again, Unreached) and again.is_remembered
        assert (await opened(way, way.site(peer, TlsLevel.MAY))).tls.endswith("=none")
