"""A letter becomes MIME that is read back as it was meant; the quick way writes what the standard library does."""

import re
from email import message_from_bytes
from email.header import decode_header, make_header
from email.utils import getaddresses

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from letters import STAMP, make_letter, octets_of, parsed, tree

from smarthost.compose.bodies import Radix64Lines, radix64_lines, radix64_size
from smarthost.compose.mime import Slot, compose, write_message

IMAGE = {"filename": "logo.png", "content": "iVBORw0KGgo=", "cid": "logo"}
PDF = {"filename": "report.pdf", "content": "JVBERi0xLjQ="}

# What a field may hold: no controls, no lone surrogates.
WORDS = st.text(st.characters(blacklist_categories=("Cc", "Cs", "Zl", "Zp")), max_size=120)
ASCII = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200)
LINES = st.lists(st.one_of(ASCII, WORDS, st.just("."), st.just("From x"), st.just("a" * 1000), st.just("\x00\x1b")))
TEXTS = st.builds("\n".join, LINES).filter(bool) | st.builds("\r\n".join, LINES).filter(bool)
NAMES = st.one_of(ASCII, WORDS, st.just('Bauer, "B" \\ (x)'), st.just("=?utf-8?q?x?="))
DOMAINS = st.sampled_from(["example.net", "a.example.org", "x" * 60 + ".example", "bücher.example"])
LOCALS = st.sampled_from(["a", "bea.bauer", '"b b"', "x" * 64, "a+b"])
MAILBOXES = st.builds(
    lambda local, domain, name: {"email": f"{local}@{domain}", "name": name.strip()}, LOCALS, DOMAINS, NAMES
)


@st.composite
def letters(draw: st.DrawFn) -> dict[str, object]:
    """Make the fields of a submission that has no fault."""
    fields: dict[str, object] = {
        "from": draw(MAILBOXES),
        "to": draw(st.lists(MAILBOXES, min_size=1, max_size=8)),
        "cc": draw(st.lists(MAILBOXES, max_size=3)),
        "reply_to": draw(st.lists(MAILBOXES, max_size=2)),
        "subject": draw(ASCII | WORDS),
        "headers": {f"X-{place}": text for place, text in enumerate(draw(st.lists(ASCII | WORDS, max_size=3)))},
    }
    kind = draw(st.integers(1, 3))
    return {**fields, "text": draw(TEXTS) if kind & 1 else "", "html": draw(TEXTS) if kind & 2 else ""}


@given(letters())
def test_the_quick_way_writes_what_the_standard_library_does(fields: dict[str, object]) -> None:
    """Octet for octet, for letters of all kinds without attachments."""
    letter = make_letter(**fields)
    assert compose(letter, STAMP).pieces == (write_message(letter, STAMP),)


@given(letters())
def test_what_is_written_is_read_back(fields: dict[str, object]) -> None:
    """Names, addresses, subject and texts are those of the request; every line is short enough and ends in CRLF."""
    letter = make_letter(**fields)
    octets = octets_of(letter)
    assert re.search(rb"\r(?!\n)|(?<!\r)\n", octets) is None
    assert max(len(line) for line in octets.split(b"\r\n")) <= 998
    assert octets.isascii() and b"\x00" not in octets
    message = parsed(letter)
    fields = message_from_bytes(octets)
    assert [(decoded(name), address) for name, address in getaddresses([fields["to"]])] == [
        (each.name.split(), each.address) for each in letter.to
    ]
    assert decoded(fields["subject"] or "") == letter.subject.split()
    for text, part in ((letter.text, message.get_body(("plain",))), (letter.html, message.get_body(("html",)))):
        if text:
            assert part is not None
            assert part.get_content().splitlines() == (text.replace("\r", "")).splitlines()


def decoded(text: str) -> list[str]:
    """Decode encoded words by the older reader: the newer one keeps blanks between them, against RFC 2047 6.2."""
    return str(make_header(decode_header(text))).split()


def test_the_usual_letter_is_what_a_person_would_write() -> None:
    """A golden message: nothing in it is by chance."""
    letter = make_letter(author="Shop <shop@example.org>", to="Bea <b@example.net>", subject="Hello", html="<p>hi</p>")
    assert octets_of(letter).decode() == (
        "From: Shop <shop@example.org>\r\n"
        "To: Bea <b@example.net>\r\n"
        "Subject: Hello\r\n"
        "Date: Sat, 22 Nov 2025 08:26:40 +0000\r\n"
        "Message-ID: <0123456789abcdef0123456789abcdef@relay.example.org>\r\n"
        "MIME-Version: 1.0\r\n"
        "Content-Type: multipart/alternative;\r\n"
        ' boundary="=_0123456789abcdef0123456789abcdef"\r\n'
        "\r\n"
        "--=_0123456789abcdef0123456789abcdef\r\n"
        'Content-Type: text/plain; charset="us-ascii"\r\n'
        "Content-Transfer-Encoding: 7bit\r\n"
        "\r\n"
        "t\r\n"
        "\r\n"
        "--=_0123456789abcdef0123456789abcdef\r\n"
        'Content-Type: text/html; charset="us-ascii"\r\n'
        "Content-Transfer-Encoding: 7bit\r\n"
        "\r\n"
        "<p>hi</p>\r\n"
        "\r\n"
        "--=_0123456789abcdef0123456789abcdef--\r\n"
    )


