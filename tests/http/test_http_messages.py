"""Messages over HTTP: what is accepted, what is refused and how, and that it is delivered as it was said."""

import asyncio
import base64
import json

from http_house import HttpHouse

from smarthost.mail.key import Scope
from smarthost.mail.message import parse_id
from smarthost.policy.admission import Submission, User
from smarthost.policy.http_terms import HttpTerms

MESSAGES = "/api/v1/messages"
HELLO = {"from": "Shop <shop@example.org>", "to": ["a@example.net"], "subject": "Hello", "text": "Hi\n"}
RAW = b"From: shop@example.org\nTo: a@example.net\nBcc: b@example.net\nSubject: raw\n\nHi\n.\nend"
RFC822 = {"Content-Type": "message/rfc822"}


async def test_a_message_in_json_is_delivered(house: HttpHouse) -> None:
    """A composed message is accepted with a result for each recipient and reaches the upstream, without Bcc."""
    await house.open_http()
    _, token = await house.make_key("shop", Scope.SEND)
    said = await house.ask("POST", MESSAGES, token, HELLO | {"bcc": "b@example.net", "tag": "news"})
    assert said.status == 202
    assert {each["address"]: each["result"] for each in said.json["recipients"]} == {
        "a@example.net": "accepted",
        "b@example.net": "accepted",
    }
    await house.empty()
    number = parse_id(said.json["id"])
    assert [event.recipient for event in house.events if event.message == number and event.event == "relayed"] == [
        "a@example.net",
        "b@example.net",
    ]
    accepted = next(event for event in house.events if event.event == "accepted")
    assert (accepted.user, accepted.listener) == ("shop", "http")


async def test_a_raw_message_is_delivered(house: HttpHouse) -> None:
    """A message as it is gets its envelope from its own fields, else from the request."""
    await house.open_http()
    _, token = await house.make_key("shop", Scope.SEND)
    said = await house.ask("POST", MESSAGES, token, RAW, RFC822)
    assert [each["address"] for each in said.json["recipients"]] == ["a@example.net", "b@example.net"]
    other = await house.ask("POST", MESSAGES + "?to=c@example.net&from=bounce@example.org", token, RAW, RFC822)
    assert [each["address"] for each in other.json["recipients"]] == ["c@example.net"]
    await house.empty()
    assert any(event.sender == "bounce@example.org" for event in house.events)


async def test_a_large_raw_message_is_streamed(house: HttpHouse) -> None:
    """A message of some MiB goes to disk block by block, and one over the limit is 413."""
    await house.open_http()
    _, token = await house.make_key("shop", Scope.SEND)
    large = RAW + b"\n" + b"x" * 70 + b"\n" * 2 + (b"y" * 70 + b"\n") * 60_000
    assert (await house.ask("POST", MESSAGES, token, large, RFC822)).status == 202
    await house.empty()
    small = house.server.relay.door.terms.submission.max_message_size
    said = await house.ask("POST", MESSAGES, token, b"x", RFC822 | {"Content-Length": str(small + 1)})
    assert said.status == 413


async def test_what_is_wrong_is_named(house: HttpHouse) -> None:
    """A message that cannot be sent is refused with every field at fault."""
    await house.open_http()
    _, token = await house.make_key("shop", Scope.SEND)
    said = await house.ask("POST", MESSAGES, token, {"from": "x", "to": ["a@example.net", "y"], "subject": "s"})
    assert said.status == 422
    assert {each["field"] for each in said.json["errors"]} == {"from", "to[1]", "text"}
    assert (await house.ask("POST", MESSAGES, token, b"{", {"Content-Type": "application/json"})).status == 400
    assert (await house.ask("POST", MESSAGES, token, b"x", {"Content-Type": "text/plain"})).status == 415
    nobody = await house.ask("POST", MESSAGES, token, b"Subject: x\r\n\r\nx", RFC822)
    assert (nobody.status, nobody.json["errors"][0]["field"]) == (422, "to")
    _, reader = await house.make_key("shop", Scope.READ)
    assert (await house.ask("POST", MESSAGES, reader, HELLO)).status == 403
    assert (await house.ask("POST", MESSAGES, "", HELLO)).status == 401


async def test_a_dry_run_sends_nothing(house: HttpHouse) -> None:
    """With dry_run the answer says what would become of it, and nothing is kept."""
    await house.open_http()
    _, token = await house.make_key("shop", Scope.SEND)
    said = await house.ask("POST", MESSAGES, token, HELLO | {"dry_run": True})
    assert (said.status, said.json["status"]) == (200, "valid")
    assert not house.events
    assert (await house.ask("POST", MESSAGES + "?dry_run=1", token, RAW, RFC822)).status == 200
    assert not house.events


