"""Routes, next hops, rewriting and limits: tables of what matches what."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smarthost.mail.envelope import Recipient
from smarthost.mail.route import Deliver, Host, NextHop, Route, Site, TlsLevel
from smarthost.policy.limits import Limit, LimitMatch, LimitTable, SiteLimits
from smarthost.policy.rate import Rate
from smarthost.policy.rewriting import Rewrite, Rewriter
from smarthost.policy.routing import Match, RouteRule, RoutingTable, parse_next_hop
from smarthost.policy.security import TlsPolicy, plan

MX = Route("mx", Deliver.MX)
RELAY = Route("relayhost", Deliver.RELAYHOST, (NextHop("smtp.example.net", 587),))


@pytest.mark.parametrize(
    ("text", "hop"),
    [
        ("smtp.example.net", NextHop("smtp.example.net", 25, by_mx=True)),
        ("[smtp.example.net]", NextHop("smtp.example.net", 25)),
        ("smtp.example.net:587", NextHop("smtp.example.net", 587, by_mx=True)),
        ("[SMTP.example.net]:587", NextHop("smtp.example.net", 587)),
        ("[smtp.example.net]:submission", NextHop("smtp.example.net", 587)),
        ("192.0.2.1", NextHop("192.0.2.1", 25)),
        ("192.0.2.1:2525", NextHop("192.0.2.1", 2525)),
        ("[192.0.2.1]:2525", NextHop("192.0.2.1", 2525)),
        ("[2001:db8::1]:2525", NextHop("2001:db8::1", 2525)),
        ("[IPv6:2001:db8::1]", NextHop("2001:db8::1", 25)),
        ("2001:db8::1", NextHop("2001:db8::1", 25)),
        ("localhost:2525", NextHop("localhost", 2525)),
        ("smtps://smtp.example.net", NextHop("smtp.example.net", 465, by_mx=True, implicit_tls=True)),
        ("smtps://[smtp.example.net]:10465", NextHop("smtp.example.net", 10465, implicit_tls=True)),
        ("[smtp.example.net]:465", NextHop("smtp.example.net", 465, implicit_tls=True)),
        ("smtp://[smtp.example.net]", NextHop("smtp.example.net", 25)),
        (" [bücher.example]:587 ", NextHop("xn--bcher-kva.example", 587)),
    ],
)
def test_next_hops_are_read_as_postfix_does(text: str, hop: NextHop) -> None:
    """Brackets and addresses mean no MX lookup, smtps:// and port 465 mean TLS on connect."""
    assert parse_next_hop(text) == hop


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a b",
        "[smtp.example.net",
        "smtp.example.net]",
        "smtp.example.net:",
        "smtp.example.net:0",
        "smtp.example.net:65536",
        "smtp.example.net:http",
        "http://smtp.example.net",
        "-x.example",
        "a..b",
        "192.0.2.300",
        "[]:25",
        "user@example.net",
        "smtp.example.net:٢٥",
    ],
)
def test_what_is_no_next_hop_is_refused(text: str) -> None:
    """A text that is no next hop raises with a sentence."""
    with pytest.raises(ValueError, match="is no next hop"):
        parse_next_hop(text)


hosts = st.one_of(
    st.from_regex(r"[a-z][a-z0-9]{0,10}(\.[a-z][a-z0-9]{0,10}){0,3}", fullmatch=True),
    st.ip_addresses().map(str),
)


@given(hosts, st.integers(1, 65535), st.booleans())
def test_a_next_hop_reads_what_it_writes(host: str, port: int, implicit: bool) -> None:
    """Written and read again, a next hop is the same."""
    hop = parse_next_hop(f"{'smtps://' if implicit else ''}[{host}]:{port}")
    assert parse_next_hop(str(hop)) == hop


def recipient(address: str, domain: str = "") -> Recipient:
    """Make a recipient."""
    return Recipient(address, domain or address.rpartition("@")[2].lower())


