"""Content for hosts that take ASCII only: it means the same, and what needs no change keeps every octet."""

import email
import email.policy
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smarthost.wire.downgrade import Obstacle, to_ascii_header, to_seven_bit
from smarthost.wire.encoded_word import downgrade_field

UMLAUT = "Grüße aus Köln – ünï 😀".encode()


def seven_bit(content: bytes, block: int = 0) -> bytes | Obstacle:
    """Convert content that comes in lines, or in blocks of a size."""
    lines = content.splitlines(keepends=True)
    blocks = [content[at : at + block] for at in range(0, len(content), block)] if block else lines
    converted = to_seven_bit(lambda: blocks)
    return converted if isinstance(converted, Obstacle) else b"".join(converted)


def parse(content: bytes | Obstacle) -> EmailMessage:
    """Read content with the standard library."""
    assert isinstance(content, bytes), content
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def downgraded(field: str) -> str | None:
    """Write a field in ASCII."""
    written = downgrade_field(field.partition(":")[0].lower().encode(), field.encode() + b"\r\n")
    return None if written is None else written.decode("ascii")


@pytest.mark.parametrize(
    ("field", "written"),
    [
        ("Subject: plain  text", "Subject: plain  text\r\n"),
        ("Subject: one Übung more", "Subject: one =?utf-8?Q?=C3=9Cbung?= more\r\n"),
        ("From: Jörg Müller <a@example.org>", "From: =?utf-8?Q?J=C3=B6rg_M=C3=BCller?= <a@example.org>\r\n"),
        ('From: "Müller, J." <a@example.org>', "From: =?utf-8?B?TcO8bGxlciwgSi4=?= <a@example.org>\r\n"),
        (
            "To: a@example.org (Köln), b@bücher.example",
            "To: a@example.org (=?utf-8?B?S8O2bG4=?=), b@xn--bcher-kva.example\r\n",
        ),
        ("Cc: <jörg@example.org>", None),
        ("Cc: jörg@example.org", None),
        ("Cc: A <a@[ü]>", None),
        ("Message-ID: <ü@example.org>", None),
        (
            "References: <a@example.org> <ü@example.org> <b@example.org>",
            "References: <a@example.org> <b@example.org>\r\n",
        ),
        ("DKIM-Signature: v=1; d=example.org; i=ü@example.org; b=abc", ""),
        (
            'Content-Type: text/plain; name="Übung \\"1\\".txt"; charset=utf-8',
            "Content-Type: text/plain; name*=utf-8''%C3%9Cbung%20%221%22.txt;\r\n charset=utf-8\r\n",
        ),
        ("Received: from a by b for <ü@example.org>; date", "Received: from a by b; date\r\n"),
    ],
)
def test_fields_are_written_in_ascii(field: str, written: str | None) -> None:
    """Text and names become encoded words, domains A-labels, parameters RFC 2231's; local-parts cannot be written."""
    assert downgraded(field) == written


def test_octets_of_an_unknown_charset_are_named_so() -> None:
    """What is no UTF-8 is not said to be (RFC 1428)."""
    assert downgrade_field(b"subject", b"Subject: Gr\xfc\xdfe\r\n") == b"Subject: =?unknown-8bit?B?R3L832U=?=\r\n"


@given(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1), st.integers(1, 40))
def test_long_text_is_read_back(word: str, times: int) -> None:
    """However long a text is, lines stay within 76 columns, no character is divided, and a reader gets it back."""
    text = f"ä{word} " * times + "end"
    written = downgraded(f"Subject: {text}")
    assert written is not None
    if "=?" not in word:
        assert parse(written.encode() + b"\r\n")["Subject"] == text
    is_word = [line for line in written.split("\r\n") if "=?utf-8?" in line]
    assert all(len(line) <= 84 for line in is_word)


