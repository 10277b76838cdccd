"""CHUNKING through a whole relay: much mail over one connection, beside recipients that misbehave."""

from collections import Counter

import pytest
from relay_house import House

from smarthost.mail.event import Kind
from smarthost.policy.limits import Limit
from smarthost.sink.desk import EVERYTHING


@pytest.mark.parametrize("limit", [1, 3])
async def test_each_message_arrives_once(house: House, limit: int) -> None:
    """Refusals at each stage and lost connections among them: what is relayed arrived once, or is told as ambiguous."""
    assert EVERYTHING.chunking
    await house.open(limits=(Limit(max_connections=limit),))
    kinds = ["250", "550", "451.once", "data-554", "drop-dot.once", "data-451.once", "250", "drop-mail.once"]
    sent = [await house.send(f"{kinds[n % 8]}-{n}@example.net", sender="") for n in range(80)]
    await house.until(
        lambda: all({Kind.RELAYED, Kind.FAILED} & set(house.kinds(number)) for number in sent), seconds=60
    )
    await house.empty()
    failed = {n for n, number in enumerate(sent) if Kind.FAILED in house.kinds(number)}
    assert failed == {n for n in range(80) if n % 8 in (1, 3)}
    ambiguous = {
        event.recipient
        for event in house.events
        if event.event is Kind.DELAYED and event.stage == "content" and not event.code
    }
    arrived = Counter(recipient for mail in house.sink.messages for recipient in mail.recipients)
    for n in range(80):
        recipient = f"{kinds[n % 8]}-{n}@example.net"
        if n not in failed:
            assert 1 <= arrived[recipient] <= 1 + (recipient in ambiguous), recipient
        else:
            assert not arrived[recipient]
    assert house.server.relay.dispatchers