@pytest.mark.parametrize(
    ("match", "chosen"),
    [
        (Match(), True),
        (Match(sender=("*@example.org",)), True),
        (Match(sender=("*@EXAMPLE.org",)), True),
        (Match(sender=("*@example.net",)), False),
        (Match(recipient=("*@partner.example",)), True),
        (Match(recipient=("*@other.example", "bob@*")), True),
        (Match(user=("app1",)), True),
        (Match(user=("app2",)), False),
        (Match(tag=("bulk",)), True),
        (Match(tag=("bul?",)), True),
        (Match(tag=("b",)), False),
        (Match(sender=("*@example.org",), user=("app2",)), False),
        (Match(sender=("<>",)), False),
    ],
)
def test_all_fields_of_a_rule_must_match(match: Match, chosen: bool) -> None:
    """A rule is about mail that one glob of each field matches."""
    route = Route("special", Deliver.HOLD)
    table = RoutingTable([RouteRule(match, route)], MX)
    found = table.choose("App@example.org", recipient("Bob@Partner.example"), "app1", "bulk")
    assert found is (route if chosen else MX)


def test_the_first_rule_wins() -> None:
    """Rules are tried in their order, and all routes are known by name."""
    first, second = Route("first", Deliver.HOLD), Route("second", Deliver.DISCARD)
    table = RoutingTable([RouteRule(Match(), first), RouteRule(Match(), second)], RELAY)
    assert table.choose("", recipient("a@b.example"), "", "") is first
    assert table.routes == {"first": first, "second": second, "relayhost": RELAY}


def test_the_null_reverse_path_is_written_as_brackets() -> None:
    """A rule for reports names the null reverse-path as <>."""
    reports = Route("reports", Deliver.HOLD)
    table = RoutingTable([RouteRule(Match(sender=("<>",)), reports)], MX)
    assert table.choose("", recipient("a@b.example"), "", "") is reports
    assert table.choose("x@b.example", recipient("a@b.example"), "", "") is MX


@pytest.mark.parametrize("glob", ["*@bücher.example", "*@BÜCHER.example", "*@xn--bcher-kva.example"])
def test_an_internationalised_domain_matches_in_both_forms(glob: str) -> None:
    """A rule may write a domain as U-label or A-label."""
    route = Route("books", Deliver.HOLD)
    table = RoutingTable([RouteRule(Match(recipient=(glob,)), route)], MX)
    assert table.choose("", recipient("a@bücher.example", "xn--bcher-kva.example"), "", "") is route


def test_rewriting_takes_the_first_match_of_each_field() -> None:
    """Each field is rewritten by the first rule that matches and names it, and nothing else changes."""
    rewriter = Rewriter(
        [
            Rewrite("root@*", reverse_path="alerts@example.org"),
            Rewrite("*@host.internal", reverse_path="other@example.org", header_from="from@example.org"),
            Rewrite("*", recipient="all@example.org"),
        ]
    )
    assert rewriter.reverse_path("ROOT@host.internal") == "alerts@example.org"
    assert rewriter.header_from("root@host.internal") == "from@example.org"
    assert rewriter.reverse_path("www@host.internal") == "other@example.org"
    assert rewriter.reverse_path("a@example.com") == "a@example.com"
    assert rewriter.recipient("a@example.com") == "all@example.org"


def test_the_null_reverse_path_is_never_rewritten() -> None:
    """A rule for everything leaves the null reverse-path alone: reports must not get a sender."""
    assert Rewriter([Rewrite("*", reverse_path="a@example.org")]).reverse_path("") == ""


def site(route: Route, *hosts: str) -> Site:
    """Make a site of hosts."""
    return Site("site", tuple(Host(name, ("192.0.2.1",)) for name in hosts), route, 0.0)


