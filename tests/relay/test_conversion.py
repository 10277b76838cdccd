"""Conversion in a whole relay: upstreams that lack 8BITMIME or SMTPUTF8 get what they can take, signed, or nothing."""

import asyncio
import email
import email.policy
import smtplib
import threading
from pathlib import Path

import msgspec
import pytest
from relay_house import House

from smarthost.config_types import DkimKey
from smarthost.crypto.dkim_keys import generate_key, load_key, public_record
from smarthost.crypto.dkim_verify import verify
from smarthost.delivery import adapt
from smarthost.mail.event import Event, Kind
from smarthost.mail.message import parse_id
from smarthost.mail.route import Deliver, NextHop, Route, TlsLevel
from smarthost.policy.conversion import Conversion, Conversions, Form
from smarthost.queue.converting import Converted, Original, convert
from smarthost.sink.desk import EVERYTHING, SinkSettings
from smarthost.sink.server import Sink
from smarthost.spool.store import Spool
from smarthost.wire.downgrade import Obstacle

pytestmark = pytest.mark.asyncio

PLAIN = msgspec.structs.replace(EVERYTHING, eight_bit_mime=False, smtputf8=False, chunking=False)
ASCII_HEADERS = msgspec.structs.replace(EVERYTHING, smtputf8=False)
TEXT = "Grüße aus Köln\r\n.punkt\r\n"
EIGHT_BIT = (
    "From: App <app@example.org>\r\nTo: you@example.net\r\nSubject: plain\r\nMIME-Version: 1.0\r\n"
    "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + TEXT
)
UTF8_HEADER = EIGHT_BIT.replace("App <", "Jörg Müller <").replace("plain\r\n", "Grüße\r\n", 1)


@pytest.fixture
def keys(tmp_path: Path) -> tuple[DkimKey, ...]:
    """Make an RSA and an Ed25519 key for example.org."""
    made = []
    for algorithm, selector in (("rsa-sha256", "r"), ("ed25519-sha256", "e")):
        path = tmp_path / f"{selector}.pem"
        generate_key(algorithm, path)
        made.append(DkimKey("example.org", selector, path))
    return tuple(made)


def assert_signed(content: bytes, keys: tuple[DkimKey, ...]) -> None:
    """Have dkimpy verify that both signatures of a content hold, and that there is no other."""
    loaded = [load_key(key.domain, key.selector, key.key) for key in keys]
    records = {f"{key.selector}._domainkey.{key.domain}": public_record(key).encode() for key in loaded}
    found = verify(content, records.get)
    assert [each.ok for each in found] == [True, True], found
    assert content.lower().count(b"dkim-signature:") == 2


async def opened(house: House, offers: object, keys: tuple[DkimKey, ...] = (), **changes: object) -> None:
    """Open a relay whose upstream offers some extensions only."""
    house.sink = Sink(SinkSettings(offers=offers))  # type: ignore[arg-type]
    await house.open(dkim=keys, **changes)


async def send(house: House, *recipients: str, content: str, sender: str = "app@example.org") -> int:
    """Send a message as a client that speaks SMTPUTF8; gives its id."""

    def talk() -> int:
        with smtplib.SMTP(*house.address, timeout=20) as client:
            client.ehlo()
            client.command_encoding = "utf-8"
            client.mail(sender, ["SMTPUTF8", "BODY=8BITMIME"])
            for recipient in recipients:
                assert client.rcpt(recipient)[0] == 250
            code, text = client.data(content.encode())
            assert code == 250, (code, text)
            return parse_id(text.decode().rsplit(" ", 1)[1]) or 0

    return await asyncio.to_thread(talk)


async def ended(house: House, message: int, recipients: int = 1) -> list[Event]:
    """Wait until every recipient has ended; gives the events that say how."""
    ends = (Kind.RELAYED, Kind.FAILED)
    await house.until(lambda: sum(kind in ends for kind in house.kinds(message)) == recipients)
    return [event for event in house.events if event.message == message and event.event in ends]


async def test_a_body_is_converted_and_signed_anew(house: House, keys: tuple[DkimKey, ...]) -> None:
    """Without 8BITMIME the upstream gets quoted-printable with signatures that hold; with it, what was handed in."""
    await opened(house, PLAIN, keys)
    message = await send(house, "you@example.net", content=EIGHT_BIT)
    (end,) = await ended(house, message)
    assert end.event is Kind.RELAYED, end
    (mail,) = house.sink.messages
    assert mail.content.isascii()
    assert "BODY" not in mail.mail
    assert f"SIZE={len(mail.content)}" in mail.mail
    read = email.message_from_bytes(mail.content, policy=email.policy.default)
    assert read.get_content() == TEXT
    assert_signed(mail.content, keys)
    assert house.server.counters.conversions == {"seven_bit": 1}


