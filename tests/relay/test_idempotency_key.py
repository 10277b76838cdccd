"""X-Smarthost-Idempotency-Key through a whole relay: what is handed in again under one key is sent once."""

import asyncio
import smtplib

import msgspec
import pytest
from relay_house import SLOW, House

from smarthost.mail.message import format_id
from smarthost.policy.http_terms import HttpTerms

pytestmark = pytest.mark.asyncio

BODY = "hello\r\n"


def mail(key: str, body: str = BODY, lot: str = "1") -> str:
    """Write a message as a program does that makes it anew each time: some of it is drawn by lot."""
    return (
        f"From: app@example.org\r\nDate: Mon, 23 Nov 2026 10:00:0{lot} +0000\r\nMessage-ID: <{lot}@example.org>\r\n"
        f"X-Smarthost-Idempotency-Key: {key}\r\nMIME-Version: 1.0\r\n"
        f'Content-Type: multipart/mixed; boundary="=={lot}=="\r\n\r\n--=={lot}==\r\n\r\n{body}--=={lot}==--\r\n'
    )


async def hand_in(house: House, content: str, recipient: str = "250@example.net", sender: str = "a@example.org") -> str:
    """Send a message by smtplib; gives the whole reply."""

    def talk() -> str:
        with smtplib.SMTP(*house.address, timeout=20) as client:
            client.ehlo()
            client.mail(sender)
            client.rcpt(recipient)
            code, text = client.data(content.encode())
            return f"{code} {text.decode()}"

    return await asyncio.to_thread(talk)


async def test_the_same_key_is_sent_once(house: House) -> None:
    """The second time 250 names the first message, before and after a restart, and nothing more is sent."""
    await house.open()
    first = await hand_in(house, mail("order-7"))
    assert first.startswith("250 2.0.0 queued as ")
    name = first.split()[4]
    again = await hand_in(house, mail("order-7", lot="2"))
    assert again == f"250 2.0.0 queued as {name} (before, by the same idempotency key)"
    await house.empty()
    await house.server.stop()
    await house.open()
    assert (await hand_in(house, mail("order-7", lot="3"))).split()[:5] == again.split()[:5]
    await hand_in(house, mail("order-8"))
    await house.until(lambda: len(house.sink.messages) == 2)
    assert not any(b"X-Smarthost" in each.content for each in house.sink.messages)


async def test_another_message_under_the_same_key_is_refused(house: House) -> None:
    """Other content, another recipient or sender is 554, and says that the first message was taken."""
    await house.open(retry=SLOW)
    assert (await hand_in(house, mail("order-7"))).startswith("250 ")
    for reply in (
        await hand_in(house, mail("order-7", "something else\r\n")),
        await hand_in(house, mail("order-7"), "251@example.net"),
        await hand_in(house, mail("order-7"), sender="b@example.org"),
        await hand_in(house, mail("order-7").replace("From:", "Subject: x\r\nFrom:")),
    ):
        assert reply.startswith("554 5.6.0 X-Smarthost-Idempotency-Key: the key came with another message"), reply
    for wrong in ("", "x" * 256, "a\x01b"):
        assert "1 to 255 printable characters" in await hand_in(house, mail(wrong))


@pytest.mark.parametrize("size", [100, 400_000])
async def test_those_of_one_moment_are_sent_once(house: House, size: int) -> None:
    """Of sessions that hand in at once under one key, with content in the row or in a file, one brings the message."""
    await house.open()
    body = "x" * 70 + "\r\n"
    replies = await asyncio.gather(*(hand_in(house, mail("order-7", body * (size // 72), "1")) for _ in range(8)))
    assert len({reply.split()[4] for reply in replies}) == 1, replies
    assert sum("before" in reply for reply in replies) == 7
    await house.empty()
    assert len(house.sink.messages) == 1
    files = house.folder / "spool" / "content"
    assert not files.exists() or not list(files.iterdir())


async def test_a_key_that_brought_nothing_is_free(house: House) -> None:
    """A message that was refused leaves its key to the next one; so does one whose time has passed."""
    await house.open(
        submission=msgspec.structs.replace(house.config.submission, max_hops=1), http=HttpTerms(idempotency_keep=0.001)
    )
    hops = "Received: from a by b; Mon, 23 Nov 2026 10:00:00 +0000\r\n" * 2
    assert (await hand_in(house, hops + mail("order-7"))).startswith("554 5.4.6")
    first = await hand_in(house, mail("order-7"))
    assert first.startswith("250 ")
    await asyncio.sleep(0.01)  # lets the key's time pass
    assert "before" not in await hand_in(house, mail("order-7", "something else\r\n"))


async def test_a_repeated_message_is_no_event(house: House) -> None:
    """What is answered again is neither accepted nor refused: the story of the message has one beginning."""
    await house.open(retry=SLOW)
    name = (await hand_in(house, mail("order-7"))).split()[4]
    await hand_in(house, mail("order-7"))
    assert [format_id(event.message) for event in house.events if event.event == "accepted"] == [name]
