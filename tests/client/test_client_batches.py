"""Templates, batches and suppressions by both clients, and batches from the command line, against a real relay."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from http_house import HttpHouse
from odd_server import OddServer, hangs_up, says

from smarthost.client import (
    BatchRecipient,
    Conflict,
    Invalid,
    NewBatch,
    NewMessage,
    NewSuppression,
    NewTemplate,
    NotFound,
    Retries,
    Variable,
)
from smarthost.policy.suppression import SuppressionRules

HELLO = NewTemplate(
    name="hello",
    subject="Hello {{name}}",
    text="You are {{age}}.",
    variables={"name": Variable(required=True), "age": Variable("integer")},
)
MADE = {"id": "A", "status": "SENDING", "createdAt": "2026-01-01T00:00:00Z", "recipients": 2}


async def open_client(house: HttpHouse, hand: Any, **changes: object) -> Any:
    """Start the relay, and give a client with a key of its own."""
    await house.open_http(**changes)
    _, house.token = await house.make_key("shop")  # type: ignore[attr-defined]
    return hand.client(f"http://{house.http[0]}:{house.http[1]}", house.token)  # type: ignore[attr-defined]


async def test_templates(house: HttpHouse, hand: Any) -> None:
    """A template is kept, found by its name, filled in, changed, used by a message, and removed."""
    client = await open_client(house, hand)
    made = await hand.call(client.templates.make, HELLO)
    assert (made.revision, made.variables["age"].type, made.text) == (1, "integer", HELLO.text)
    with pytest.raises(Conflict):
        await hand.call(client.templates.make, HELLO)
    assert [each.id for each in await hand.first(client.templates.list(name="hello"))] == [made.id]
    rendered = await hand.call(client.templates.preview, made.id, {"name": "Ada", "age": 36})
    assert (rendered.subject, rendered.text) == ("Hello Ada", "You are 36.")
    with pytest.raises(Invalid, match="name"):
        await hand.call(client.templates.preview, made.id)
    changed = await hand.call(client.templates.change, made.id, NewTemplate(name="hello", subject="Hi", html="<p>Hi"))
    assert (changed.revision, changed.text, changed.html) == (2, "", "<p>Hi")
    assert (await hand.call(client.templates.get, made.id)).subject == "Hi"
    taken = await hand.call(
        client.messages.send, NewMessage(from_="a@example.org", to="ada@example.net", template_id=made.id)
    )
    assert (await hand.call(client.wait, taken.id, 15.0)).status == "SUCCESS"
    await hand.call(client.templates.remove, made.id)
    with pytest.raises(NotFound):
        await hand.call(client.templates.get, made.id)


async def test_a_batch(house: HttpHouse, hand: Any) -> None:
    """A batch is sent to each with variables of its own, waited for, and told of; the same key is one batch."""
    client = await open_client(house, hand)
    template = await hand.call(client.templates.make, HELLO)
    batch = NewBatch(template_id=template.id, from_="shop@example.org", tag="news", metadata={"issue": 7})
    recipients = [
        BatchRecipient("ada@example.net", {"name": "Ada", "age": 36}),
        {"email": "550.5.7.1@example.net", "variables": {"name": "Bob"}},
    ]
    sent = await hand.call(client.batches.send, batch, recipients, idempotency_key="k")
    again = await hand.call(client.batches.send, batch, iter(recipients), idempotency_key="k")
    assert sent.id == again.id and sent.recipients == 2
    summary = await hand.call(client.batches.wait, sent.id, 20.0)
    assert (summary.status, summary.total, summary.pending, summary.is_over) == ("COMPLETED", 2, 0, True)
    assert (summary.events["SENT"], summary.events["FAILED"]) == (1, 1)
    events = await hand.first(client.batches.events(sent.id))
    assert {(each.type, each.recipient, each.index) for each in events} == {
        ("SENT", "ada@example.net", 0),
        ("FAILED", "550.5.7.1@example.net", 1),
    }
    shown = await hand.call(client.batches.get, sent.id)
    assert (shown.tag, shown.metadata, shown.counts.sent, shown.template) == ("news", {"issue": 7}, 1, "hello")
    assert [each.id for each in await hand.first(client.batches.list())] == [sent.id]
    with pytest.raises(Invalid) as raised:
        await hand.call(client.batches.send, batch, ["ada@example.net"])
    assert "name" in str(raised.value)


async def test_a_batch_is_changed(house: HttpHouse, hand: Any) -> None:
    """A batch that is for later is suspended, resumed and cancelled, and cannot be changed any more then."""
    client = await open_client(house, hand)
    template = await hand.call(client.templates.make, HELLO)
    later = NewBatch(template_id=template.id, from_="shop@example.org", send_at=datetime.now(UTC) + timedelta(hours=1))
    count = 2500

    def give() -> Iterator[BatchRecipient]:
        return (BatchRecipient(f"{number}@example.net", {"name": "Ada"}) for number in range(count))

    sent = await hand.call(client.batches.send, later, give)
    assert (sent.status, sent.recipients) == ("SCHEDULED", count)
    assert (await hand.call(client.batches.suspend, sent.id)).status == "SUSPENDED"
    assert (await hand.call(client.batches.resume, sent.id)).status == "SCHEDULED"
    assert (await hand.call(client.batches.cancel, sent.id)).status == "CANCELLED"
    with pytest.raises(Conflict):
        await hand.call(client.batches.resume, sent.id)
    with pytest.raises(NotFound):
        await hand.call(client.batches.get, "none")


async def test_suppressions(house: HttpHouse, hand: Any) -> None:
    """Addresses are put on the list, found there, sent nothing, and taken off it."""
    client = await open_client(house, hand, suppression=SuppressionRules(enabled=True))
    until = datetime.now(UTC) + timedelta(days=1)
    kept = await hand.call(client.suppressions.add, "Ada@example.net", NewSuppression("b@example.net", "asked", until))
    assert (kept.added, kept.known) == (2, 0)
    assert (await hand.call(client.suppressions.add, "ada@example.net")).known == 1
    listed = await hand.first(client.suppressions.list())
    assert [each.email for each in listed] == ["ada@example.net", "b@example.net"]
    assert listed[1].reason == "asked" and listed[1].expires_at is not None
    assert [each.email for each in await hand.first(client.suppressions.list(email="b@*"))] == ["b@example.net"]
    with pytest.raises(Invalid):
        await hand.call(client.messages.send, {"from": "a@example.org", "to": "b@example.net", "text": "x"})
    await hand.call(client.suppressions.remove, "b@example.net")
    with pytest.raises(NotFound):
        await hand.call(client.suppressions.remove, "b@example.net")


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_a_batch_is_sent_again_as_it_was(hand: Any, odd: OddServer, is_streamed: bool) -> None:
    """A batch whose answer was lost is sent again whole, under the same key: what is given once, or again each time."""
    odd.plan = [hangs_up, hangs_up, says(201, MADE)]
    client = hand.client(odd.url, retries=Retries(first_wait=0.01))
    asked = []

    def give() -> Iterator[str]:
        asked.append(1)
        return (f"{number}@example.net" for number in range(10_000))

    await hand.call(client.batches.send, NewBatch(template_id="t"), give if is_streamed else give())
    assert len(asked) == (3 if is_streamed else 1)
    assert len({(each.body, each.headers["idempotency-key"]) for each in odd.seen}) == 1
    written = json.loads(odd.seen[0].body)
    assert written["template_id"] == "t" and len(written["recipients"]) == 10_000
    assert written["recipients"][7] == {"email": "7@example.net"}
    assert ("transfer-encoding" in odd.seen[0].headers) is is_streamed


async def test_recipients_that_cannot_be_given(hand: Any, odd: OddServer) -> None:
    """What goes wrong in the caller's own function is the caller's error."""
    odd.plan = [says(201, MADE)]

    def give() -> Iterator[str]:
        yield "ada@example.net"
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await hand.call(hand.client(odd.url).batches.send, NewBatch(template_id="t"), give)
