"""Why mail waits: what is shown can be asked for and acted on, with since when and until when."""

import time

from relay_house import SLOW, House

from smarthost.config_types import Login
from smarthost.mail.entry import Why
from smarthost.mail.event import Kind
from smarthost.mail.route import Deliver, NextHop, Route, TlsLevel
from smarthost.policy.limits import Limit, LimitMatch
from smarthost.report.timestamp import parse_time
from smarthost.sink.desk import SinkSettings
from smarthost.sink.server import Sink
from smarthost.spool.store import Filter

DEAD = Route("relayhost", Deliver.RELAYHOST, (NextHop("127.0.0.1", 1),), TlsLevel.NONE)


async def shown(house: House, wanted: Filter) -> list[str]:
    """Give the reasons that `queue list` shows."""
    return [row["why"] async for row in house.server.operations.queue_list(wanted, 0)]


async def test_a_throttled_site_can_be_asked_for_and_acted_on(house: House) -> None:
    """All of a dead site's mail is found by site_throttled, nothing of it by new, and bulk verbs see the same."""
    await house.open(fallback=DEAD, retry=SLOW)
    sent_at = time.time()
    numbers = [await house.send(f"250-{n}@example.net") for n in range(3)]
    await house.until(lambda: any(Kind.DELAYED in house.kinds(number) for number in numbers))
    await house.until(lambda: house.server.relay.scheduler.total == 0)
    operations = house.server.operations
    throttled = Filter(why="site_throttled")
    assert await shown(house, throttled) == ["site_throttled"] * 3
    assert await shown(house, Filter(why="new")) == []
    row = [row async for row in operations.why(numbers[-1])].pop()
    assert sent_at - 1 <= parse_time(row["since"]) <= time.time() < parse_time(row["until"])
    assert (await operations.queue_hold(Filter(why="new"), False))["entries"] == 0
    assert (await operations.queue_hold(throttled, True))["entries"] == 3
    assert (await operations.queue_hold(throttled, False))["entries"] == 3
    assert await shown(house, throttled) == []
    assert await shown(house, Filter(why="held")) == ["held"] * 3


async def test_a_refused_login_is_named(house: House) -> None:
    """535 at AUTH: the mail waits for the login's pause, five minutes, and one entry alone has spent an attempt."""
    guarded = Sink(SinkSettings(username="relay", password="right"))
    await guarded.start()
    route = Route(
        "relayhost",
        Deliver.RELAYHOST,
        (NextHop("127.0.0.1", guarded.address[1]),),
        TlsLevel.NONE,
        login="relayhost",
        allow_plaintext_auth=True,
    )
    await house.open(fallback=route, retry=SLOW, credentials={"relayhost": Login("relay", "wrong")})
    numbers = [await house.send(f"250-{n}@example.net") for n in range(3)]
    await house.until(lambda: any(Kind.DELAYED in house.kinds(number) for number in numbers))
    await house.until(lambda: house.server.relay.scheduler.total == 0)
    assert await shown(house, Filter(why="login_paused")) == ["login_paused"] * 3
    attempts = [(await house.server.spool.entries_of(number))[0].attempts for number in numbers]
    assert sorted(attempts) == [0, 0, 1]
    row = [row async for row in house.server.operations.why(numbers[attempts.index(0)])].pop()
    assert "535" in row["text"] and "wrong" not in row["text"]
    assert 250 < parse_time(row["until"]) - time.time() <= 300
    await guarded.stop()


async def test_a_rate_limit_is_named(house: House) -> None:
    """What waits for a rate says so, until when, and leaves when it may."""
    limit = Limit(match=LimitMatch(), message_rate=("1/h",))
    await house.open(retry=SLOW, limits=(limit,))
    numbers = [await house.send(f"250-{n}@example.net") for n in range(2)]
    await house.until(lambda: Kind.RELAYED in house.kinds(numbers[0]))
    await house.until(lambda: not house.server.relay.settler.pending)
    assert await shown(house, Filter(why=Why.RATE_LIMITED)) == ["rate_limited"]
    row = [row async for row in house.server.operations.why(numbers[1])].pop()
    assert row["until"] is not None


async def test_since_is_the_last_that_happened(house: House) -> None:
    """A delayed message waits since its attempt, a held one since it was held; one in delivery says so."""
    await house.open(retry=SLOW)
    number = await house.send("451@example.net")
    await house.until(lambda: Kind.DELAYED in house.kinds(number))
    await house.until(lambda: house.server.relay.scheduler.total == 0)
    operations = house.server.operations
    for kind, act in ((Kind.DELAYED, None), (Kind.HELD, operations.queue_hold)):
        if act is not None:
            await act(Filter(ids=(number,)), False)
        row = [row async for row in operations.why(number)].pop()
        told = next(event.time for event in reversed(house.events) if event.event is kind)
        assert abs(parse_time(row["since"]) - told) < 0.01
    hanging = await house.send("hang@example.net")
    await house.until(lambda: house.server.relay.dispatcher_of("relayhost") is not None)
    row = [row async for row in operations.why(hanging)].pop()
    assert "in delivery" in row["text"]