@pytest.mark.parametrize(
    ("fields", "structure"),
    [
        ({}, "text/plain"),
        ({"text": "", "html": "h"}, "text/html"),
        ({"html": "h"}, ["alternative", "text/plain", "text/html"]),
        ({"attachments": [PDF]}, ["mixed", "text/plain", "application/pdf"]),
        ({"html": "h", "attachments": [PDF]}, ["mixed", ["alternative", "text/plain", "text/html"], "application/pdf"]),
        ({"text": "", "html": "h", "attachments": [IMAGE]}, ["related", "text/html", "image/png"]),
        (
            {"html": "h", "attachments": [PDF, IMAGE]},
            ["mixed", ["alternative", "text/plain", ["related", "text/html", "image/png"]], "application/pdf"],
        ),
        ({"attachments": [IMAGE]}, ["mixed", "text/plain", "image/png"]),
        (
            {"html": "h", "attachments": [{**IMAGE, "disposition": "attachment"}]},
            ["mixed", ["alternative", "text/plain", "text/html"], "image/png"],
        ),
    ],
)
def test_the_structure_follows_from_what_there_is(fields: dict[str, object], structure: object) -> None:
    """Mixed holds alternative holds related, each only where it has more than one part."""
    assert tree(parsed(make_letter(**fields))) == structure


def test_attachments_arrive_with_their_octets_names_and_cids() -> None:
    """Each octet, a name beyond ASCII by RFC 2231, and the cid that the HTML names."""
    octets = bytes(range(256)) * 40
    letter = make_letter(
        html="<img src=cid:logo>",
        attachments=[
            IMAGE,
            {"filename": "Übersicht, 2.pdf", "content": octets},
            {"filename": 'a "b".txt', "content": ""},
        ],
    )
    shown, *beside = [part for part in parsed(letter).walk() if part.get_content_disposition()]
    assert (shown["content-id"], shown.get_content_disposition()) == ("<logo>", "inline")
    assert [part.get_filename() for part in beside] == ["Übersicht, 2.pdf", 'a "b".txt']
    assert [part.get_payload(decode=True) for part in beside] == [octets, b""]


def test_attachments_are_left_open_with_the_size_that_they_will_have() -> None:
    """The first piece ends where the first attachment begins; its octets are not in any piece."""
    letter = make_letter(
        attachments=[{**PDF, "content": b"x" * 1000}, {"filename": "a", "url": "https://example.org/a"}]
    )
    composed = compose(letter, STAMP)
    header, first, between, second, end = composed.pieces
    assert isinstance(header, bytes) and b"\r\n\r\n" in header and b"eHh4" not in header
    assert first == Slot(0, radix64_size(1000)) and second == Slot(1, None)
    assert isinstance(between, bytes) and isinstance(end, bytes)
    assert composed.size is None
    known = make_letter(attachments=[{**PDF, "content": b"x" * 1000}])
    assert compose(known, STAMP).size == len(octets_of(known))


def test_a_text_that_looks_like_a_mark_is_a_text() -> None:
    """Marks and boundaries are made of what nobody knows before; what looks alike is left alone."""
    letter = make_letter(text="=_0123_0_=\n--=_0123", attachments=[PDF])
    message = parsed(letter)
    assert tree(message) == ["mixed", "text/plain", "application/pdf"]


def test_bcc_is_in_no_octet() -> None:
    """A recipient of bcc is in the envelope and nowhere else."""
    letter = make_letter(bcc="Hidden <hidden@example.net>")
    assert "hidden@example.net" in {each.address for each in letter.recipients}
    assert b"idden" not in octets_of(letter)


def test_a_message_id_of_the_request_is_kept() -> None:
    """It takes the place of ours, once."""
    composed = compose(make_letter(headers={"Message-ID": "<mine@example.org>"}), STAMP)
    assert composed.message_id == "<mine@example.org>"
    assert isinstance(composed.pieces[0], bytes) and composed.pieces[0].lower().count(b"message-id:") == 1


def test_utf8_addresses_are_written_as_they_are() -> None:
    """Where SMTPUTF8 is needed anyway, the address is in UTF-8 and the names around it are still encoded words."""
    letter = make_letter(to=["Jörg <jörg@example.net>"] + [f"Überall {n} <r{n}@example.net>" for n in range(60)])
    octets = octets_of(letter)
    assert "<jörg@example.net>".encode() in octets
    assert max(len(line) for line in octets.split(b"\r\n")) <= 998
    pairs = getaddresses([str(parsed(letter)["to"])])
    assert pairs[0] == ("Jörg", "jörg@example.net") and len(pairs) == 61
    assert compose(letter, STAMP).pieces == (write_message(letter, STAMP),)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 56, 57, 58, 113, 114, 115, 1000])
@pytest.mark.parametrize("block", [1, 7, 57, 100, 2000])
def test_base64_by_blocks_is_base64_of_the_whole(size: int, block: int) -> None:
    """Whatever the blocks are, the lines are the same, and their length was known before."""
    octets = bytes(n % 256 for n in range(size))
    lines = Radix64Lines()
    written = b"".join([lines.feed(octets[start : start + block]) for start in range(0, size, block)]) + lines.end()
    assert written == radix64_lines(octets)
    assert len(written) == radix64_size(size)
    assert all(len(line) <= 76 for line in written.split(b"\r\n"))


def test_what_is_not_ascii_takes_the_shorter_encoding() -> None:
    """Some letters beyond ASCII are quoted-printable, many are base64."""
    assert b"quoted-printable" in octets_of(make_letter(text="Il tuo ordine è partito."))
    assert b"base64" in octets_of(make_letter(text="Ваш заказ отправлен."))


def test_a_letter_can_be_changed_for_another_recipient() -> None:
    """Batches make one letter and replace what differs."""
    letter = msgspec.structs.replace(make_letter(), subject="another")
    assert b"Subject: another\r\n" in octets_of(letter)
