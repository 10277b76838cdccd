"""The client and a relay that misbehaves: what is asked again, under which key, and what is raised."""

import asyncio
import logging
import pickle
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from odd_server import OddServer, breaks_off, hangs_up, is_silent, resets, says, sent, streams

from smarthost.client import (
    ApiError,
    Client,
    Conflict,
    Forbidden,
    Invalid,
    NewMessage,
    Retries,
    ServerError,
    TimedOut,
    TooMany,
    Unavailable,
    Unreachable,
    Unreadable,
    Untrusted,
)

QUICK = Retries(attempts=4, first_wait=0.01, longest_wait=2.0)
HELLO = NewMessage(from_="shop@example.org", to="ada@example.net", text="Hi")
EVENT = b'id: %d\nevent: relayed\ndata: {"cursor":%d,"event":"relayed","time":"2026-01-01T00:00:00Z","id":"A"}\n\n'


@pytest.mark.parametrize("trouble", [resets, hangs_up, breaks_off, says(503), says(429), says(502), says(504)])
async def test_a_message_is_sent_again_under_one_key(hand: Any, odd: OddServer, trouble: Any) -> None:
    """A lost answer, and one that says to come again, lead to the same request with the same Idempotency-Key."""
    odd.plan = [trouble, trouble, sent()]
    client = hand.client(odd.url, retries=QUICK)
    message = await hand.call(client.messages.send, HELLO)
    assert message.id == "0EH9T6WF1P8G"
    assert len(odd.seen) == 3
    assert len({each.headers["idempotency-key"] for each in odd.seen}) == 1
    assert len({each.body for each in odd.seen}) == 1
    await hand.call(client.messages.send, HELLO)
    assert odd.seen[3].headers["idempotency-key"] != odd.seen[0].headers["idempotency-key"]


async def test_a_key_of_the_application_is_used(hand: Any, odd: OddServer) -> None:
    """The key that is given goes with every attempt."""
    odd.plan = [hangs_up, sent()]
    client = hand.client(odd.url, retries=QUICK)
    await hand.call(client.messages.send, HELLO, idempotency_key="order-4711")
    assert [each.headers["idempotency-key"] for each in odd.seen] == ["order-4711"] * 2


@pytest.mark.parametrize("trouble", [resets, hangs_up, breaks_off, says(502), says(500)])
async def test_what_has_no_key_is_not_done_twice(hand: Any, odd: OddServer, trouble: Any) -> None:
    """A change whose answer was lost is asked for once only, and the error says that it may have been done."""
    odd.plan = [trouble]
    client = hand.client(odd.url, retries=QUICK)
    for change in (client.messages.cancel, client.webhooks.remove):
        odd.seen.clear()
        with pytest.raises((Unreachable, ServerError)) as raised:
            await hand.call(change, "0EH9T6WF1P8G")
        assert len(odd.seen) == 1
    if isinstance(raised.value, Unreachable):
        assert raised.value.may_be_done and "may have been done" in str(raised.value)


async def test_what_was_not_done_is_asked_again(hand: Any, odd: OddServer) -> None:
    """A change is asked for again where the relay itself says that it has not done it."""
    odd.plan = [says(503), says(429), says(200, {"id": "A", "entries": 1})]
    client = hand.client(odd.url, retries=QUICK)
    assert (await hand.call(client.messages.hold, "A")).entries == 1


async def test_retry_after_is_honoured(hand: Any, odd: OddServer, caplog: pytest.LogCaptureFixture) -> None:
    """The wait is what Retry-After says, and not the client's own, which is shorter."""
    caplog.set_level(logging.INFO, "smarthost.client")
    odd.plan = [says(503, Retry_After="1"), sent()]
    client = hand.client(odd.url, "sh_a_secret", retries=QUICK)
    await hand.call(client.messages.send, HELLO)
    assert "POST /messages is asked again in 1." in caplog.text
    assert "secret" not in caplog.text + repr(client)


async def test_a_long_retry_after_ends_the_call(hand: Any, odd: OddServer) -> None:
    """A relay that wants to be left alone for longer than a caller waits is, and the error says for how long."""
    odd.plan = [says(503, {"title": "Full", "detail": "no space", "status": 503}, Retry_After="60")]
    client = hand.client(odd.url, retries=QUICK)
    with pytest.raises(Unavailable) as raised:
        await hand.call(client.messages.send, HELLO)
    assert (raised.value.retry_after, raised.value.detail, len(odd.seen)) == (60.0, "no space", 1)