@pytest.mark.parametrize(
    "octets", [b'"', b'"\\', b"(<", b";a=", b"; ", b" for <", b" ", b'a="', b';a="\\', b"a@", b"=?"]
)
@pytest.mark.parametrize("name", [b"Subject", b"To", b"Content-Type", b"Received"])
def test_octets_made_to_be_slow_are_not(name: bytes, octets: bytes) -> None:
    """A field as long as a header may be takes a time in proportion to its length, whatever it repeats."""
    for field in (octets * (200_000 // len(octets)) + b"\xc3\xbc", b"\xc3\xbc" + octets * (200_000 // len(octets))):
        written = downgrade_field(name.lower(), name + b": " + field + b"\r\n")
        assert written is None or written.isascii()


MULTIPART = (
    b"Subject: " + UMLAUT + b"\r\nMIME-Version: 1.0\r\nContent-Transfer-Encoding: 8bit\r\n"
    b"Content-Type: multipart/mixed; boundary=out\r\n\r\npre\xc3\xbc\r\n--out\r\n"
    b"Content-Type: multipart/alternative; boundary=in\r\nContent-transfer-encoding: BINARY\r\n\r\n"
    b"--in\r\nContent-Transfer-Encoding: 8bit\r\n\r\n.plain  \r\n--in\r\nContent-Type: text/html; charset=utf-8\r\n\r\n"
    + UMLAUT
    + b"\r\n--in--\r\n--out\r\nContent-Type: application/x-y\r\n"
    b'Content-Disposition: attachment; filename="\xc3\xbc.bin"\r\n\r\n\xff\xfe\r\n\r\n'
    b"--out\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=C3=9F\xc3\x9f=\r\nx\r\n"
    b"--out\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\nQUJD\xa0\r\n"
    b"--out\r\nContent-Type: message/rfc822\r\n\r\nSubject: \xc3\xa4\r\n\r\n" + UMLAUT + b"\r\n--out--\r\npost\r\n"
)


@pytest.mark.parametrize("block", [0, 1, 1000])
def test_every_part_means_the_same(block: int) -> None:
    """Each part with 8-bit octets is encoded for itself, others stay; containers declare 7bit; nothing is lost."""
    converted = seven_bit(MULTIPART, block)
    assert isinstance(converted, bytes)
    assert converted.isascii()
    assert b"Content-Transfer-Encoding: 8bit\r\n\r\n.plain  \r\n--in\r\n" in converted
    message = parse(converted)
    assert message["Subject"] == UMLAUT.decode()
    assert message["Content-Transfer-Encoding"] == "7bit"
    plain, html, binary, printable, image, attached = [part for part in message.walk() if not part.is_multipart()]
    assert html.get_payload(decode=True) == UMLAUT
    assert html["Content-Transfer-Encoding"] == "quoted-printable"
    assert plain.get_payload() == ".plain  "
    assert (binary.get_filename(), binary.get_payload(decode=True)) == ("ü.bin", b"\xff\xfe\r\n")
    assert printable.get_payload(decode=True) == "ßß".encode() + b"x"
    assert image.get_payload(decode=True) == b"ABC"
    assert attached["Subject"] == "ä"
    assert attached.get_payload(decode=True) == UMLAUT


def test_what_is_in_ascii_stays_as_it_is() -> None:
    """Content that needs nothing keeps every octet, whatever it declares."""
    for content in (
        b"",
        b"A: b\r\n\r\nbody\r\n.\r\n",
        b"Content-Transfer-Encoding: 8bit\r\n\r\nbody\r\n",
        b"Content-Type: multipart/signed; boundary=b\r\nX: y\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n",
    ):
        assert seven_bit(content) == content


@pytest.mark.parametrize("kind", ["multipart/signed; boundary=b", "multipart/encrypted; boundary=b", "message/partial"])
def test_sealed_parts_are_an_obstacle(kind: str) -> None:
    """What a signature covers is never converted, nor what nobody could read afterwards."""
    part = f"Content-Type: {kind}\r\n\r\n--b\r\n\r\n".encode() + UMLAUT + b"\r\n--b--\r\n"
    assert seven_bit(part) is Obstacle.SEALED
    outer = b"Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\n" + part + b"--o--\r\n"
    assert seven_bit(outer) is Obstacle.SEALED
    unread = b"Content-Transfer-Encoding: x-uuencode\r\n\r\n" + UMLAUT + b"\r\n"
    assert seven_bit(unread) is Obstacle.SEALED


def test_only_the_header_is_changed_where_that_is_enough() -> None:
    """For a host with 8BITMIME and without SMTPUTF8 the body keeps its octets."""
    content = b"Subject: " + UMLAUT + b"\r\nTo: a@b.example\r\n\r\n" + UMLAUT + b"\r\n"
    converted = to_ascii_header(lambda: content.splitlines(keepends=True))
    assert not isinstance(converted, Obstacle)
    blocks = list(converted)
    whole = b"".join(blocks)
    header, _, body = whole.partition(b"\r\n\r\n")
    assert header.isascii()
    assert body == UMLAUT + b"\r\n"
    assert blocks[1:3] == [b"To: a@b.example\r\n", b"\r\n"]
    impossible = b"To: \xc3\xbc@b.example\r\n\r\nx\r\n"
    assert to_ascii_header(lambda: [impossible]) is Obstacle.HEADER
    assert seven_bit(impossible) is Obstacle.HEADER


@given(st.binary(max_size=300), st.sampled_from([0, 1, 50]))
def test_any_content_becomes_ascii_or_an_obstacle(octets: bytes, block: int) -> None:
    """Whatever the octets, no error comes out of it, and what comes out is ASCII."""
    content = b"Subject: x\r\n" + octets.replace(b"\n", b"").replace(b"\r", b"\r\n")
    converted = seven_bit(content, block)
    assert isinstance(converted, Obstacle) or converted.isascii()
