"""Connecting to a site: candidates in order, fail-over, what is left alone and for how long."""

import socket
from collections.abc import Iterator
from random import Random

import pytest
from carried import NoContexts
from dns_server import Clock
from smtp_peer import SmtpPeer, smtp_peer

from smarthost.delivery.connect import Connector, Unreached, outcomes_of
from smarthost.mail.envelope import Recipient
from smarthost.mail.outcome import Action, Scope, Stage
from smarthost.mail.route import Deliver, Host, Route, Site, TlsLevel
from smarthost.network.session import Credentials, Session, SessionSettings, Timeouts
from smarthost.policy.classify import NetFault
from smarthost.policy.hosts import order_addresses

GREETED = "<- 220 peer\n-> EHLO relay.example\n<- 250 peer\n"
END = "-> QUIT\n== end\n"
FAST = Timeouts(connect=1.0, greeting=0.3, ehlo=0.3)


@pytest.fixture
def clock() -> Clock:
    """Give a clock that a test moves."""
    return Clock()


def connector(clock: Clock, **settings: object) -> Connector:
    """Make one whose sessions go without TLS."""
    wanted = SessionSettings("relay.example", TlsLevel.NONE, **settings)  # type: ignore[arg-type]
    return Connector(lambda site: wanted, NoContexts(), clock, Random(1), FAST)  # type: ignore[arg-type]


def site_of(*hosts: Host, deliver: Deliver = Deliver.RELAYHOST) -> Site:
    """Make a site."""
    return Site("site", hosts, Route("default", deliver, login="upstream"), 9e9)


def host_of(peer: SmtpPeer, name: str = "", preference: int = 0, addresses: tuple[str, ...] = ("127.0.0.1",)) -> Host:
    """Name a peer."""
    return Host(name or f"host{peer.port}", addresses, peer.port, preference=preference)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that refuses connections: it is bound, so that no peer gets it, and not listening."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])


async def test_first_host_that_answers(clock: Clock, closed_port: int) -> None:
    """A host that refuses connections, and one that greets with 421, are passed over."""
    dead = Host("dead", ("127.0.0.1",), closed_port)
    async with smtp_peer("<- 421 4.3.2 busy\n== close") as busy, smtp_peer(GREETED + END) as good:
        hosts = (dead, host_of(busy, preference=1), host_of(good, "good", 2))
        session = await connector(clock).connect(site_of(*hosts))
        assert isinstance(session, Session)
        assert session.host.name == "good"
        session.abandon()


async def test_other_addresses_of_a_host(clock: Clock) -> None:
    """All addresses of a host are tried."""
    async with smtp_peer(GREETED + END) as good:
        host = host_of(good, addresses=("127.0.0.9", "127.0.0.1"))
        session = await connector(clock).connect(site_of(host))
        assert isinstance(session, Session)
        assert session.address == "127.0.0.1"
        session.abandon()


async def test_none_left(clock: Clock, closed_port: int) -> None:
    """When all fail, the last fault says why, and makes outcomes of scope HOST that delay."""
    first, last = (Host(name, ("127.0.0.1",), closed_port, preference=at) for at, name in enumerate(("a", "b")))
    unreached = await connector(clock).connect(site_of(first, last))
    assert isinstance(unreached, Unreached)
    assert (unreached.host, unreached.address, unreached.fault.fault) == ("b", "127.0.0.1", NetFault.REFUSED)
    assert unreached.reason == "connection refused, while connecting"
    recipients = (Recipient("r1@c.example", "c.example"), Recipient("r2@c.example", "c.example"))
    outcomes = outcomes_of(unreached, recipients)
    assert tuple(outcome.recipient for outcome in outcomes) == recipients
    assert {(o.action, o.scope, o.stage, str(o.status), o.host) for o in outcomes} == {
        (Action.DELAYED, Scope.HOST, Stage.CONNECT, "4.4.1", "b")
    }


async def test_hosts_that_failed_this_entry_go_last(clock: Clock) -> None:
    """A host that an entry has tried is tried behind the others."""
    async with smtp_peer(GREETED + END) as one, smtp_peer(GREETED + END) as other:
        site = site_of(host_of(one, "one"), host_of(other, "other", 1))
        for tried, expected in ((("one",), "other"), (("one", "other"), "one")):
            session = await connector(clock).connect(site, tried)
            assert isinstance(session, Session)
            assert session.host.name == expected
            session.abandon()


async def test_a_host_that_refuses_us_is_left_alone(clock: Clock) -> None:
    """554 in the greeting leaves a host alone for 300 s; the reason is kept for who asks meanwhile."""
    async with smtp_peer("<- 554 5.7.1 go away\n", GREETED + END) as peer:
        connect = connector(clock)
        site = site_of(host_of(peer, addresses=("127.0.0.1", "127.0.0.1")))
        unreached = await connect.connect(site)
        assert isinstance(unreached, Unreached)
        assert (str(unreached.fault.reply), unreached.verdict.scope) == ("554 5.7.1 go away", Scope.HOST)
        assert unreached.verdict.action is Action.DELAYED
        clock.now += 100
        again = await connect.connect(site)
        assert isinstance(again, Unreached)
        assert again.reason == "554 5.7.1 go away (left alone for 200 s more)"
        assert again.is_remembered and not unreached.is_remembered
        assert again.verdict.pause == 200
        assert len(peer.reads) == 1
        clock.now += 201
        session = await connect.connect(site)
        assert isinstance(session, Session)
        session.abandon()


