"""Upstream pools through a whole relay: shares, quotas, fail-over, logins, and where mail goes that cannot go on."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec
import pytest
from relay_house import FAST, SLOW, House

from smarthost.config_types import Login
from smarthost.control_verbs import Resume, Suspend
from smarthost.crypto.dkim_keys import Keyring
from smarthost.delivery.pool import Pool
from smarthost.mail.event import Kind
from smarthost.mail.route import Deliver, NextHop, Route, TlsLevel, Upstream
from smarthost.report.timestamp import parse_time
from smarthost.sink.desk import SinkSettings
from smarthost.sink.server import Sink
from smarthost.spool.store import Filter, Pulled

PLAIN = Route("relayhost", Deliver.RELAYHOST, (), TlsLevel.NONE, allow_plaintext_auth=True)


def upstream(hop: NextHop, order: int = 0, weight: int = 1, quota: tuple[str, ...] = (), login: str = "") -> Upstream:
    """Describe one member of a pool as the configuration would."""
    name = f"{login}@{hop}" if login else str(hop)
    route = msgspec.structs.replace(PLAIN, next_hops=(hop,), upstream=name, login=login)
    return Upstream(route, order, weight, quota)


def pool_of(*upstreams: Upstream) -> Route:
    """Give the route of all mail, with its upstreams."""
    return msgspec.structs.replace(
        PLAIN, next_hops=tuple(each.route.next_hops[0] for each in upstreams), pool=upstreams
    )


@asynccontextmanager
async def sinks(number: int, **settings: object) -> AsyncIterator[list[Sink]]:
    """Give several sinks, each on an address of its own: 127.0.0.2, 127.0.0.3 ..."""
    made = [Sink(SinkSettings(listen=f"127.0.0.{place + 2}:0", **settings)) for place in range(number)]  # type: ignore[arg-type]
    for sink in made:
        await sink.start()
    yield made
    for sink in made:
        await sink.stop()


def hop_of(sink: Sink) -> NextHop:
    """Name a sink."""
    return NextHop(*sink.address)


def dead_hop() -> NextHop:
    """Name a port of 127.0.0.9 that nobody listens to."""
    return NextHop("127.0.0.9", 1)


@asynccontextmanager
async def crooked(*replies: bytes) -> AsyncIterator[NextHop]:
    """Listen on 127.0.0.1: send a reply to what is read, and then nothing; without any, close at once."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            for reply in replies:
                writer.write(reply)
                await reader.readline()
            if replies:
                await reader.read()
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield NextHop("127.0.0.1", server.sockets[0].getsockname()[1])
    server.close()


