"""Suspending: sites, routes and users send nothing until they are resumed, over a restart, too; nothing else waits."""

import asyncio
import json
import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
from relay_house import SLOW, House

from smarthost.__main__ import main
from smarthost.control_verbs import Question, Refusal, Resume, Suspend
from smarthost.mail.entry import Why
from smarthost.mail.envelope import Envelope, Recipient
from smarthost.mail.event import Kind
from smarthost.mail.message import Arrival, format_id, parse_id
from smarthost.mail.route import Deliver, Host, NextHop, Route, Site, TlsLevel
from smarthost.policy.admission import User
from smarthost.policy.routing import Match, RouteRule
from smarthost.policy.suspension import Suspension, SuspensionKind, Suspensions
from smarthost.spool.store import Filter
from smarthost.spool.suspension_file import read_suspensions, write_suspensions

RELAYED = Kind.RELAYED


async def why_of(house: House, number: int) -> dict[str, Any]:
    """Give what `why` says of a message with one entry."""
    [row] = [row async for row in house.server.operations.why(number)]
    return row


async def until_suspended(house: House, number: int) -> dict[str, Any]:
    """Wait until a message waits because it is suspended."""
    async with asyncio.timeout(15):
        while (row := await why_of(house, number))["why"] != Why.SUSPENDED:
            await asyncio.sleep(0.02)
    return row


async def open_two(house: House) -> None:
    """Open a relay with a further route, for recipients in other.example, to the same sink."""
    await house.sink.start()
    hop = NextHop("127.0.0.1", house.sink.address[1])
    other = Route("other", Deliver.RELAYHOST, (hop,), TlsLevel.NONE)
    await house.open(route_rules=(RouteRule(Match(recipient=("*@other.example",)), other),), retry=SLOW)


@pytest.mark.parametrize(("kind", "name"), [("route", "relayhost"), ("site", "127.0.0.*")])
async def test_a_route_and_a_site_wait_and_go_on(house: House, kind: str, name: str) -> None:
    """Mail waits as suspended, no attempt is spent, and all of it goes when it is resumed."""
    await open_two(house)
    operations = house.server.operations
    first = await house.send("250@example.net")
    await house.until(lambda: RELAYED in house.kinds(first))
    await operations.suspension.suspend(Suspend(kind, name, 0.0, "the provider asked for it"))
    numbers = [await house.send(f"250-{at}@example.net") for at in range(3)]
    for number in numbers:
        row = await until_suspended(house, number)
        assert row["attempts"] == 0 and row["until"] is None and "the provider asked for it" in row["text"]
    shown = [row["why"] async for row in operations.queue_list(Filter(why=Why.SUSPENDED), 0)]
    assert shown == [Why.SUSPENDED] * 3
    explained = await operations.explain(Question("250@example.net"))
    assert explained["earliest"]["why"] == Why.SUSPENDED and explained["earliest"]["at"] is None
    if kind == "route":
        other = await house.send("250@other.example")
        await house.until(lambda: RELAYED in house.kinds(other))
    await operations.suspension.resume(Resume(kind, name))
    await house.until(lambda: all(RELAYED in house.kinds(number) for number in numbers))


async def test_a_flush_does_not_lift_it_and_its_time_does(house: House) -> None:
    """A person's word stands against queue flush; a suspension with an end goes by itself."""
    await open_two(house)
    operations = house.server.operations
    await operations.suspension.suspend(Suspend("route", "relayhost", 3.0))
    number = await house.send("250@example.net")
    assert (await until_suspended(house, number))["until"] is not None
    await operations.queue_flush(Filter(ids=(number,)))
    await until_suspended(house, number)
    await house.until(lambda: RELAYED in house.kinds(number))
    await house.until(lambda: not house.server.relay.suspender.suspensions.all)
    assert [event.event for event in house.events if event.event in (Kind.SUSPENDED, Kind.RESUMED)] == [
        Kind.SUSPENDED,
        Kind.RESUMED,
    ]