async def test_nothing_is_converted_for_who_takes_it(house: House, keys: tuple[DkimKey, ...]) -> None:
    """An upstream that offers both extensions gets the octets that were handed in."""
    await opened(house, EVERYTHING, keys)
    await ended(house, await send(house, "you@example.net", content=UTF8_HEADER))
    (mail,) = house.sink.messages
    assert mail.content.endswith(TEXT.encode())
    assert not house.server.counters.conversions


async def test_a_header_is_converted_and_the_body_stays(house: House, keys: tuple[DkimKey, ...]) -> None:
    """Without SMTPUTF8 names and subject become encoded words, an IDN its A-label; the body is sent as 8BITMIME."""
    await opened(house, ASCII_HEADERS, keys)
    content = UTF8_HEADER.replace("you@example.net", "you@bücher.example")
    message = await send(house, "you@bücher.example", content=content, sender="app@bücher.example")
    (end,) = await ended(house, message)
    assert end.event is Kind.RELAYED, end
    (mail,) = house.sink.messages
    header, _, body = mail.content.partition(b"\r\n\r\n")
    assert header.isascii()
    assert body == TEXT.encode()
    assert "<app@xn--bcher-kva.example>" in mail.mail and "BODY=8BITMIME" in mail.mail
    assert "SMTPUTF8" not in mail.mail
    assert "<you@xn--bcher-kva.example>" in mail.rcpts[0]
    read = email.message_from_bytes(mail.content, policy=email.policy.default)
    assert read["Subject"] == "Grüße"
    assert str(read["From"].addresses[0].display_name) == "Jörg Müller"
    assert read["To"] == "you@xn--bcher-kva.example"
    assert_signed(mail.content, keys)
    assert end.recipient == "you@bücher.example"


async def test_an_idn_alone_needs_no_conversion(house: House, keys: tuple[DkimKey, ...]) -> None:
    """Where only the envelope has an IDN, which trace names for a single recipient alone, the content stays."""
    await opened(house, PLAIN, keys)
    content = EIGHT_BIT.replace(TEXT, "hello\r\n")
    ends = await ended(house, await send(house, "you@bücher.example", "me@example.net", content=content), 2)
    assert {end.event for end in ends} == {Kind.RELAYED}
    (mail,) = house.sink.messages
    assert "<you@xn--bcher-kva.example>" in mail.rcpts[0]
    assert not house.server.counters.conversions
    assert_signed(mail.content, keys)


async def test_a_local_part_cannot_be_written(house: House) -> None:
    """A recipient with a UTF-8 local-part fails 5.6.7 with a report, the others get the message; a sender fails all."""
    await opened(house, ASCII_HEADERS)
    message = await send(house, "jörg@example.net", "you@example.net", content=UTF8_HEADER)
    ends = {event.recipient: (event.event, event.status) for event in await ended(house, message, 2)}
    assert ends == {"jörg@example.net": (Kind.FAILED, "5.6.7"), "you@example.net": (Kind.RELAYED, "2.0.0")}
    await house.until(lambda: any(event.event is Kind.REPORTED for event in house.events))
    message = await send(house, "you@example.net", content=EIGHT_BIT, sender="jörg@example.org")
    (end,) = await ended(house, message)
    assert (end.event, end.status) == (Kind.FAILED, "5.6.7")


async def test_a_signed_part_is_never_converted(house: House) -> None:
    """multipart/signed with 8-bit text fails 5.6.3, and so does a header address that ASCII cannot write, 5.6.7."""
    await opened(house, PLAIN)
    part = "--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nGrüße\r\n--b\r\n\r\nsignature\r\n--b--\r\n"
    signed = f"From: app@example.org\r\nContent-Type: multipart/signed; boundary=b\r\n\r\n{part}"
    (end,) = await ended(house, await send(house, "you@example.net", content=signed, sender=""))
    assert (end.event, end.status) == (Kind.FAILED, "5.6.3")
    assert "signed" in end.reply
    address = EIGHT_BIT.replace("To: you", "To: jörg")
    (end,) = await ended(house, await send(house, "you@example.net", content=address, sender=""))
    assert (end.event, end.status) == (Kind.FAILED, "5.6.7")
    assert not house.sink.messages