@asynccontextmanager
async def silent() -> AsyncIterator[NextHop]:
    """Listen on 127.0.0.1, and never say a word."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield NextHop("127.0.0.1", server.sockets[0].getsockname()[1])
    server.close()


async def send(house: House, number: int) -> list[int]:
    """Send some messages, one after the other."""
    return [await house.send(f"250-{at}@example.net") for at in range(number)]


def relayed(house: House, numbers: list[int]) -> bool:
    """Whether each has been relayed."""
    done = {event.message for event in house.events if event.event is Kind.RELAYED}
    return done.issuperset(numbers)


async def reason_of(house: House, number: int) -> dict[str, object]:
    """Give what `why` says of a message."""
    return [row async for row in house.server.operations.why(number)].pop()


async def test_weights_share_the_mail(house: House) -> None:
    """Of upstreams with the weights 3 and 1 the first gets about three quarters, the fallback nothing."""
    async with sinks(3) as (a, b, c):
        pool = pool_of(upstream(hop_of(a), 0, 3), upstream(hop_of(b), 0, 1), upstream(hop_of(c), 1))
        await house.open(fallback=pool)
        numbers = await send(house, 160)
        await house.until(lambda: relayed(house, numbers))
        assert a.counts.messages + b.counts.messages == 160 and c.counts.messages == 0
        assert 95 <= a.counts.messages <= 145  # 4.5 standard deviations about 120
        sites = set(house.server.relay.dispatchers)
        assert sites == {f"relayhost/[127.0.0.2]:{a.address[1]}", f"relayhost/[127.0.0.3]:{b.address[1]}"} | {
            f"relayhost/[127.0.0.4]:{c.address[1]}"
        }


async def test_a_quota_leads_the_rest_to_the_next_upstream(house: House) -> None:
    """Ten an hour through the first, the rest through the second at once; a reload forgets nothing of it."""
    async with sinks(2) as (a, b):
        pool = pool_of(upstream(hop_of(a), 0, quota=("10/h",)), upstream(hop_of(b), 1))
        await house.open(fallback=pool, retry=SLOW)
        numbers = await send(house, 25)
        await house.until(lambda: relayed(house, numbers))
        assert (a.counts.messages, b.counts.messages) == (10, 15)
        house.server.relay.apply(house.config, Keyring())
        more = await send(house, 5)
        await house.until(lambda: relayed(house, more))
        assert (a.counts.messages, b.counts.messages) == (10, 20)
        assert all(event.attempt == 1 for event in house.events if event.event is Kind.RELAYED)


async def test_what_waits_for_quotas_says_so(house: House) -> None:
    """Where every upstream has used up its quota mail waits with no attempt spent, and each quota is named."""
    async with sinks(2) as (a, b):
        pool = pool_of(upstream(hop_of(a), quota=("2/h",)), upstream(hop_of(b), quota=("3/h", "100/d")))
        await house.open(fallback=pool, retry=SLOW)
        numbers = await send(house, 9)
        await house.until(lambda: a.counts.messages + b.counts.messages == 5)
        await house.until(lambda: not house.server.relay.settler.pending and not house.server.relay.scheduler.total)
        waiting = [number for number in numbers if not relayed(house, [number])]
        row = await reason_of(house, waiting[0])
        assert row["why"] == "quota_used"
        assert f"[127.0.0.2]:{a.address[1]}: its quota of 2/h is used up" in str(row["text"])
        assert "its quota of 3/h, 100/d is used up" in str(row["text"])
        assert 3000 < parse_time(str(row["until"])) - time.time() < 3700
        shown = [row["why"] async for row in house.server.operations.queue_list(Filter(why="quota_used"), 0)]
        assert shown == ["quota_used"] * 4
        assert not any(event.event is Kind.DELAYED for event in house.events)


async def test_a_paced_quota_holds_mail_in_memory(house: House) -> None:
    """A quota of many a second that has no alternative spaces mail, and loses none."""
    async with sinks(1) as (a,):
        await house.open(fallback=pool_of(upstream(hop_of(a), quota=("15/s",))), retry=SLOW)
        began = time.monotonic()
        numbers = await send(house, 15)
        await house.until(lambda: relayed(house, numbers))
        assert time.monotonic() - began > 14 / 15 - 0.1


async def test_a_dead_upstream_costs_nothing_while_another_has_room_in_a_moment(house: House) -> None:
    """Mail that a paced quota holds for less than a second is not spent on an upstream that cannot be reached."""
    async with sinks(1) as (a,):
        await house.open(fallback=pool_of(upstream(hop_of(a), 0, quota=("15/s",)), upstream(dead_hop(), 1)), retry=SLOW)
        numbers = await send(house, 15)
        await house.until(lambda: relayed(house, numbers))
        assert a.counts.messages == 15
        assert not any(event.event is Kind.DELAYED for event in house.events)


async def test_a_dead_upstream_is_passed_over(house: House) -> None:
    """Nobody's attempt is spent on a dead upstream while another one takes the mail."""
    async with sinks(1) as (b,):
        await house.open(fallback=pool_of(upstream(dead_hop(), 0), upstream(hop_of(b), 1)), retry=SLOW)
        numbers = await send(house, 12)
        await house.until(lambda: relayed(house, numbers))
        assert b.counts.messages == 12
        assert not any(event.event is Kind.DELAYED for event in house.events)
        tried = [event for event in house.events if event.event is Kind.ATTEMPTED]
        assert tried and all(event.address == "127.0.0.9" and not event.message for event in tried)