async def test_a_user_waits_alone(house: House) -> None:
    """Mail of one user is put off, that which waits for others is not; it survives a restart, and goes when resumed."""
    users = (User("app1", "$argon2id$x"), User("app2", "$argon2id$x"))
    await house.open(users=users, retry=SLOW)
    await house.server.operations.suspension.suspend(Suspend("user", "app1"))
    await house.close()
    await house.sink.start()
    await house.open()
    assert house.server.relay.suspender.suspensions.of_mail("app1", "") is not None
    held = await accepted_from(house, "app1", "250-1@example.net")
    free = await accepted_from(house, "app2", "250-2@example.net")
    await house.until(lambda: RELAYED in house.kinds(free))
    await until_suspended(house, held)
    operations = house.server.operations
    explained = await operations.explain(Question("250@example.net", user="app1"))
    assert explained["earliest"]["why"] == Why.SUSPENDED and explained["verdict"] == "waits"
    await operations.suspension.suspend(Suspend("user", "app1", 3600.0, "for an hour"))
    async with asyncio.timeout(15):
        while (row := await until_suspended(house, held))["until"] is None:
            await asyncio.sleep(0.02)
    assert "for an hour" in row["text"]
    await operations.suspension.resume(Resume("user", "app1"))
    await house.until(lambda: RELAYED in house.kinds(held))


async def accepted_from(house: House, user: str, recipient: str) -> int:
    """Hand a message in as a user who has logged in."""
    relay = house.server.relay
    arrival = Arrival(relay.clock(), "door", "127.0.0.1", "client.example", user)
    envelope = Envelope("app@example.org", (Recipient(recipient, "example.net"),))
    draft = relay.intake.begin(arrival, envelope)
    draft.write(b"Subject: x\r\n\r\nhello\r\n")
    done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    draft.commit(done.set_result)
    reply = await done
    assert reply.code == 250
    number = parse_id(reply.text.split()[-1])
    assert number is not None
    return number


async def test_what_waits_already_of_a_user_is_put_off(house: House) -> None:
    """A user who is suspended while mail waits for a busy site: it is put off, and what is scheduled keeps its time."""
    users = (User("app1", "$argon2id$x"),)
    route = Route("relayhost", Deliver.RELAYHOST, (NextHop("127.0.0.1", 1),), TlsLevel.NONE)
    await house.open(users=users, retry=SLOW, fallback=route)
    number = await accepted_from(house, "app1", "250@example.net")
    waiting = await accepted_from(house, "app1", "250-2@example.net")
    await house.until(lambda: Kind.DELAYED in house.kinds(number))
    await house.until(lambda: house.server.relay.scheduler.total == 0)
    await house.server.operations.suspension.suspend(Suspend("user", "app1"))
    [entry] = await house.server.spool.entries_of(waiting)
    assert entry.why is Why.SUSPENDED and math.isinf(entry.due) and not math.isinf(entry.deadline)
    [retried] = await house.server.spool.entries_of(number)
    assert retried.why is Why.RETRY


async def test_what_does_not_exist_is_refused(house: House) -> None:
    """Routes and users have to exist, a kind has to be one; who is not suspended cannot be resumed."""
    await house.open()
    suspension = house.server.operations.suspension
    for asked in (Suspend("route", "nowhere"), Suspend("user", "nobody"), Suspend("planet", "x"), Suspend("site", "")):
        with pytest.raises(Refusal):
            await suspension.suspend(asked)
    with pytest.raises(Refusal):
        await suspension.resume(Resume("route", "relayhost"))


