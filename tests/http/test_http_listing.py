"""Lists, changes, events and dead letters, over HTTP."""

import asyncio
import socket
import time

from http_house import HttpHouse, Said
from relay_house import SLOW

from smarthost.mail.key import Scope
from smarthost.policy.http_terms import HttpTerms
from smarthost.queue.burial import bury
from smarthost.spool.store import Filter

MESSAGES = "/api/v1/messages"
HELLO = {"from": "shop@example.org", "subject": "Hello", "text": "Hi"}


async def send(house: HttpHouse, token: str, to: str, **more: object) -> str:
    """Hand in a message; gives its id."""
    said = await house.ask("POST", MESSAGES, token, HELLO | {"to": to} | more)
    assert said.status == 202, said.body
    identity: str = said.json["id"]
    return identity


async def until_status(house: HttpHouse, token: str, identity: str, status: str) -> Said:
    """Wait until a message has a status."""
    async with asyncio.timeout(15):
        while True:
            said = await house.ask("GET", f"{MESSAGES}/{identity}", token)
            if said.json["status"] == status:
                return said
            await asyncio.sleep(0.05)


async def test_messages_are_listed(house: HttpHouse) -> None:
    """A tenant's messages are listed newest first, by status, recipient, tag and time, page by page."""
    await house.open_http(retry=SLOW)
    _, token = await house.make_key("shop")
    _, other = await house.make_key("other")
    ids = [await send(house, token, f"{number}@example.net", tag=f"t{number % 2}") for number in range(5)]
    await send(house, other, "x@example.net")
    failed = await send(house, token, "550.9@example.net")
    late = await send(house, token, "451.9@example.net")
    await until_status(house, token, ids[-1], "relayed")
    await until_status(house, token, failed, "failed")
    shown = await until_status(house, token, late, "delayed")
    assert shown.json["recipients"][0]["next_attempt"] > shown.json["created_at"]
    assert [each["event"] for each in shown.json["events"]] == ["accepted", "delayed"]
    every = (await house.ask("GET", MESSAGES, token)).json
    assert [each["id"] for each in every["messages"]] == [late, failed, *reversed(ids)]
    assert every["next_cursor"] is None
    assert [each["id"] for each in (await house.ask("GET", f"{MESSAGES}?status=failed", token)).json["messages"]] == [
        failed
    ]
    tagged = (await house.ask("GET", f"{MESSAGES}?tag=t1&recipient=3@EXAMPLE.net", token)).json["messages"]
    assert [each["id"] for each in tagged] == [ids[3]]
    first = (await house.ask("GET", f"{MESSAGES}?limit=3", token)).json
    second = (await house.ask("GET", f"{MESSAGES}?limit=3&cursor={first['next_cursor']}", token)).json
    assert [each["id"] for each in first["messages"] + second["messages"]] == [late, failed, *reversed(ids[1:])]
    assert (await house.ask("GET", f"{MESSAGES}?since=2099-01-01T00:00:00Z", token)).json["messages"] == []
    assert (await house.ask("GET", f"{MESSAGES}?until=2001-01-01T00:00:00Z", token)).json["messages"] == []
    for wrong in ("status=lost", "limit=0", "cursor=x", "since=yesterday"):
        assert (await house.ask("GET", f"{MESSAGES}?{wrong}", token)).status in (400, 422), wrong
    assert (await house.ask("GET", f"{MESSAGES}/{ids[0]}", other)).status == 404
    assert (await house.ask("GET", f"{MESSAGES}/nothing", token)).status == 404


async def test_messages_are_changed(house: HttpHouse) -> None:
    """What waits can be held, released, tried at once and cancelled, by its tenant only."""
    await house.open_http(retry=SLOW)
    _, token = await house.make_key("shop")
    _, other = await house.make_key("other")
    identity = await send(house, token, "451.9@example.net")
    await until_status(house, token, identity, "delayed")
    for verb, status in (("hold", "held"), ("release", "delayed")):
        assert (await house.ask("POST", f"{MESSAGES}/{identity}/{verb}", other)).status == 404
        assert (await house.ask("POST", f"{MESSAGES}/{identity}/{verb}", token)).json["entries"] == 1
        await until_status(house, token, identity, status)
    assert (await house.ask("POST", f"{MESSAGES}/{identity}/retry", token)).status == 200
    assert (await house.ask("POST", f"{MESSAGES}/{identity}/cancel", other)).status == 404
    assert (await house.ask("POST", f"{MESSAGES}/{identity}/cancel", token)).status == 200
    await until_status(house, token, identity, "cancelled")
    assert (await house.ask("POST", f"{MESSAGES}/{identity}/cancel", token)).status == 409