async def test_what_waits_at_an_upstream_that_dies_goes_to_the_others(house: House) -> None:
    """An upstream that hangs up on every session does not keep mail that waits for it."""
    async with sinks(1) as (b,), crooked() as ill:
        pool = pool_of(upstream(ill, 0, 9), upstream(hop_of(b), 0, 1))
        await house.open(fallback=pool, retry=SLOW)
        numbers = await send(house, 30)
        await house.until(lambda: relayed(house, numbers))
        assert b.counts.messages == 30


async def test_an_upstream_that_is_well_again_gets_mail_again(house: House) -> None:
    """When the pause of a dead upstream is over one session without mail tries it, and then it has its share."""
    async with sinks(1) as (b,):
        late = Sink(SinkSettings(listen="127.0.0.8:0"))
        await late.start()
        hop = hop_of(late)
        await late.stop()
        await house.open(fallback=pool_of(upstream(hop, 0), upstream(hop_of(b), 1)), retry=SLOW)
        first = await send(house, 3)
        await house.until(lambda: relayed(house, first))
        again = Sink(SinkSettings(listen=f"{hop.host}:{hop.port}"))
        await again.start()
        site = house.server.relay.dispatchers[f"relayhost/{hop}"]
        assert site.ready.window.until > time.time() + 30
        site.ready.window.until = time.time() - 1
        probing = await send(house, 1)
        await house.until(lambda: relayed(house, probing))
        assert b.counts.messages == 4
        await house.until(lambda: again.counts.connections == 1 and site.ready.window.state == "ready")
        after = await send(house, 4)
        await house.until(lambda: relayed(house, after))
        assert (again.counts.messages, b.counts.messages) == (4, 4)
        await again.stop()


async def test_where_no_upstream_can_be_used_mail_waits(house: House) -> None:
    """One attempt is spent on each probe; the others wait on disk, with all upstreams named, until one is well."""
    late = Sink(SinkSettings(listen="127.0.0.8:0"))
    await late.start()
    hop = hop_of(late)
    await late.stop()
    await house.open(fallback=pool_of(upstream(hop, 0), upstream(dead_hop(), 1)), retry=FAST)
    numbers = await send(house, 6)
    await house.until(lambda: house.server.relay.scheduler.total == 0 and not house.server.relay.settler.pending)
    row = await reason_of(house, numbers[-1])
    assert row["why"] == "no_upstream"
    assert f"{hop}: connection refused" in str(row["text"]) and "[127.0.0.9]:1: connection" in str(row["text"])
    assert 30 < parse_time(str(row["until"])) - time.time() <= 61
    attempts = [(await house.server.spool.entries_of(number))[0].attempts for number in numbers]
    assert sum(attempts) <= 2
    again = Sink(SinkSettings(listen=f"{hop.host}:{hop.port}"))
    await again.start()
    await house.server.operations.queue_flush(Filter())
    await house.until(lambda: relayed(house, numbers))
    assert again.counts.messages == 6
    await again.stop()