async def test_an_idempotency_key_sends_once(house: HttpHouse) -> None:
    """The same key and content give the same answer, at the same time and after a restart; other content is 409."""
    await house.open_http()
    _, token = await house.make_key("shop", Scope.SEND)
    _, stranger = await house.make_key("other", Scope.SEND)
    key = {"Idempotency-Key": "order-1"}
    said = await asyncio.gather(*(house.ask("POST", MESSAGES, token, HELLO, key) for _ in range(8)))
    assert {each.status for each in said} == {202}
    assert len({each.json["id"] for each in said}) == 1
    assert (await house.ask("POST", MESSAGES, token, HELLO | {"subject": "else"}, key)).status == 409
    assert (await house.ask("POST", MESSAGES, stranger, HELLO, key)).json["id"] != said[0].json["id"]
    raw = [await house.ask("POST", MESSAGES, token, RAW, RFC822 | {"Idempotency-Key": "raw"}) for _ in range(2)]
    assert raw[0].body == raw[1].body
    assert (await house.ask("POST", MESSAGES, token, RAW + b"!", RFC822 | {"Idempotency-Key": "raw"})).status == 409
    await house.server.stop()
    await house.open_http()
    again = await house.ask("POST", MESSAGES, token, HELLO, key)
    assert again.body == said[0].body
    assert again.headers["Idempotent-Replayed"] == "true"
    assert sum(event.event == "accepted" for event in house.events) == 3


async def test_the_clients_own_id_is_unique(house: HttpHouse) -> None:
    """The same id of a tenant twice is sent once; of another tenant it is another message."""
    await house.open_http()
    _, token = await house.make_key("shop", Scope.SEND)
    _, stranger = await house.make_key("other", Scope.SEND)
    first = await house.ask("POST", MESSAGES, token, HELLO | {"id": "m-1"})
    assert first.json["client_id"] == "m-1"
    second = await house.ask("POST", MESSAGES, token, HELLO | {"id": "m-1"})
    assert second.status == 409
    assert first.json["id"] in second.json["detail"]
    assert (await house.ask("POST", MESSAGES, stranger, HELLO | {"id": "m-1"})).status == 202


async def test_rates_of_key_and_tenant(house: HttpHouse) -> None:
    """A key's own rate, and that of its tenant's user, are 429 with the time to wait."""
    await house.open_http(users=(User("shop", "$argon2id$", message_rate=("2/h",)),))
    _, token = await house.make_key("other", Scope.SEND, rate=("1/h",))
    assert (await house.ask("POST", MESSAGES, token, HELLO)).status == 202
    said = await house.ask("POST", MESSAGES, token, HELLO)
    assert said.status == 429
    assert int(said.headers["Retry-After"]) > 1000
    statuses = []
    for _ in range(3):
        _, each = await house.make_key("shop", Scope.SEND)
        statuses.append((await house.ask("POST", MESSAGES, each, HELLO)).status)
    assert statuses == [202, 202, 429]


async def test_a_tenant_sends_as_its_user_may(house: HttpHouse) -> None:
    """allowed_senders of the user of the tenant's name hold for the reverse-path and for From."""
    await house.open_http(users=(User("shop", "$argon2id$", allowed_senders=("*@example.org",)),))
    _, token = await house.make_key("shop", Scope.SEND)
    assert (await house.ask("POST", MESSAGES, token, HELLO)).status == 202
    assert (await house.ask("POST", MESSAGES, token, HELLO | {"from": "x@example.com"})).status == 403
    forged = HELLO | {"from": "x@example.com", "return_path": "shop@example.org"}
    assert (await house.ask("POST", MESSAGES, token, forged)).status == 403
    assert [event.code for event in house.events if event.event == "rejected"] == [553, 553]


async def test_a_full_disk_is_503(house: HttpHouse) -> None:
    """Where there is no space, the client is told to come again."""
    await house.open_http(http=HttpTerms(max_request_size=1000), submission=Submission(min_free_space=2**60))
    _, token = await house.make_key("shop", Scope.SEND)
    await house.until(lambda: not house.server.relay.has_space)
    said = await house.ask("POST", MESSAGES, token, HELLO)
    assert said.status == 503
    assert said.headers["Retry-After"]
    assert (await house.ask("POST", MESSAGES, token, HELLO | {"text": "x" * 2000})).status == 413


async def test_a_message_for_later(house: HttpHouse) -> None:
    """send_at holds a message, and priority and metadata are kept."""
    await house.open_http()
    _, token = await house.make_key("shop", Scope.SEND)
    later = HELLO | {"send_at": "2099-01-01T00:00:00Z", "priority": 1, "metadata": {"order": 7}}
    assert (await house.ask("POST", MESSAGES, token, later)).status == 422
    soon = HELLO | {"send_at": "2000-01-01T00:00:00Z", "priority": "high", "metadata": {"order": 7}}
    said = await house.ask("POST", MESSAGES, token, soon)
    assert said.json["status"] == "accepted"
    records = await house.server.spool.records.page("message", "shop")
    assert json.loads(records[0].data)["metadata"] == {"order": 7}


async def test_attachments(house: HttpHouse) -> None:
    """A large attachment in the request goes to disk; one that cannot be had is named, and nothing is sent."""
    await house.open_http()
    _, token = await house.make_key("shop", Scope.SEND)
    large = {"filename": "a.bin", "content": base64.b64encode(b"0123456789abcdef" * 131072).decode()}
    said = await house.ask("POST", MESSAGES, token, HELLO | {"attachments": [large]})
    assert said.status == 202, said.body
    await house.empty()
    accepted = next(event for event in house.events if event.event == "accepted")
    assert accepted.size > 2_700_000
    private = {"filename": "b.bin", "url": "http://127.0.0.1:1/b.bin"}
    said = await house.ask("POST", MESSAGES, token, HELLO | {"attachments": [private]})
    assert said.status in (422, 503)
    assert said.json["errors"][0]["field"] == "attachments[0].url"
    assert sum(event.event == "accepted" for event in house.events) == 1