async def test_events_by_page_and_as_a_stream(house: HttpHouse) -> None:
    """Events come in order behind a cursor, to their tenant only; a stream ends with its key."""
    await house.open_http()
    key, token = await house.make_key("shop")
    _, other = await house.make_key("other")
    with socket.create_connection(house.http, 20) as stream:
        request = "GET /api/v1/events/stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        request += f"Authorization: Bearer {token}\r\n\r\n"
        await asyncio.to_thread(stream.sendall, request.encode())
        head = await asyncio.to_thread(stream.recv, 65536)
        assert b"text/event-stream" in head
        identity = await send(house, token, "a@example.net")
        await send(house, other, "b@example.net")
        seen = b""
        while b"event: relayed" not in seen:
            seen += await asyncio.to_thread(stream.recv, 65536)
        assert b"event: accepted" in seen and identity.encode() in seen and b"b@example.net" not in seen
        await house.server.api.keys.revoke(None, key.id)
        while await asyncio.to_thread(stream.recv, 65536):
            pass
    _, again = await house.make_key("shop", Scope.READ)
    first = (await house.ask("GET", "/api/v1/events?limit=1", again)).json
    rest = (await house.ask("GET", f"/api/v1/events?after={first['next']}", again)).json
    kinds = [each["event"] for each in first["events"] + rest["events"]]
    assert (kinds[0], kinds[-1]) == ("accepted", "relayed")
    assert {each["id"] for each in first["events"] + rest["events"]} == {identity}


async def test_a_failed_message_can_be_sent_again(house: HttpHouse) -> None:
    """A message that failed is kept with its content, sent again on demand, or cleaned up; SMTP mail is not kept."""
    await house.open_http()
    _, token = await house.make_key("shop")
    _, other = await house.make_key("other")
    letters = "/api/v1/dead-letters"
    identity = await send(house, token, "550.once@example.net")
    await until_status(house, token, identity, "failed")
    (letter,) = (await house.ask("GET", letters, token)).json["dead_letters"]
    assert (letter["id"], letter["recipients"]) == (identity, ["550.once@example.net"])
    assert (await house.ask("GET", letters, other)).json["dead_letters"] == []
    assert (await house.ask("POST", f"{letters}/{identity}/resend", other)).status == 404
    assert (await house.ask("POST", f"{letters}/{identity}/resend", token)).json["entries"] == 1
    await until_status(house, token, identity, "relayed")
    assert (await house.ask("GET", letters, token)).json["dead_letters"] == []
    second = await send(house, token, "550.9@example.net")
    await until_status(house, token, second, "failed")
    operator = house.server.relay.operator
    assert (await operator.retry_now(Filter(sender="*"), False))["entries"] == 0
    assert (await operator.release(Filter(sender="*"), True))["entries"] == 0
    assert (await operator.retry_now(Filter(why="dead_letter"), True))["entries"] == 1
    assert (await house.ask("DELETE", f"{letters}/{second}", token)).json["entries"] == 1
    assert (await house.ask("DELETE", f"{letters}/{second}", token)).status == 404
    await house.send("550.9@example.net")
    await house.empty()


async def test_dead_letters_are_forgotten(house: HttpHouse) -> None:
    """After their time dead letters go; with 0 none is kept."""
    await house.open_http(http=HttpTerms(dead_letter_keep=0.0))
    _, token = await house.make_key("shop")
    identity = await send(house, token, "550.9@example.net")
    await until_status(house, token, identity, "failed")
    await house.empty()
    house.server.relay.settler.dead_letters.keep = 0.001
    identity = await send(house, token, "550.9@example.net")
    await until_status(house, token, identity, "failed")
    assert (await house.server.spool.count())["parked"] == 1
    await bury(house.server.spool, time.time() + 1)
    await house.empty()