async def test_all_upstreams_are_tried_again_side_by_side(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the pauses of all are over, one that never greets does not keep mail from one that is well again."""
    monkeypatch.setattr("smarthost.delivery.pool.PATIENCE", 1e9)
    async with sinks(1) as (b,), silent() as mute:
        await house.open(fallback=pool_of(upstream(mute, 0), upstream(hop_of(b), 1)), retry=SLOW, shutdown_timeout=0.2)
        relay = house.server.relay
        pool = await first_pool(house)
        for dispatcher in pool.dispatchers:
            dispatcher.ready.window.pause(time.time() - 1)
        assert len(relay.dispatchers) == 2
        numbers = await send(house, 3)
        await house.until(lambda: relayed(house, numbers))


async def first_pool(house: House) -> Pool:
    """Have the pool made before there is any mail."""
    relay = house.server.relay
    waiting = relay.promoter._waiting["relayhost"] = []
    relay.promoter._keep(relay.promoter._find_pool("relayhost", house.config.fallback, waiting))
    await house.until(lambda: relay.promoter.pool_of("relayhost") is not None)
    pool = relay.promoter.pool_of("relayhost")
    assert pool is not None
    return pool


async def test_a_refused_login_pauses_that_upstream_only(house: House) -> None:
    """535 for one account: its mail goes by the other account of the same host, and one alert is logged."""
    async with sinks(1, username="good", password="right") as (a,):
        pool = pool_of(upstream(hop_of(a), 0, login="bad"), upstream(hop_of(a), 0, login="good"))
        logins = {"bad": Login("bad", "wrong"), "good": Login("good", "right")}
        await house.open(fallback=pool, retry=SLOW, credentials=logins)
        numbers = await send(house, 10)
        await house.until(lambda: relayed(house, numbers))
        assert a.counts.messages == 10
        assert not any(event.event is Kind.DELAYED for event in house.events)
        bad, good = (house.server.relay.dispatchers[f"relayhost/{name}@{hop_of(a)}"] for name in ("bad", "good"))
        assert bad.ready.window.until > time.time() + 250 and good.ready.window.until == 0.0


async def test_an_ambiguous_end_sticks_to_its_upstream(house: House) -> None:
    """What may have been taken goes to the same upstream again, though another has all the weight now."""
    async with sinks(2) as (a, b):
        await house.open(fallback=pool_of(upstream(hop_of(a)), upstream(hop_of(b), 0, 1)), retry=FAST)
        numbers = [await house.send(f"drop-dot.once-{at}@example.net") for at in range(8)]
        await house.until(lambda: relayed(house, numbers), 30)
        for number in numbers:
            story = [event for event in house.events if event.message == number and event.host]
            assert [event.event for event in story][-1] is Kind.RELAYED
            assert len({event.address for event in story}) == 1, story


async def test_a_message_that_one_upstream_refuses_is_tried_at_another(house: House) -> None:
    """After 451 the next attempt goes to an upstream that has not refused the message yet."""
    async with sinks(2) as (a, b):
        await house.open(fallback=pool_of(upstream(hop_of(a)), upstream(hop_of(b), 1)), retry=FAST)
        number = await house.send("data-451@example.net")
        await house.until(lambda: len({event.address for event in house.events if event.message == number}) == 3)
        story = [event.address for event in house.events if event.message == number and event.address]
        assert story[:2] == ["127.0.0.2", "127.0.0.3"]


async def test_an_upstream_that_does_not_keep_up_gives_mail_away(house: House) -> None:
    """What has waited too long at an upstream that answers nothing goes to its equals."""
    async with sinks(1) as (b,), crooked(b"220 peer\r\n", b"250 peer\r\n") as slow:
        pool = pool_of(upstream(slow, 0, 9), upstream(hop_of(b), 0, 1))
        await house.open(fallback=pool, retry=SLOW, shutdown_timeout=0.2)
        numbers = await send(house, 40)
        stuck = house.server.relay.dispatchers[f"relayhost/{slow}"]
        await house.until(lambda: bool(stuck.ready.todo))
        member = stuck.pool._member_of(stuck)  # type: ignore[union-attr]
        await house.until(lambda: member._marked_at < time.time())
        member._marked_at -= 60.0
        await house.until(lambda: not stuck.ready.todo)
        await house.until(lambda: len([n for n in numbers if relayed(house, [n])]) == 40 - stuck.ready.busy)
        await asyncio.sleep(0)
        assert b.counts.messages >= 20


async def test_a_shutdown_does_not_spin(house: House) -> None:
    """While a transaction is waited for at the end, what its pool cannot carry any more is not read again and again."""
    async with crooked(b"220 peer\r\n", b"250 peer\r\n") as slow:
        await house.open(fallback=pool_of(upstream(slow)), retry=SLOW, shutdown_timeout=2.0)
        await send(house, 3)
        await house.until(lambda: house.server.relay.dispatchers[f"relayhost/{slow}"].ready.busy > 0)
        spool, reads = house.server.spool, 0
        read = spool.pull

        async def counted(queue: str, lanes: Sequence[tuple[str, int]], before: float) -> list[Pulled]:
            nonlocal reads
            reads += 1
            return await read(queue, lanes, before)

        house.server.relay.scheduler._spool.pull = counted  # type: ignore[method-assign]
        await house.server.stop()
        assert reads < 20


async def test_a_suspended_upstream_is_passed_over(house: House) -> None:
    """What a person suspends gets nothing; with the whole route suspended mail waits as suspended, until it goes on."""
    async with sinks(2) as (a, b):
        await house.open(fallback=pool_of(upstream(hop_of(a)), upstream(hop_of(b), 1)), retry=SLOW)
        first = await send(house, 1)
        await house.until(lambda: relayed(house, first))
        suspension = house.server.operations.suspension
        await suspension.suspend(Suspend("site", "127.0.0.2", 0.0, "maintenance"))
        numbers = await send(house, 3)
        await house.until(lambda: relayed(house, numbers))
        assert (a.counts.messages, b.counts.messages) == (1, 3)
        await suspension.suspend(Suspend("route", "relayhost", 0.0, "maintenance"))
        waiting = await send(house, 2)
        await house.until(lambda: house.server.relay.scheduler.total == 0)
        row = await reason_of(house, waiting[0])
        assert row["why"] == "suspended" and row["until"] is None and "maintenance" in str(row["text"])
        await suspension.resume(Resume("site", "127.0.0.2"))
        await suspension.resume(Resume("route", "relayhost"))
        await house.until(lambda: relayed(house, waiting))
        assert a.counts.messages == 3


async def test_a_quota_survives_a_restart(house: House) -> None:
    """What an upstream has taken counts after a restart, so that nobody gets a fresh quota by it."""
    async with sinks(2) as (a, b):
        pool = pool_of(upstream(hop_of(a), quota=("6/h",)), upstream(hop_of(b), 1))
        await house.open(fallback=pool, retry=SLOW)
        numbers = await send(house, 4)
        await house.until(lambda: relayed(house, numbers))
        await house.server.stop()
        await house.open(fallback=pool, retry=SLOW)
        more = await send(house, 5)
        await house.until(lambda: relayed(house, more))
        assert (a.counts.messages, b.counts.messages) == (6, 3)


async def test_what_an_upstream_puts_off_goes_to_the_next_at_once(house: House) -> None:
    """4yz to a recipient, or at the end of data: the next upstream has it in the same attempt, and no third one."""
    async with sinks(3) as (a, b, c):
        await house.open(
            fallback=pool_of(*(upstream(hop_of(each), at) for at, each in enumerate((a, b, c)))), retry=SLOW
        )
        for recipient in ("451@example.net", "data-451@example.net"):
            number = await house.send(recipient)
            await house.until(lambda number=number: house.kinds(number).count(Kind.DELAYED) == 2)  # type: ignore[misc]
            await house.until(lambda: not house.server.relay.settler.pending)
            story = [event.address for event in house.events if event.message == number and event.address]
            assert story == [a.address[0], b.address[0]]
            [entry] = await house.server.spool.entries_of(number)
            assert (entry.why, entry.attempts) == ("retry", 1)
        assert c.counts.messages == 0


async def test_no_attempt_is_spent_on_a_dead_upstream_while_another_is_being_tried(house: House) -> None:
    """Both were dead, one is well again: `queue retry` tries both, and mail waits for the answer that takes longer."""
    late = Sink(SinkSettings(listen="127.0.0.8:0"))
    await late.start()
    hop = hop_of(late)
    await late.stop()
    await house.open(fallback=pool_of(upstream(dead_hop(), 0), upstream(hop, 1)), retry=SLOW)
    number = await house.send("250@example.net")
    await house.until(lambda: Kind.DELAYED in house.kinds(number))
    await house.until(lambda: not house.server.relay.settler.pending)
    again = Sink(SinkSettings(listen=f"127.0.0.8:{hop.port}"))
    await again.start()
    await house.server.operations.queue_retry(Filter(ids=(number,)), False)
    await house.until(lambda: Kind.RELAYED in house.kinds(number))
    assert house.kinds(number).count(Kind.DELAYED) == 1
    await again.stop()