async def test_a_refused_login_is_left_alone_everywhere(clock: Clock) -> None:
    """535 ends the search at once and leaves the login alone for 300 s on all hosts; clear() ends that."""
    greeted = GREETED.replace("250 peer", "250-peer\n<- 250 AUTH PLAIN")
    refusing = greeted + "-> AUTH PLAIN *\n<- 535 5.7.8 wrong\n"
    welcoming = greeted + "-> AUTH PLAIN *\n<- 235 2.7.0 ok\n"
    async with smtp_peer(refusing, welcoming + END) as peer:
        login = Credentials("user", "secret")
        connect = connector(clock, credentials=login, allow_plaintext_auth=True)
        site = site_of(host_of(peer, "one"), host_of(peer, "two", 1))
        unreached = await connect.connect(site)
        assert isinstance(unreached, Unreached)
        assert (unreached.verdict.scope, unreached.fault.stage) == (Scope.SITE, Stage.AUTH)
        assert isinstance(await connect.connect(site), Unreached)
        assert len(peer.reads) == 1
        connect.clear()
        session = await connect.connect(site)
        assert isinstance(session, Session)
        session.abandon()


async def test_an_address_in_trouble_goes_last(clock: Clock, closed_port: int) -> None:
    """An address that did not answer is tried behind the others for a minute, but tried when there is no other."""
    dead = Host("dead", ("127.0.0.1",), closed_port)
    other = ("127.0.0.2",)
    async with smtp_peer(GREETED + END, GREETED + END, host="127.0.0.2") as good:
        connect = connector(clock)
        site = site_of(dead, host_of(good, "good", 1, other))
        for _ in range(2):
            session = await connect.connect(site)
            assert isinstance(session, Session)
            session.abandon()
        assert [address for _, address in connect._candidates(site, ())] == ["127.0.0.2", "127.0.0.1"]
        clock.now += 61
        assert [address for _, address in connect._candidates(site, ())] == ["127.0.0.1", "127.0.0.2"]


async def test_equal_hosts_share_the_load(clock: Clock) -> None:
    """Hosts of one preference are shuffled for each session, those of different ones never."""
    site = site_of(Host("a", ("192.0.2.1",)), Host("b", ("192.0.2.2",)), Host("c", ("192.0.2.3",), preference=5))
    connect = connector(clock)
    orders = {tuple(host.name for host, _ in connect._candidates(site, ())) for _ in range(30)}
    assert orders == {("a", "b", "c"), ("b", "a", "c")}


async def test_source_address_chooses_the_family(clock: Clock) -> None:
    """From an IPv4 address only IPv4 is tried; with nothing left that is said."""
    site = site_of(Host("six", ("2001:db8::1",)))
    unreached = await connector(clock, source_address="127.0.0.1").connect(site)
    assert isinstance(unreached, Unreached)
    assert unreached.reason == "no address that can be reached from 127.0.0.1"
    assert outcomes_of(unreached, (Recipient("a@b", "b"),))[0].action is Action.DELAYED


@pytest.mark.parametrize(("deliver", "tried"), [(Deliver.MX, 2), (Deliver.RELAYHOST, 4)])
async def test_bounds_of_one_attempt(clock: Clock, deliver: Deliver, tried: int) -> None:
    """For MX two sessions that lead to nothing are enough; a relayhost's hosts are all tried."""
    dialogs = ["<- 451 4.3.0 later\n"] * tried
    async with smtp_peer(*dialogs) as peer:
        site = site_of(*(host_of(peer, f"host{at}", at) for at in range(4)), deliver=deliver)
        assert isinstance(await connector(clock).connect(site), Unreached)
        assert len(peer.reads) == tried


async def test_five_addresses_an_attempt(clock: Clock, closed_port: int) -> None:
    """For MX five addresses that do not answer are enough, whatever the number of hosts."""
    tried: list[str] = []
    connect = connector(clock)
    attempt = connect._open

    async def noted(*args: object) -> object:
        tried.append(str(args[-2]))
        return await attempt(*args)  # type: ignore[arg-type]

    connect._open = noted  # type: ignore[assignment,method-assign]
    hosts = [
        Host(f"host{at}", (f"127.0.0.{at * 2 + 2}", f"127.0.0.{at * 2 + 3}"), closed_port, preference=at)
        for at in range(4)
    ]
    assert isinstance(await connect.connect(site_of(*hosts, deliver=Deliver.MX)), Unreached)
    assert tried == [f"127.0.0.{number}" for number in range(2, 7)]


async def test_the_families_take_turns(clock: Clock) -> None:
    """IPv4 and IPv6 addresses of hosts are tried in turn, so that a broken family costs one try a host."""
    hosts = [
        Host(f"host{at}", order_addresses((f"192.0.2.{at}",), (f"2001:db8::{at}",)), preference=at) for at in range(3)
    ]
    pairs = connector(clock)._candidates(site_of(*hosts), ())
    assert [address for _, address in pairs] == [
        "192.0.2.0",
        "2001:db8::0",
        "192.0.2.1",
        "2001:db8::1",
        "192.0.2.2",
        "2001:db8::2",
    ]


async def test_the_host_that_sticks_goes_first(clock: Clock) -> None:
    """A host of a worse preference goes first where an entry wants it, and behind all others while it is dead."""
    site = site_of(Host("a", ("192.0.2.1",)), Host("b", ("192.0.2.2",), preference=5))
    connect = connector(clock)
    assert [host.name for host, _ in connect._candidates(site, (), (), ("b",))] == ["b", "a"]
    assert not connect.is_dead(site, site.hosts[1])
    connect._troubled.pause("192.0.2.2", clock.now + 60, None, clock.now)
    assert connect.is_dead(site, site.hosts[1])
    assert [host.name for host, _ in connect._candidates(site, (), (), ("b",))] == ["a", "b"]
