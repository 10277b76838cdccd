"""The client and a real relay: everything that the API offers, by both clients."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import msgspec
import pytest
from http_house import HttpHouse
from relay_house import FAST, SLOW

from smarthost.client import (
    Address,
    Attachment,
    Client,
    Conflict,
    DeliveryResult,
    DeliveryStatus,
    Forbidden,
    Invalid,
    NewAccount,
    NewMessage,
    NotFound,
    Unauthorized,
)
from smarthost.mail.key import Scope


async def open_client(house: HttpHouse, hand: Any, *scopes: Scope, **changes: object) -> Any:
    """Start the relay, and give a client with a key of its own."""
    await house.open_http(**changes)
    _, token = await house.make_key("shop", *scopes)
    return hand.client(f"http://{house.http[0]}:{house.http[1]}", token)


def hello(to: str, **more: Any) -> NewMessage:
    """Make a message."""
    return NewMessage(from_="shop@example.org", to=to, subject="Hello", text="Hi", **more)


async def test_a_message_with_everything(house: HttpHouse, hand: Any) -> None:
    """A message is sent with all its fields, relayed, and shown with its story."""
    client = await open_client(house, hand)
    taken = await hand.call(
        client.messages.send,
        NewMessage(
            from_=Address("shop@example.org", "Web Shop"),
            to=["Ada <ada@example.net>", Address("bob@example.net")],
            cc="carol@example.net",
            subject="Hello",
            html="<img src=cid:logo>",
            headers={"X-Order": "4711"},
            attachments=[Attachment(filename="logo.png", content=b"\x89PNG", cid="logo")],
            tag="orders",
            priority="high",
            metadata={"order": 4711},
            id="order-4711",
        ),
    )
    assert (taken.status, taken.client_id, len(taken.recipients)) == ("accepted", "order-4711", 3)
    result = await hand.call(client.wait, taken.id, 15.0)
    assert result.status is DeliveryStatus.SUCCESS, result
    assert (result.message_id, result.smtp_code, result.recipient_failures) == (taken.id, 250, {})
    assert result.sent_at is not None and abs(result.sent_at - datetime.now(UTC)) < timedelta(minutes=5)
    message = await hand.call(client.messages.get, taken.id)
    assert (message.subject, message.tag, message.metadata, message.is_over) == (
        "Hello",
        "orders",
        {"order": 4711},
        True,
    )
    assert next(event.event for event in message.events) == "accepted"
    assert {each.address: each.status for each in message.recipients}["bob@example.net"] == "relayed"
    with pytest.raises(Conflict):
        await hand.call(client.messages.send, hello("ada@example.net", id="order-4711"))


async def test_the_same_key_is_sent_once(house: HttpHouse, hand: Any) -> None:
    """Two calls with one idempotency key are one message; as a mapping it is the same as in fields."""
    client = await open_client(house, hand, retry=SLOW)
    fields = {"from": "shop@example.org", "to": "ada@example.net", "text": "Hi"}
    first = await hand.call(client.messages.send, fields, idempotency_key="k")
    again = await hand.call(client.messages.send, fields, idempotency_key="k")
    assert first == again
    with pytest.raises(Conflict):
        await hand.call(client.messages.send, fields | {"text": "Ho"}, idempotency_key="k")


async def test_raw_messages(house: HttpHouse, hand: Any, tmp_path: Path) -> None:
    """A message goes as it is: octets, the standard library's, a file; its recipients are in it or in the call."""
    client = await open_client(house, hand)
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Bcc"], mail["Subject"] = "shop@example.org", "ada@example.net", "b@example.net", "é"
    mail.set_content("From here on\nand ä further\n")
    taken = await hand.call(client.messages.send_raw, mail)
    assert [each.address for each in taken.recipients] == ["ada@example.net", "b@example.net"]
    (tmp_path / "mail.eml").write_bytes(b"From: shop@example.org\nSubject: file\n\n" + b"x" * 70 * 2000 + b"\n")
    filed = await hand.call(
        client.messages.send_raw, tmp_path / "mail.eml", to=["c@example.net", "d@example.net"], reverse_path=""
    )
    assert [each.address for each in filed.recipients] == ["c@example.net", "d@example.net"]
    message = await hand.call(client.messages.get, filed.id)
    assert (message.from_, message.subject) == ("", "file")
    octets = b"From: shop@example.org\r\nTo: e@example.net\r\n\r\nHi\r\n"
    dry = await hand.call(client.messages.send_raw, octets, dry_run=True, id="x")
    assert (dry.id, dry.dry_run, dry.client_id) == ("", True, "x")
    assert (await hand.call(client.wait, taken.id, 15.0)).status == "SUCCESS"


