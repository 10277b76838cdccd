"""What a person, a restart, a reload and a dead site do to the queue."""

import asyncio
import json
import smtplib

import msgspec
import pytest
from relay_house import FAST, SLOW, House

from smarthost.__main__ import main
from smarthost.config import Config
from smarthost.crypto.dkim_keys import Keyring
from smarthost.mail.entry import Why
from smarthost.mail.event import Kind
from smarthost.mail.message import format_id
from smarthost.mail.route import Deliver, NextHop, Route, TlsLevel
from smarthost.policy.routing import Match, RouteRule
from smarthost.spool.store import Filter

RELAYED, DELAYED = Kind.RELAYED, Kind.DELAYED


async def test_what_was_accepted_survives_a_restart(house: House) -> None:
    """A message that waits when the relay stops is sent by the next one, when its time comes."""
    await house.open(retry=msgspec.structs.replace(FAST, schedule=(1.0,)))
    number = await house.send("451.once@example.net")
    await house.until(lambda: DELAYED in house.kinds(number))
    await house.server.stop()
    await house.open()
    await house.until(lambda: RELAYED in house.kinds(number))
    await house.empty()


async def test_hold_and_release(house: House) -> None:
    """Held entries stay through a flush; released ones leave."""
    await house.open(retry=SLOW)
    number = await house.send("451.once@example.net")
    await house.until(lambda: DELAYED in house.kinds(number))
    await house.until(lambda: house.server.relay.scheduler.total == 0)
    operations = house.server.operations
    this = Filter(ids=(number,))
    assert (await operations.queue_hold(this, True))["entries"] == 1
    assert (await operations.queue_hold(this, False))["entries"] == 1
    assert (await operations.queue_flush(this))["entries"] == 0
    rows = [row async for row in operations.why(number)]
    assert rows[0]["why"] == Why.HELD
    assert (await operations.queue_release(this, False))["entries"] == 1
    await house.until(lambda: RELAYED in house.kinds(number))
    assert Kind.HELD in house.kinds(number) and Kind.RELEASED in house.kinds(number)