async def test_the_commands(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    """suspend and resume as a person types them; without arguments suspend lists."""
    await house.open()

    async def run(*words: str) -> tuple[int, str]:
        code = await asyncio.to_thread(main, [*words, "--data-directory", str(house.folder)])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    assert await run("suspend") == (0, "nothing is suspended\n")
    code, text = await run("suspend", "route", "relayhost", "--for", "2h", "--reason", "a test")
    assert code == 0 and text.startswith("suspended: route relayhost until 20")
    assert "a test" in (await run("suspend"))[1]
    assert json.loads((await run("suspend", "--json"))[1])["name"] == "relayhost"
    assert (await run("suspend", "route", "other"))[0] == 66
    assert (await run("suspend", "route"))[0] == 64
    number = await house.send("250@example.net")
    await run("suspend", "route", "relayhost")
    await until_suspended(house, number)
    assert "a person resumes it" in (await run("why", format_id(number)))[1]
    assert await run("resume", "route", "relayhost") == (0, "resumed: route relayhost\n")
    assert (await run("resume", "route", "relayhost"))[0] == 66


def test_the_file_is_whole_or_as_before(tmp_path: Path) -> None:
    """What was written is read; a missing file is nothing, a damaged one an error that names it."""
    path = tmp_path / "suspensions.json"
    assert read_suspensions(path) == []
    known = [Suspension(SuspensionKind.USER, "app1", 1.0), Suspension(SuspensionKind.SITE, "*.x", 1.0, 2.0, "why")]
    write_suspensions(path, known)
    assert read_suspensions(path) == known and path.stat().st_mode & 0o777 == 0o600
    path.write_text("{")
    with pytest.raises(ValueError, match=r"suspensions\.json"):
        read_suspensions(path)


@pytest.mark.parametrize("octets", [b"", b"{", b"\xff", b'[{"kind": "moon", "name": "x", "since": 1}]'])
async def test_with_a_damaged_file_nothing_leaves(
    house: House, caplog: pytest.LogCaptureFixture, octets: bytes
) -> None:
    """What was suspended must not leave silently: all mail is accepted and waits, over a restart, too, until a person
    says so; an error and the metric tell of it, and the damaged file is kept.
    """
    house.folder.mkdir(parents=True)
    (house.folder / "suspensions.json").write_bytes(octets)
    await house.open()
    assert house.server.counters.state_damaged["suspensions"] == 1
    assert any(each.levelname == "ERROR" and "nothing is sent" in each.getMessage() for each in caplog.records)
    assert (house.folder / "suspensions.json.damaged").read_bytes() == octets
    number = await house.send("250@example.net")
    await house.until(lambda: house.server.relay.scheduler.total == 0)
    await house.server.stop()
    await house.open()
    assert not house.server.counters.state_damaged["suspensions"]
    row = await until_suspended(house, number)
    assert row["attempts"] == 0 and "smarthost resume site '*'" in row["text"]
    await house.server.operations.suspension.resume(Resume("site", "*"))
    await house.until(lambda: RELAYED in house.kinds(number))


async def test_mail_of_a_user_whose_suspension_is_lost_can_be_resumed(house: House) -> None:
    """A file that was taken away leaves mail that is put off without end; `resume user` still lets it go."""
    await house.open(users=(User("app1", "$argon2id$x"),), retry=SLOW)
    await house.server.operations.suspension.suspend(Suspend("user", "app1"))
    number = await accepted_from(house, "app1", "250@example.net")
    await until_suspended(house, number)
    await house.server.stop()
    (house.folder / "suspensions.json").unlink()
    await house.open()
    assert (await house.server.operations.suspension.resume(Resume("user", "app1")))["name"] == "app1"
    await house.until(lambda: RELAYED in house.kinds(number))
    with pytest.raises(Refusal):
        await house.server.operations.suspension.resume(Resume("user", "app1"))


def test_the_longest_suspension_of_a_site_holds() -> None:
    """A site is suspended by its route and by globs and suffixes of its hosts; others are not."""
    route = Route("mx", Deliver.MX)
    site = Site("mx/mx1.example.net", (Host("mx1.example.net", ("192.0.2.1",)),), route, 0.0)
    other = msgspec.structs.replace(
        site, name="a/x", hosts=(Host("x.example", ()),), route=msgspec.structs.replace(route, name="a")
    )
    short = Suspension(SuspensionKind.SITE, "example.net", 1.0, 5.0)
    suspensions = Suspensions([short])
    assert suspensions.of_site(site) == short and suspensions.of_site(other) is None
    forever = Suspension(SuspensionKind.ROUTE, "mx", 1.0)
    suspensions.put(forever)
    assert suspensions.of_site(site) == forever
    assert suspensions.ended(5.0) == [short] and suspensions.all == (forever,)