async def test_results(house: HttpHouse, hand: Any) -> None:
    """What becomes of a message is one word, with the reply that says why."""
    client = await open_client(house, hand, retry=SLOW)
    ids = {}
    for name in ("550.1", "550.5.7.1", "451.1"):
        ids[name] = (await hand.call(client.messages.send, hello(f"{name}@example.net"))).id
    invalid = await hand.call(client.wait, ids["550.1"], 15.0)
    assert (invalid.status, invalid.smtp_code, invalid.is_retryable) == ("INVALID", 550, False)
    failed = await hand.call(client.wait, ids["550.5.7.1"], 15.0)
    assert failed.status is DeliveryStatus.FAILED and failed.recipient_failures["550.5.7.1@example.net"].smtp_error
    async with asyncio.timeout(15):
        while not (waiting := await hand.call(client.wait, ids["451.1"], 0.0)).smtp_code:
            await asyncio.sleep(0.05)
    assert (waiting.status, waiting.is_retryable, waiting.is_final, waiting.smtp_code) == ("RETRY", True, False, 451)
    assert json.loads(json.dumps(waiting.to_dict()))["recipient_failures"]["451.1@example.net"]["smtp_code"] == 451
    mixed = await hand.call(
        client.messages.send, NewMessage(from_="a@example.org", to=["550.5.7.1@example.net", "y@example.net"], text="x")
    )
    result = await hand.call(client.wait, mixed.id, 15.0)
    assert result.status == "FAILED" and list(result.recipient_failures) == ["550.5.7.1@example.net"]
    assert result.sent_at is not None
    with pytest.raises(Invalid) as raised:
        await hand.call(client.messages.send, hello("nobody"))
    assert raised.value.errors[0].field == "to"
    assert DeliveryResult.from_error(raised.value).status == "INVALID"


async def test_a_result_when_time_is_over(house: HttpHouse, hand: Any) -> None:
    """What was put off until the relay gave up has failed for now: it may be sent again."""
    client = await open_client(house, hand, retry=msgspec.structs.replace(FAST, lifetime=0.5))
    taken = await hand.call(client.messages.send, hello("451.1@example.net"))
    result = await hand.call(client.wait, taken.id, 15.0)
    assert (result.status, result.is_retryable, result.is_final) == ("TEMP_FAILED", True, True)
    assert "451" in result.smtp_error and result.retry_count > 0


