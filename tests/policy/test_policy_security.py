"""What a message may ask of TLS itself: REQUIRETLS and TLS-Required: No, against each level of a route (RFC 8689)."""

import msgspec
import pytest

from smarthost.mail.envelope import Envelope
from smarthost.mail.route import Deliver, NextHop, Route, Site, StsMode, TlsLevel, Upstream
from smarthost.mail.route import Host as MailHost
from smarthost.mail.tlsa import Tlsa
from smarthost.policy.security import TlsaFinding, as_asked, decide

BY_MX = Route("mx", Deliver.MX, mta_sts=True)
RELAYHOST = Route("relayhost", Deliver.RELAYHOST, (NextHop("mx.example"),))
REQUIRED = Envelope("", (), requiretls=True)
OPTIONAL = Envelope("", (), tls_optional=True)
HOST = MailHost("mx.example", ("192.0.2.1",))


def at(route: Route, level: TlsLevel) -> Route:
    """Give a route another level."""
    return msgspec.structs.replace(route, tls=level)


@pytest.mark.parametrize("route", [BY_MX, RELAYHOST])
@pytest.mark.parametrize("level", list(TlsLevel))
def test_a_message_that_asks_nothing_changes_nothing(route: Route, level: TlsLevel) -> None:
    """The route is the same object."""
    assert as_asked(at(route, level), Envelope("", ())) == at(route, level)


@pytest.mark.parametrize(
    ("level", "by_mx"),
    [
        (TlsLevel.NONE, TlsLevel.NONE),
        (TlsLevel.MAY, TlsLevel.MAY),
        (TlsLevel.ENCRYPT, TlsLevel.ENCRYPT),
        (TlsLevel.VERIFY, TlsLevel.VERIFY),
        (TlsLevel.DANE, TlsLevel.MAY),
    ],
)
def test_what_tls_required_no_relaxes(level: TlsLevel, by_mx: TlsLevel) -> None:
    """What the recipients' side demands, by MX alone; never what the configuration does, nor at a relayhost."""
    relaxed = as_asked(at(BY_MX, level), OPTIONAL)
    assert (relaxed.tls, relaxed.mta_sts, relaxed.demand) == (by_mx, False, "")
    assert as_asked(at(RELAYHOST, level), OPTIONAL) == at(RELAYHOST, level)


@pytest.mark.parametrize(
    ("level", "raised"),
    [
        (TlsLevel.NONE, TlsLevel.NONE),
        (TlsLevel.MAY, TlsLevel.VERIFY),
        (TlsLevel.ENCRYPT, TlsLevel.VERIFY),
        (TlsLevel.VERIFY, TlsLevel.VERIFY),
        (TlsLevel.DANE, TlsLevel.DANE),
    ],
)
@pytest.mark.parametrize("route", [BY_MX, RELAYHOST])
def test_what_requiretls_raises(route: Route, level: TlsLevel, raised: TlsLevel) -> None:
    """Where TLS is used at all it has to prove something, and MTA-STS stays."""
    asked = as_asked(at(route, level), REQUIRED)
    assert (asked.tls, asked.mta_sts) == (raised, route.mta_sts)
    assert bool(asked.demand) is (level not in (TlsLevel.NONE, TlsLevel.VERIFY))


def test_a_pool_is_raised_member_by_member() -> None:
    """REQUIRETLS takes the members that use TLS, each verified; where none does, and for the opposite, all stay."""
    may, none, verify = (msgspec.structs.replace(RELAYHOST, tls=TlsLevel(level)) for level in ("may", "none", "verify"))
    pool = msgspec.structs.replace(
        RELAYHOST, pool=(Upstream(may, 0), Upstream(none, 1), Upstream(verify, 2, 3, ("5/h",)))
    )
    asked = as_asked(pool, REQUIRED)
    raised = msgspec.structs.replace(RELAYHOST, tls=TlsLevel.VERIFY, demand="requiretls")
    assert asked.pool == (Upstream(raised, 0), Upstream(raised, 2, 3, ("5/h",))) and asked.demand == "requiretls"
    assert as_asked(pool, OPTIONAL) == pool
    plain = msgspec.structs.replace(RELAYHOST, pool=(Upstream(none, 0),))
    assert as_asked(plain, REQUIRED) == plain


def test_with_requiretls_dane_falls_back_to_authorities() -> None:
    """Without records, or with none that can be used, a certificate is verified instead of none."""
    asked = as_asked(at(BY_MX, TlsLevel.DANE), REQUIRED)
    for finding in (
        TlsaFinding("mx.example", nothing="none"),
        TlsaFinding("_25._tcp.mx.example", (Tlsa(1, 1, 1, b""),)),
    ):
        assert decide(Site("mx/x", (HOST,), asked, 9e9), HOST, finding).level is TlsLevel.VERIFY
    plain = Site("mx/x", (HOST,), at(BY_MX, TlsLevel.DANE), 9e9, StsMode.NONE)
    assert decide(plain, HOST, TlsaFinding("mx.example", nothing="none")).level is TlsLevel.MAY