def test_defaults_differ_for_relayhosts_and_strangers() -> None:
    """A session to a relayhost may idle for 60 s, one to an MX host for 5 s; the rest is the same."""
    table = LimitTable([])
    assert table.for_site(site(RELAY, "smtp.example.net")) == SiteLimits()
    assert table.for_site(site(MX, "mx.example")) == SiteLimits(idle_timeout=5.0)


def test_the_most_specific_limit_wins_key_by_key() -> None:
    """A limit for a site beats a limit for all, but only in the keys that it sets."""
    table = LimitTable(
        [
            Limit(max_connections=7, max_messages_per_connection=11, idle_timeout=9.0),
            Limit(LimitMatch(site="*.google.com"), max_connections=5, message_rate=("10/s", "100/d")),
            Limit(LimitMatch(site="*.l.google.com"), message_rate=("1/s",)),
            Limit(LimitMatch(site="*.google.com", route="mx"), max_recipients_per_transaction=50),
            Limit(LimitMatch(site="*.google.com", route="other"), max_connections=1),
        ]
    )
    found = table.for_site(site(MX, "aspmx.l.google.com", "alt1.aspmx.l.google.com"))
    assert found == SiteLimits(
        max_connections=5,
        message_rate=(Rate(1, 1.0),),
        max_messages_per_connection=11,
        max_recipients_per_transaction=50,
        idle_timeout=9.0,
    )


@pytest.mark.parametrize(
    ("pattern", "hits"),
    [("google.com", True), ("*.google.com", True), ("*.GOOGLE.com", True), ("oogle.com", False), ("site", True)],
)
def test_a_site_matches_by_suffix_or_glob(pattern: str, hits: bool) -> None:
    """A suffix matches whole labels, a glob what it says, and a site's own name is good as well."""
    table = LimitTable([Limit(LimitMatch(site=pattern), max_connections=3)])
    assert (table.for_site(site(MX, "mx.example", "aspmx.l.google.com.")).max_connections == 3) is hits


def test_of_equal_limits_the_first_wins() -> None:
    """Two limits that are equally specific do not depend on luck."""
    table = LimitTable([Limit(max_connections=1), Limit(max_connections=2)])
    assert table.for_site(site(MX, "mx.example")).max_connections == 1


def test_a_limit_of_a_user_is_not_a_sites() -> None:
    """A limit that names a user, a destination or a sender's domain never throttles a whole site."""
    limits = [Limit(LimitMatch(**{key: "x"}), max_connections=1) for key in ("user", "destination", "sender_domain")]
    assert LimitTable(limits).for_site(site(MX, "mx.example")).max_connections == 20


def test_an_empty_list_of_rates_lifts_a_wider_rate() -> None:
    """A specific limit can say that there is no rate."""
    table = LimitTable([Limit(message_rate=("1/s",)), Limit(LimitMatch(route="mx"), message_rate=())])
    assert table.for_site(site(MX, "mx.example")).message_rate == ()
    assert table.for_site(site(RELAY, "mx.example")).message_rate == (Rate(1, 1.0),)


@pytest.mark.parametrize(
    ("level", "implicit", "attempt", "required", "verify", "retry_plain"),
    [
        (TlsLevel.NONE, False, False, False, False, False),
        (TlsLevel.MAY, False, True, False, False, True),
        (TlsLevel.ENCRYPT, False, True, True, False, False),
        (TlsLevel.VERIFY, False, True, True, True, False),
        (TlsLevel.NONE, True, True, True, False, False),
        (TlsLevel.MAY, True, True, True, False, False),
        (TlsLevel.VERIFY, True, True, True, True, False),
    ],
)
def test_what_tls_must_prove(
    level: TlsLevel, implicit: bool, attempt: bool, required: bool, verify: bool, retry_plain: bool
) -> None:
    """Each level has its plan, and TLS on connect cannot be done without."""
    found = plan(TlsPolicy(level), Host("mx.example", (), implicit_tls=implicit))
    assert (found.attempt, found.required, found.verify, found.retry_plain) == (attempt, required, verify, retry_plain)