async def test_lists_and_changes(house: HttpHouse, hand: Any) -> None:
    """Lists go over all pages; what waits is held, released, tried again and cancelled."""
    client = await open_client(house, hand, retry=SLOW)
    later = datetime.now(UTC) + timedelta(days=1)
    sent = [
        (await hand.call(client.messages.send, hello(f"{n}@example.net", send_at=later, tag=f"t{n % 2}"))).id
        for n in range(105)
    ]
    assert [each.id for each in await hand.first(client.messages.list())] == sent[::-1]
    tagged = await hand.first(client.messages.list(tag="t1", since=later - timedelta(days=2), status="scheduled"))
    assert [each.id for each in tagged] == sent[1::2][::-1]
    pages = await hand.first(client.messages.list().pages())
    assert [len(page.items) for page in pages] == [100, 5] and pages[0].cursor and not pages[1].cursor
    rest = await hand.first(client.messages.list(cursor=pages[0].cursor))
    assert [each.id for each in rest] == sent[4::-1]
    assert (await hand.call(client.messages.hold, sent[0])).entries == 1
    assert (await hand.call(client.result, sent[0])).status == "RETRY"
    assert (await hand.call(client.messages.release, sent[0])).entries == 1
    await hand.call(client.messages.cancel, sent[0])
    assert (await hand.call(client.wait, sent[0], 15.0)).status == "FAILED"
    with pytest.raises(Conflict):
        await hand.call(client.messages.cancel, sent[0])
    await hand.call(client.messages.retry, sent[1])
    assert (await hand.call(client.wait, sent[1], 15.0)).status == "SUCCESS"
    with pytest.raises(NotFound):
        await hand.call(client.messages.get, "none")


async def test_dead_letters(house: HttpHouse, hand: Any) -> None:
    """A message that failed is kept, sent again, and cleaned up."""
    client = await open_client(house, hand)
    for _ in range(2):
        taken = await hand.call(client.messages.send, hello("550.once-1@example.net"))
        await hand.call(client.wait, taken.id, 15.0)
    dead = await hand.first(client.dead_letters.list())
    assert dead and dead[0].recipients == ["550.once-1@example.net"] and "550" in dead[0].reason
    assert (await hand.call(client.dead_letters.resend, dead[0].id)).entries == 1
    failed = await hand.call(client.messages.send, hello("550.9@example.net"))
    await hand.call(client.wait, failed.id, 15.0)
    assert (await hand.call(client.dead_letters.remove, failed.id)).entries == 1
    with pytest.raises(NotFound):
        await hand.call(client.dead_letters.remove, failed.id)


async def test_events(house: HttpHouse, hand: Any) -> None:
    """Events are read from a cursor on, over pages, and as a stream."""
    client = await open_client(house, hand)
    taken = await hand.call(client.messages.send, hello("ada@example.net"))
    await hand.call(client.wait, taken.id, 15.0)
    listed = await hand.first(client.events.list())
    assert next(each.event for each in listed) == "accepted" and listed[-1].event == "relayed"
    assert {each.id for each in listed} == {taken.id}
    cursors = [each.cursor for each in listed]
    assert cursors == sorted(cursors) and cursors[0] > 0
    streamed = await hand.first(client.events.stream(after=0), len(listed))
    assert streamed == listed
    assert await hand.first(client.events.list(after=cursors[-1])) == []


async def test_webhooks(house: HttpHouse, hand: Any) -> None:
    """A webhook is made, listed, changed, has its past sent again, and is removed; its secret is never shown again."""
    client = await open_client(house, hand)
    made = await hand.call(client.webhooks.make, "https://example.net/hook", events=["message.relayed"], active=False)
    assert made.secret.startswith("whsec_") and made.secret not in repr(made)
    shown = (await hand.call(client.webhooks.list))[0]
    assert (shown.id, shown.secret, shown.events, shown.active) == (made.id, "", ("message.relayed",), False)
    changed = await hand.call(client.webhooks.change, made.id, description="shop", secret="")
    assert changed.description == "shop" and changed.secret not in ("", made.secret)
    assert (await hand.call(client.webhooks.get, made.id)).url == "https://example.net/hook"
    await hand.call(client.webhooks.replay, made.id, 0)
    assert await hand.call(client.webhooks.replay_dead, made.id) == 0
    assert await hand.first(client.webhooks.dead(made.id)) == []
    await hand.call(client.webhooks.remove, made.id)
    assert await hand.call(client.webhooks.list) == []


