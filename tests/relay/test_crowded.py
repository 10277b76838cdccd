"""An upstream that takes fewer connections than we would like."""

from relay_house import House

from smarthost.mail.event import Kind
from smarthost.sink.desk import SinkSettings
from smarthost.sink.server import Sink


async def test_a_session_too_many_is_told_and_costs_no_attempt(house: House) -> None:
    """421 for the second connection: an event `attempted` says so, and all mail leaves by the first, at once."""
    house.sink = Sink(SinkSettings(max_connections=1))
    await house.open()
    numbers = [await house.send(f"slow-30-{n}@example.net") for n in range(6)]
    await house.until(lambda: all(Kind.RELAYED in house.kinds(number) for number in numbers))
    told = [event for event in house.events if event.event is Kind.ATTEMPTED]
    assert told and {event.code for event in told} == {421} and told[0].site and told[0].stage == "greeting"
    assert all(Kind.DELAYED not in house.kinds(number) for number in numbers)
