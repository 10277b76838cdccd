"""Content with long lines is re-encoded so that it means the same and no line is too long."""

import email
import email.policy
from email.message import EmailMessage

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smarthost.wire.mime import reencode
from smarthost.wire.mime_parts import walk

LONG = b"wort " * 300 + b"Stra\xc3\x9fe = 100%.\t"
NO_SPACE = b"x" * 20_000


def encoded(content: bytes, block: int = 0) -> bytes:
    """Re-encode content that comes in lines, or in blocks of a size."""
    if block:
        blocks = [content[at : at + block] for at in range(0, len(content), block)]
    else:
        blocks = content.splitlines(keepends=True)
    return b"".join(reencode(lambda: blocks))


def longest(content: bytes) -> int:
    """Give the octets of the longest line, without CRLF."""
    return max(map(len, content.split(b"\r\n")))


def parse(content: bytes) -> EmailMessage:
    """Read content with the standard library."""
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def text_of(part: EmailMessage) -> bytes:
    """Give a part's decoded octets, line ends as LF: the standard library gives CRLF or LF as it finds them."""
    payload = part.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload.replace(b"\r\n", b"\n")


def test_content_without_long_lines_stays_as_it_is() -> None:
    """Every octet of what needs no change is kept, odd forms included."""
    for content in (
        b"",
        b"\r\n",
        b"no header at all\r\n",
        b"A: b\r\n\r\nbody\r\n.\r\n..\r\n",
        b"A: b\r\n\r\n" + b"x" * 998 + b"\r\n",
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\npre\r\n--b\r\n\r\none\r\n--b--\r\npost\r\n--b\r\n",
    ):
        assert encoded(content) == content


@pytest.mark.parametrize("line", [LONG, NO_SPACE, b"=" * 1000, b" " * 1000, b"." * 999, b"a" * 8192, b"a" * 8193])
@pytest.mark.parametrize("block", [0, 1, 1000, 8193, 65536])
def test_long_text_becomes_quoted_printable(line: bytes, block: int) -> None:
    """Text decodes to the same octets, in whatever blocks it came."""
    body = b"short\r\n" + line + b"\r\n.\r\nend \r\n"
    if block == 1 and len(line) > 2000:
        block = 77
    result = encoded(b"Subject: x\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" + body, block)
    message = parse(result)
    assert longest(result) <= 76
    assert message["Content-Transfer-Encoding"] == "quoted-printable"
    assert message["MIME-Version"] == "1.0"
    assert text_of(message) == body.replace(b"\r\n", b"\n")


def test_the_old_encoding_field_is_replaced() -> None:
    """There is one encoding field afterwards, where the first one was, and no second MIME-Version."""
    header = b"MIME-Version: 1.0\r\nContent-transfer-encoding: 8BIT\r\nX: y\r\nContent-Transfer-Encoding: 7bit\r\n\r\n"
    result = encoded(header + NO_SPACE + b"\r\n")
    assert result.startswith(b"MIME-Version: 1.0\r\nContent-Transfer-Encoding: quoted-printable\r\nX: y\r\n\r\nxxxx")


MULTIPART = (
    b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed;\r\n boundary="out er"\r\n\r\npreamble\r\n--out er\r\n'
    b"Content-Type: multipart/alternative; boundary=in\r\n\r\n"
    b"--in\r\n\r\nshort\r\n--in  \r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + LONG + b"\r\n--in--\r\n"
    b"--out er\r\nContent-Type: application/json\r\nContent-Transfer-Encoding: 8bit\r\n\r\n[" + NO_SPACE + b"]\r\n"
    b"--out er\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    b"QUJD\r\n" + b"QUJD" * 3000 + b"\r\nQUI=\r\n"
    b"--out er\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    b"=41=42" + b"=C3=9F" * 3000 + b"=\r\nend\r\n"
    b"--out er\r\nContent-Type: message/rfc822\r\n\r\nSubject: in it\r\n\r\n" + NO_SPACE + b"\r\n"
    b"--out er--\r\nepilogue\r\n"
)


@pytest.mark.parametrize("block", [0, 100, 8191, 65536])
def test_each_part_gets_what_it_needs(block: int) -> None:
    """In nested multiparts, only leaves with a long line change, each in its own way, and all mean the same."""
    result = encoded(MULTIPART, block)
    assert longest(result) <= 998
    before = [part for part in parse(MULTIPART).walk() if not part.is_multipart()]
    after = [part for part in parse(result).walk() if not part.is_multipart()]
    assert [text_of(part) for part in after] == [text_of(part) for part in before]
    assert [part["Content-Transfer-Encoding"] for part in after] == [
        None,
        "quoted-printable",
        "base64",
        "base64",
        "quoted-printable",
        "quoted-printable",
    ]
    assert after[5]["MIME-Version"] == "1.0"
    assert result.startswith(MULTIPART[: MULTIPART.index(b"Content-Type: text/html")])
    assert result.endswith(b"\r\n--out er--\r\nepilogue\r\n")