async def test_accounts(house: HttpHouse, hand: Any) -> None:
    """An account is made, put in the place of another, used, listed and removed; its password is shown nowhere."""
    client = await open_client(house, hand)
    account = NewAccount(
        id="main", host="127.0.0.1", port=house.sink.address[1], use_tls=False, password="hush", user="x"
    )
    assert "hush" not in repr(account)
    assert (await hand.call(client.accounts.keep, account)).created
    assert not (await hand.call(client.accounts.keep, account)).created
    (listed,) = await hand.call(client.accounts.list)
    assert (listed.id, listed.host, listed.tenant_id) == ("main", "127.0.0.1", "shop")
    await hand.call(client.accounts.remove, "main")
    with pytest.raises(NotFound):
        await hand.call(client.accounts.remove, "main")


async def test_keys(house: HttpHouse, hand: Any) -> None:
    """A key is made, opens the door, may not do more than it may, and opens nothing once it is revoked."""
    client = await open_client(house, hand)
    made = await hand.call(client.keys.make, "reader", scopes=["read"], expires_at=datetime.now() + timedelta(days=1))
    assert made.key.startswith("sh_") and made.key not in repr(made)
    reading = hand.client(f"http://{house.http[0]}:{house.http[1]}", made.key)
    assert await hand.first(reading.messages.list()) == []
    with pytest.raises(Forbidden):
        await hand.call(reading.messages.send, hello("ada@example.net"))
    listed = await hand.call(client.keys.list)
    assert [each.key for each in listed] == ["", ""] and made.id in [each.id for each in listed]
    assert (await hand.call(client.keys.revoke, made.id)).revoked_at is not None
    with pytest.raises(Unauthorized):
        await hand.first(reading.messages.list())


async def test_health(house: HttpHouse, hand: Any) -> None:
    """Whether the relay is well is asked without a key."""
    await house.open_http()
    client = hand.client(f"http://{house.http[0]}:{house.http[1]}", "")
    assert (await hand.call(client.health)).is_ok
    assert (await hand.call(client.ready)).status == "ok"
    with pytest.raises(Unauthorized):
        await hand.first(client.messages.list())


async def test_metrics(house: HttpHouse, hand: Any) -> None:
    """What became of mail is counted, of the tenant and by the hour."""
    client = await open_client(house, hand)
    taken = await hand.call(client.messages.send, hello("ada@example.net"))
    await hand.call(client.wait, taken.id, 15.0)
    counted = await hand.call(client.metrics, 2)
    assert (counted.tenant, counted.hours, counted.totals.accepted, counted.totals.sent) == ("shop", 2, 1, 1)
    told = await hand.call(client.admin_metrics)
    assert told.hours == 24 and told.tenants[0].tenant == "shop" and sum(each.counts.sent for each in told.buckets) == 1


async def test_bounces(house: HttpHouse, hand: Any) -> None:
    """A notification and a mail that reports a failure are handed in; what says nothing is taken for nothing."""
    client = await open_client(house, hand)
    bounce = {"bounceType": "Permanent", "bouncedRecipients": [{"emailAddress": "gone@example.net"}]}
    assert await hand.call(client.bounces.ses, {"bounce": bounce}) == 1
    assert await hand.call(client.bounces.report, b"Subject: I am on holiday\r\n\r\nHi\r\n") == 0


async def test_threads_share_a_client(house: HttpHouse) -> None:
    """Threads send by one client at the same time, each gets the answer to its own, and connections are kept."""
    await house.open_http()
    _, token = await house.make_key("shop")
    with Client(f"http://{house.http[0]}:{house.http[1]}", token) as client:

        def send(number: int) -> list[tuple[str, str]]:
            taken = [client.messages.send(hello(f"{number}.{turn}@example.net")) for turn in range(5)]
            return [(each.id, each.recipients[0].address) for each in taken]

        found = await asyncio.gather(*(asyncio.to_thread(send, number) for number in range(6)))
        assert len({identity for each in found for identity, _ in each}) == 30
        for number, each in enumerate(found):
            assert [address for _, address in each] == [f"{number}.{turn}@example.net" for turn in range(5)]
        assert len(client._connections._idle) <= 6