@pytest.mark.parametrize(
    ("conversions", "content", "status"),
    [
        (Conversions(eight_bit=Conversion.FAIL), EIGHT_BIT, "5.6.3"),
        (Conversions(smtputf8=Conversion.FAIL), UTF8_HEADER.replace(TEXT, "x\r\n"), "5.6.7"),
    ],
)
async def test_conversion_can_be_forbidden(house: House, conversions: Conversions, content: str, status: str) -> None:
    """By configuration, such mail fails with the status of the extension that is missing."""
    await opened(house, PLAIN, conversion=conversions)
    (end,) = await ended(house, await send(house, "you@example.net", content=content, sender=""))
    assert (end.event, end.status) == (Kind.FAILED, status)


async def test_a_large_content_is_converted_in_a_file(house: House, keys: tuple[DkimKey, ...]) -> None:
    """Beyond 256 KiB the other form is in a file of the spool, which is gone when the message and the relay are."""
    await opened(house, PLAIN, keys)
    text = "".join(f"Zeile {n}: Grüße\r\n" for n in range(30_000))
    message = await send(house, "you@example.net", "451.once@example.net", content=EIGHT_BIT.replace(TEXT, text))
    ends = await ended(house, message, 2)
    assert {event.event for event in ends} == {Kind.RELAYED}
    for mail in house.sink.messages:
        read = email.message_from_bytes(mail.content, policy=email.policy.default)
        assert read.get_content() == text
        assert_signed(mail.content, keys)
    assert len(house.sink.messages) == 2
    assert house.server.counters.conversions == {"seven_bit": 1}
    await house.empty()
    await house.server.stop()
    assert not list((house.folder / "spool" / "content").iterdir())
    await house.open()


async def test_much_mail_is_converted(house: House) -> None:
    """More messages at once than may be converted at once all arrive, once."""
    await opened(house, PLAIN)
    sent = [await send(house, f"r{n}@example.net", content=EIGHT_BIT) for n in range(60)]
    await house.until(lambda: all(Kind.RELAYED in house.kinds(message) for message in sent))
    recipients = sorted(recipient for mail in house.sink.messages for recipient in mail.recipients)
    assert recipients == sorted(f"r{n}@example.net" for n in range(60))
    assert house.server.counters.conversions == {"seven_bit": 60}


async def test_another_host_is_tried_first(house: House) -> None:
    """Where the second host of a site offers 8BITMIME and the first does not, the second gets the octets unchanged."""
    other = Sink(SinkSettings())
    await other.start()
    house.sink = Sink(SinkSettings(offers=PLAIN))
    await house.sink.start()
    hops = (NextHop("127.0.0.1", house.sink.address[1]), NextHop("localhost", other.address[1]))
    route = Route("relayhost", Deliver.RELAYHOST, hops, TlsLevel.NONE)
    await house.open(fallback=route)
    (end,) = await ended(house, await send(house, "first@example.net", content=EIGHT_BIT))
    assert end.event is Kind.RELAYED, end
    await ended(house, await send(house, "second@example.net", content=EIGHT_BIT))
    assert [mail.content.endswith(TEXT.encode()) for mail in other.messages] == [True, True]
    assert not house.sink.messages
    assert not house.server.counters.conversions
    await other.stop()
    message = await send(house, "third@example.net", content=EIGHT_BIT)
    await house.until(lambda: Kind.RELAYED in house.kinds(message))
    assert [mail.content.isascii() for mail in house.sink.messages] == [True]


async def test_a_conversion_does_not_delay_commits(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a content is being converted, for as long as it takes, another large one is accepted and committed."""
    goes_on = threading.Event()

    def convert_slowly(original: Original, form: Form, spool: Spool) -> Converted | Obstacle:
        assert goes_on.wait(30)
        return convert(original, form, spool)

    monkeypatch.setattr(adapt, "convert", convert_slowly)
    await opened(house, PLAIN)
    try:
        slow = await send(house, "you@example.net", content=EIGHT_BIT)
        await house.until(lambda: bool(house.server.relay.adapter._waiting))
        # Above the size up to which contents are kept in memory, so that it takes the thread of contents.
        large = EIGHT_BIT.replace("8bit", "7bit").replace(TEXT, "x" * 70 + "\r\n") + ("y" * 70 + "\r\n") * 20_000
        other = await asyncio.wait_for(send(house, "me@example.net", content=large), 15)
        await house.until(lambda: Kind.RELAYED in house.kinds(other))
        assert Kind.RELAYED not in house.kinds(slow)
    finally:
        goes_on.set()
    await house.until(lambda: Kind.RELAYED in house.kinds(slow))