async def test_commands_that_find_nothing(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    """Ids that are not in the queue are an error for scripts (66); a filter that nothing fits is none, and says so."""
    await house.open(retry=SLOW)

    async def run(*words: str) -> tuple[int, str]:
        code = await asyncio.to_thread(main, ["queue", *words, "--data-directory", str(house.folder)])
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    for action in ("flush", "hold", "release", "retry", "fail", "delete"):
        code, text = await run(action, "0123456789AB")
        assert code == 66 and "none of these messages" in text
        assert await run(action, "--sender", "x@*") == (0, "nothing in the queue fits\n")
    code, text = await run("delete", "0123456789AB", "--json")
    assert code == 66 and json.loads(text)["entries"] == 0


async def test_flush_sends_now(house: House) -> None:
    """A flush makes a delayed message leave at once."""
    await house.open(retry=SLOW)
    number = await house.send("451.once@example.net")
    await house.until(lambda: DELAYED in house.kinds(number))
    await house.until(lambda: house.server.relay.scheduler.total == 0)
    assert (await house.server.operations.queue_flush(Filter(recipient="451*")))["entries"] == 1
    await house.until(lambda: RELAYED in house.kinds(number))


async def test_delete_leaves_no_trace_but_the_history(house: House) -> None:
    """A deleted message is gone without a report; its history says so."""
    await house.open(retry=SLOW)
    number = await house.send("451@example.net", sender="250@example.org")
    await house.until(lambda: DELAYED in house.kinds(number))
    await house.until(lambda: house.server.relay.scheduler.total == 0)
    assert (await house.server.operations.queue_delete(Filter(sender="250@*"), False))["messages"] == 1
    await house.empty()
    rows = [row async for row in house.server.operations.trace(number)]
    assert [row["event"] for row in rows] == ["accepted", "delayed", "deleted"]
    assert house.sink.counts.messages == 0


async def test_fail_reports_to_the_sender(house: House) -> None:
    """A message that a person gives up is reported like any failure."""
    await house.open(retry=SLOW)
    number = await house.send("451@example.net", sender="250@example.org")
    await house.until(lambda: DELAYED in house.kinds(number))
    await house.until(lambda: house.server.relay.scheduler.total == 0)
    assert (await house.server.operations.queue_fail(Filter(ids=(number,)), False))["entries"] == 1
    await house.until(lambda: house.sink.counts.messages == 1)
    assert b"Action: failed" in house.sink.messages[-1].content


async def test_changed_routes_apply_to_queued_mail(house: House) -> None:
    """After a reload with another relayhost, mail that waited for a dead one leaves through the new one."""
    dead = Route("relayhost", Deliver.RELAYHOST, (NextHop("127.0.0.1", 1),), TlsLevel.NONE)
    await house.open(fallback=dead, retry=FAST)
    numbers = [await house.send(f"250-{n}@example.net") for n in range(3)]
    await house.until(lambda: any(DELAYED in house.kinds(number) for number in numbers))
    good = Route("relayhost", Deliver.RELAYHOST, (NextHop("127.0.0.1", house.sink.address[1]),), TlsLevel.NONE)
    config = msgspec.structs.replace(house.config, fallback=good)
    house.server.relay.apply(config, Keyring())
    await house.server.relay.scheduler.refresh()
    await house.until(lambda: all(RELAYED in house.kinds(number) for number in numbers))
    await house.empty()


async def test_a_renamed_route_takes_its_mail_along(house: House) -> None:
    """Mail of a route that is gone from the configuration is routed anew after a restart."""
    dead = Route("old", Deliver.RELAYHOST, (NextHop("127.0.0.1", 1),), TlsLevel.NONE)
    rules = (RouteRule(Match(recipient=("*@example.net",)), dead),)
    await house.open(route_rules=rules, retry=FAST)
    number = await house.send("250@example.net", "250@other.example")
    await house.until(lambda: DELAYED in house.kinds(number) and RELAYED in house.kinds(number))
    await house.server.stop()
    await house.open(route_rules=(), retry=FAST)
    await house.until(lambda: house.kinds(number).count(RELAYED) == 2)
    await house.empty()


async def test_a_dead_site_spends_no_attempts_of_those_who_wait(house: House) -> None:
    """Connection refused: the first entry is delayed, the others wait on disk without an attempt, and say why."""
    dead = Route("relayhost", Deliver.RELAYHOST, (NextHop("127.0.0.1", 1),), TlsLevel.NONE)
    await house.open(fallback=dead, retry=SLOW)
    numbers = [await house.send(f"250-{n}@example.net") for n in range(5)]
    await house.until(lambda: any(DELAYED in house.kinds(number) for number in numbers))
    await asyncio.sleep(0.5)
    attempts = [(await house.server.spool.entries_of(number))[0].attempts for number in numbers]
    assert sorted(attempts) == [0, 0, 0, 0, 1]
    waiting = numbers[attempts.index(0)]
    row = [row async for row in house.server.operations.why(waiting)].pop()
    assert row["why"] == Why.SITE_THROTTLED and "refused" in row["text"] and row["until"]
    assert house.server.relay.scheduler.total == 0


async def test_routes_that_hold_discard_and_reject(house: House) -> None:
    """deliver = hold parks, discard accepts and drops, reject refuses at RCPT."""
    rules = tuple(
        RouteRule(Match(recipient=(f"*@{name}.example",)), Route(name, Deliver(name)))
        for name in ("hold", "discard", "reject")
    )
    await house.open(route_rules=rules)
    held = await house.send("a@hold.example")
    entries = await house.server.spool.entries_of(held)
    assert entries[0].why is Why.HELD
    await house.server.operations.queue_delete(Filter(ids=(held,)), False)
    with pytest.raises(smtplib.SMTPDataError):
        await house.send("a@reject.example")
    assert house.sink.counts.messages == 0
    assert (await house.server.spool.count())["total"] == 0


async def test_a_full_disk_refuses_and_recovers(house: House) -> None:
    """Without free space MAIL is answered 452, and mail flows again once there is room, with no restart."""
    await house.open(submission=msgspec.structs.replace(house.config.submission, min_free_space=1 << 60))
    await house.until(lambda: not house.server.relay.has_space)
    with pytest.raises(smtplib.SMTPDataError):
        await house.send("250@example.net")
    config: Config = msgspec.structs.replace(
        house.config, submission=msgspec.structs.replace(house.config.submission, min_free_space=0)
    )
    house.server.config = config
    await house.until(lambda: house.server.relay.has_space)
    number = await house.send("250@example.net")
    await house.until(lambda: RELAYED in house.kinds(number))
    assert format_id(number)