async def test_attempts_end(hand: Any, odd: OddServer) -> None:
    """After as many attempts as were wanted the last error is raised."""
    odd.plan = [says(429)]
    client = hand.client(odd.url, retries=QUICK)
    with pytest.raises(TooMany):
        await hand.call(client.messages.send, HELLO)
    assert len(odd.seen) == 4


async def test_nobody_there(hand: Any) -> None:
    """A port on which nobody listens is tried again, and the error says that nothing was done."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        client = hand.client(f"http://127.0.0.1:{taken.getsockname()[1]}", retries=QUICK)
        with pytest.raises(Unreachable) as raised:
            await hand.call(client.messages.cancel, "A")
    assert not raised.value.may_be_done and "127.0.0.1" in str(raised.value)


async def test_silence_ends(hand: Any, odd: OddServer) -> None:
    """A relay that says nothing is not waited for longer than the timeout."""
    odd.plan = [is_silent]
    client = hand.client(odd.url, timeout=0.2, retries=Retries(attempts=2, first_wait=0.01))
    with pytest.raises(TimedOut):
        await hand.call(client.messages.send, HELLO)
    assert len(odd.seen) == 2


@pytest.mark.parametrize("content", [b"<html>hello</html>", b"[]", b'{"id": 7}', b"\xff"])
async def test_what_is_no_answer(hand: Any, odd: OddServer, content: bytes) -> None:
    """An answer that is not the API's is told as such."""
    odd.plan = [says(202, content)]
    with pytest.raises(Unreadable):
        await hand.call(hand.client(odd.url).messages.send, HELLO)


async def test_problems_are_exceptions(hand: Any, odd: OddServer) -> None:
    """A problem document is an exception of its kind, with status, title, detail and the fields at fault."""
    problem = {"type": "about:blank", "title": "No", "status": 422, "detail": "to: is none", "errors": []}
    problem["errors"] = [{"field": "to", "message": "is none", "extra": 1}]
    odd.plan = [says(422, problem), says(403, b"<html>"), says(409, {}), says(418, {}), says(500, b"")]
    client = hand.client(odd.url)
    with pytest.raises(Invalid) as raised:
        await hand.call(client.messages.send, HELLO)
    error = raised.value
    assert (error.status, error.title, error.detail) == (422, "No", "to: is none")
    assert (error.errors[0].field, error.errors[0].message) == ("to", "is none")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (Invalid, str(error))
    for kind, words in ((Forbidden, "403 Forbidden"), (Conflict, "409"), (ApiError, "418"), (ServerError, "500")):
        with pytest.raises(kind, match=words) as raised_next:
            await hand.call(client.messages.send, HELLO)
        assert type(raised_next.value) is kind


async def test_an_early_refusal_is_heard(hand: Any, odd: OddServer, tmp_path: Path) -> None:
    """A relay that refuses a long content before it has read it is heard, and the connection is not used again."""
    (tmp_path / "mail").write_bytes(b"Subject: x\r\n\r\n" + b"x" * 20_000_000)
    odd.reads_content = False
    odd.plan = [says(413, {"detail": "too long"}, Connection="close")]
    client = hand.client(odd.url, retries=Retries(attempts=1))
    with pytest.raises((ApiError, Unreachable)) as raised:
        await hand.call(client.messages.send_raw, tmp_path / "mail")
    # The answer may be lost in the reset that follows it; it is never taken for anything else.
    assert isinstance(raised.value, Unreachable) or raised.value.status == 413


async def test_connections_are_kept(hand: Any, odd: OddServer) -> None:
    """Calls go on one connection, and on a new one when the relay has closed it meanwhile."""
    odd.plan = [
        sent(),
        sent(),
        says(200, {"id": "A", "entries": 1}, Connection="close"),
        says(200, {"id": "A", "entries": 1}),
    ]
    client = hand.client(odd.url)
    await hand.call(client.messages.send, HELLO)
    await hand.call(client.messages.send, HELLO)
    await hand.call(client.messages.hold, "A")
    await hand.call(client.messages.hold, "A")
    assert [each.connection for each in odd.seen] == [1, 1, 1, 2]