@pytest.mark.parametrize(
    "content_type",
    [
        b'multipart/signed; protocol="application/pgp-signature"; boundary=b',
        b"multipart/encrypted; boundary=b",
        b"multipart/mixed",
        b"message/delivery-status",
    ],
)
def test_what_must_not_change_does_not(content_type: bytes) -> None:
    """Signed, encrypted and unreadable parts keep every octet, long lines and all."""
    body = b"--b\r\nContent-Type: text/plain\r\n\r\n" + NO_SPACE + b"\r\n--b--\r\n"
    content = b"Content-Type: " + content_type + b"\r\n\r\n" + body
    assert encoded(content) == content
    within = b"Content-Type: multipart/mixed; boundary=o\r\n\r\n--o\r\n" + content + b"--o--\r\n"
    assert encoded(within) == within


def test_long_header_lines_are_folded() -> None:
    """Fields of the message and of its parts are folded, and the rest of the part stays."""
    content = (
        b"References:" + b" <a@b>" * 300 + b"\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
        b"Content-Description:" + b" word" * 300 + b"\r\n\r\nbody\r\n--b--\r\n"
    )
    result = encoded(content)
    assert longest(result) <= 998
    assert result.replace(b"\r\n ", b" ") == content


def test_the_header_comes_field_by_field() -> None:
    """Whoever edits the header finds each field, and the empty line, as a block of its own."""
    content = b"A: b\r\n c\r\nD: " + b"e " * 600 + b"\r\n\r\n\r\n" + NO_SPACE + b"\r\n"
    for blocks in ([content], content.splitlines(keepends=True)):
        given_out = list(reencode(lambda blocks=blocks: blocks))
        assert given_out[0] == b"A: b\r\n c\r\n"
        assert given_out[1].startswith(b"D: e")
        assert given_out[2:5] == [
            b"Content-Transfer-Encoding: quoted-printable\r\n",
            b"MIME-Version: 1.0\r\n",
            b"\r\n",
        ]


def test_a_header_of_the_largest_size_is_still_read() -> None:
    """A header that intake took, and added to, is not mistaken for a body."""
    content = b"X: " + b"y" * 90 + b"\r\n"
    content = content * 3000 + b"\r\n" + NO_SPACE + b"\r\n"
    assert b"\r\nContent-Transfer-Encoding: quoted-printable\r\n" in encoded(content, 65536)


def test_deep_nesting_is_survived() -> None:
    """Parts within parts beyond any reason are left alone, quickly."""
    content = b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (depth, depth) for depth in range(2000)
    )
    assert encoded(content) == content
    assert encoded(b"Content-Type: message/rfc822\r\n\r\n" * 2000)


PIECES = st.lists(
    st.sampled_from(
        [
            b"Content-Type: multipart/mixed; boundary=a\r\n",
            b"Content-Type: multipart/mixed; boundary=b\r\n",
            b"Content-Type: message/rfc822\r\n",
            b"Content-Type: image/png\r\n",
            b"Content-Transfer-Encoding: base64\r\n",
            b"Content-Transfer-Encoding: quoted-printable\r\n",
            b"\r\n",
            b"--a\r\n",
            b"--b\r\n",
            b"--a--\r\n",
            b"--b--\r\n",
            b"text = \r\n",
            b"long " * 400 + b"\r\n",
            b"QUJD" * 2100 + b"=41\r\n",
        ]
    ),
    max_size=24,
)


@settings(max_examples=120, deadline=None)
@given(PIECES, st.integers(1, 3000))
def test_any_mixture_in_any_blocks(pieces: list[bytes], block: int) -> None:
    """The walk loses no octet, blocks do not matter, and a second round changes nothing more."""
    content = b"".join(pieces)
    assert b"".join(octets for _, _, octets in walk([content])) == content
    result = encoded(content, block)
    assert result == encoded(content)
    assert encoded(result) == result
    if longest(content) <= 998:
        assert result == content


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=999, max_size=3000), st.booleans())
def test_octets_survive_base64(octets: bytes, is_last: bool) -> None:
    """Octets of another kind than text decode to the same, at the end of a message and before a boundary."""
    octets = b"y" * 999 + octets.replace(b"\r", b"").replace(b"\n", b"")
    head = b"Content-Type: application/x\r\n\r\n"
    if is_last:
        message = parse(encoded(head + octets + b"\r\n"))
        assert message.get_payload(decode=True) == octets + b"\r\n"
    else:
        content = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" + head + octets + b"\r\n--b--\r\n"
        (part,) = parse(encoded(content)).iter_parts()
        assert part.get_payload(decode=True) == octets