async def test_a_connection_that_was_closed_is_not_used(odd: OddServer) -> None:
    """An idle connection that the relay has closed is seen before a request is lost on it."""
    odd.plan = [says(200, {"id": "A", "entries": 1}), says(200, {"id": "A", "entries": 1})]
    with Client(odd.url, "sh_key") as client:
        await asyncio.to_thread(client.messages.hold, "A")
        for each in list(odd._writers):
            each.close()
            await each.wait_closed()
        await asyncio.to_thread(client.messages.hold, "A")
    assert [each.connection for each in odd.seen] == [1, 2]


async def test_a_relay_with_a_certificate(hand: Any, odd: OddServer, tmp_path: Path) -> None:
    """With the authority's file the relay is trusted, without it nothing is said to it, and once."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    secure = OddServer()
    await secure.open(context)
    try:
        secure.plan = [sent()]
        trusting = hand.client(secure.url, ca=tmp_path / "ca.pem")
        assert (await hand.call(trusting.messages.send, HELLO)).id
        with pytest.raises(Untrusted):
            await hand.call(hand.client(secure.url).messages.send, HELLO)
        assert len(secure.seen) == 1
    finally:
        await hand.close()
        await secure.close()


async def test_a_stream_goes_on_where_it_broke(hand: Any, odd: OddServer) -> None:
    """Events come in pieces of any size; a stream that breaks is opened again behind the last event."""
    octets = b": events\n\n" + EVENT % (7, 7) + EVENT % (9, 9)
    odd.plan = [streams(*(octets[at : at + 11] for at in range(0, len(octets), 11))), resets, streams(EVENT % (12, 12))]
    client = hand.client(odd.url, retries=QUICK)
    seen = await hand.first(client.events.stream(after=5), 3)
    assert [each.cursor for each in seen] == [7, 9, 12]
    assert [each.target.partition("?")[2] for each in odd.seen] == ["after=5", "after=9", "after=9"]


async def test_a_stream_that_stays_away_ends(hand: Any, odd: OddServer) -> None:
    """A stream that breaks again and again without a word, or is refused, ends with the error."""
    odd.plan = [hangs_up]
    client = hand.client(odd.url, retries=QUICK)
    with pytest.raises(Unreachable):
        await hand.first(client.events.stream(after=5))
    assert len(odd.seen) == 4
    odd.plan = [says(401, {})]
    with pytest.raises(ApiError, match="401"):
        await hand.first(client.events.stream(after=5))


async def test_a_content_that_cannot_be_read(hand: Any, odd: OddServer, tmp_path: Path) -> None:
    """A file that is not there is the caller's error, and not the relay's."""
    odd.plan = [sent()]
    with pytest.raises(FileNotFoundError):
        await hand.call(hand.client(odd.url).messages.send_raw, tmp_path / "none")
    assert not odd.seen


@pytest.mark.parametrize("url", ["127.0.0.1:9587", "ftp://x", "http://", "http://me:hush@x", "http://x?y=1"])
def test_addresses_that_are_none(url: str) -> None:
    """What is no address, and one with a password in it, is said at once, without the password."""
    with pytest.raises(ValueError, match="url") as raised:
        Client(url)
    assert "hush" not in str(raised.value)


def test_keys_that_are_none() -> None:
    """A key that would break a header is refused, and not quoted."""
    with pytest.raises(ValueError) as raised:
        Client(key="sh_secret\r\nX: y")
    assert "secret" not in str(raised.value)


async def test_key_and_address_of_the_environment(hand: Any, odd: OddServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Address and key may come from the environment; an operator's token names the tenant."""
    monkeypatch.setenv("SMARTHOST_URL", f"{odd.url}/mail/api/v1/")
    monkeypatch.setenv("SMARTHOST_API_KEY", "sh_key")
    odd.plan = [sent()]
    await hand.call(hand.client("", "", tenant="shop").messages.send, HELLO)
    seen = odd.seen[0]
    assert seen.target == "/mail/api/v1/messages"
    assert (seen.headers["authorization"], seen.headers["x-smarthost-tenant"]) == ("Bearer sh_key", "shop")
