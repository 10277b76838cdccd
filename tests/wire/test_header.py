"""Header sections are split, read and edited octet for octet."""

import email.utils

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smarthost.mail.message import Arrival
from smarthost.wire.header import (
    complete_address,
    drop_fields,
    field_value,
    first_address,
    fold_long_field,
    format_date,
    has_utf8,
    parse_fields,
    received,
    replace_address,
    split_fields,
    split_header,
)

HEADER = (
    b"Received: from a\r\n\tby b; Mon, 1 Jan 2024 00:00:00 +0000\r\n"
    b"From : Alice <alice@example.org>\r\nSubject: one\r\n two\r\n \r\n three\r\nX-Empty:\r\n"
)


@pytest.mark.parametrize(
    ("content", "offset", "whole_offset"),
    [
        (b"\r\nbody", 2, 2),
        (b"A: b\r\n\r\nbody\r\n", 8, 8),
        (b"A: b\r\n", -1, 6),
        (b"A: b\r\n\r", -1, 6),
        (b"A: b\r\nno field\r\n\r\nbody\r\n", 6, 6),
        (b"A: b\r\nno field\r\n", -1, 6),
        (b"no field\r\n\r\n", 0, 0),
        (b" folded first\r\n\r\n", 0, 0),
        (b"From a@b Mon Jan  1 00:00:00 2024\r\nA: b\r\n\r\nbody", 43, 43),
        (b">From a@b Mon Jan  1 00:00:00 2024\r\nA: b\r\n\r\nbody", 44, 44),
        (b"From : a@b\r\n\r\nbody", 14, 14),
        (b"", -1, 0),
    ],
)
def test_header_and_body_are_split(content: bytes, offset: int, whole_offset: int) -> None:
    """The body begins behind the empty line, or at the first line that is no field."""
    assert split_header(content) == offset
    assert split_header(content, whole=True) == whole_offset


def test_a_long_line_that_is_no_field_is_read_once() -> None:
    """It ends the header at its beginning, however long it is, in a time that grows with its length only."""
    for line in (b"a" * 250_000, b"a a:" * 60_000, b"A" + b"\t" * 250_000):
        assert split_fields(b"A: b\r\n" + line + b"\r\n\r\nbody") == (6, [(b"a", b"A: b\r\n")])


def test_split_goes_on_where_it_stopped() -> None:
    """An empty line that is cut between two calls is found."""
    content = b"A: b\r\n\r\nbody"
    for start in range(8):
        assert split_header(content[:start]) == -1
        assert split_header(content, start) == 8


def test_fields_keep_their_octets() -> None:
    """Names are lower case; the octets, folds included, are as they came."""
    fields = parse_fields(HEADER + b"\r\n")
    assert [name for name, _ in fields] == [b"received", b"from", b"subject", b"x-empty"]
    assert b"".join(raw for _, raw in fields) == HEADER
    assert field_value(fields[0][1]) == b"from a\tby b; Mon, 1 Jan 2024 00:00:00 +0000"
    assert field_value(fields[1][1]) == b"Alice <alice@example.org>"
    assert field_value(fields[2][1]) == b"one two  three"
    assert field_value(fields[3][1]) == b""


def test_an_mbox_line_is_dropped() -> None:
    """The "From " line of an mbox file is no field and does not stay."""
    assert parse_fields(b"From a@b Mon Jan  1 00:00:00 2024\r\nA: b\r\n\r\n") == [(b"a", b"A: b\r\n")]
    assert parse_fields(b"From : a@b\r\n\r\n") == [(b"from", b"From : a@b\r\n")]


def test_fields_are_dropped() -> None:
    """Dropping goes by lower-case name or prefix."""
    fields = parse_fields(b"Received: a\r\nX-Smarthost-Tag: x\r\nBcc: y\r\nRECEIVED: b\r\nTo: z\r\n")
    left = drop_fields(fields, {b"bcc"}, b"x-smarthost-")
    assert [name for name, _ in left] == [b"received", b"received", b"to"]
    assert len(drop_fields(fields, (b"bcc",))) == 4


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(
            st.text("AbC-z9", min_size=1, max_size=8),
            st.lists(st.text("xyz: .ü@", max_size=10), min_size=1, max_size=3),
        ),
        max_size=6,
    ),
    st.binary(max_size=20),
)
def test_fields_twice_round(written: list[tuple[str, list[str]]], body: bytes) -> None:
    """What is written as fields is split off and read back, whatever body follows."""
    raws = [f"{name}: {(chr(13) + chr(10) + ' ').join(parts)}\r\n".encode() for name, parts in written]
    header = b"".join(raws) + b"\r\n"
    assert split_header(header + body) == len(header)
    assert parse_fields(header) == [(name.lower().encode(), raw) for (name, _), raw in zip(written, raws, strict=True)]


@settings(max_examples=150)
@given(st.lists(st.sampled_from([b"A: b\r\n", b" c\r\n", b"\r\n", b"x\r\n", b"From y\r\n", b": z\r\n"]), max_size=8))
def test_nothing_is_lost_in_the_split(lines: list[bytes]) -> None:
    """Fields and body together are the content, but for the empty line and an mbox line."""
    content = b"".join(lines)
    offset = split_header(content, whole=True)
    kept = b"".join(raw for _, raw in parse_fields(content[:offset]))
    between = content[:offset].removeprefix(b"From y\r\n") if content[:offset] != kept else content[:offset]
    assert between in (kept, kept + b"\r\n")
    assert parse_fields(content) == parse_fields(content[:offset])
    assert split_fields(content, whole=True) == (offset, parse_fields(content[:offset]))
    early = split_header(content)
    assert split_fields(content) == (early, parse_fields(content[:early]) if early >= 0 else [])


@pytest.mark.parametrize(
    ("value", "address"),
    [
        (b"alice@example.org", "alice@example.org"),
        (b" <alice@example.org> ", "alice@example.org"),
        (b"Alice A. <alice@example.org>", "alice@example.org"),
        (b'"Doe, Alice" <alice@example.org>', "alice@example.org"),
        (b'"evil@example.net" <alice@example.org>', "alice@example.org"),
        (b'"a \\"quoted <x@y>\\" name" <alice@example.org>', "alice@example.org"),
        (b"evil@example.net <alice@example.org>", "alice@example.org"),
        (b"alice@example.org (Alice (the one) at evil@example.net)", "alice@example.org"),
        (b"(evil@example.net) alice@example.org", "alice@example.org"),
        (b"alice(x)@(y)example.org", "alice@example.org"),
        (b"alice @ example.org", "alice@example.org"),
        (b"Alice Doe alice@example.org", "alice@example.org"),
        (b"<@relay.example,@b:alice@example.org>", "alice@example.org"),
        (b"< alice@example.org >", "alice@example.org"),
        (b"<alice@example.org", "alice@example.org"),
        (b"Alice <alice@example.org", "alice@example.org"),
        (b"alice@example.org, bob@example.org", "alice@example.org"),
        (b",, alice@example.org", "alice@example.org"),
        (b"friends: alice@example.org, bob@example.org;", "alice@example.org"),
        (b"nobody:;, alice@example.org", "alice@example.org"),
        (b"=?utf-8?q?A=40b=2C?= <alice@example.org>", "alice@example.org"),
        (b'"a b,<c>"@example.org', '"a b,<c>"@example.org'),
        (b'"a b" <"c d"@example.org>', '"c d"@example.org'),
        ("Jörg <jörg@exämple.org>".encode(), "jörg@exämple.org"),
        (b"J\xf6rg <joerg@example.org>", "joerg@example.org"),
        (b"Alice\r\n <alice@example.org>", "alice@example.org"),
        (b"root", "root"),
        (b"root (Cron Daemon)", "root"),
        (b'"Cron Daemon" <root>', "root"),
        (b'"unclosed <alice@example.org>', "alice@example.org"),
        (b"Alice (unclosed <alice@example.org>", "alice@example.org"),
        (b"<alice@[192.0.2.1]>", "alice@[192.0.2.1]"),
        (b"", ""),
        (b"<>", ""),
        (b"undisclosed-recipients:;", ""),
        (b"Alice Doe", ""),
        (b"=?utf-8?q?Alice?=", ""),
        (b'"Alice"', ""),
        (b"a@b@c", ""),
    ],
)
def test_the_first_address_is_found(value: bytes, address: str) -> None:
    """Names, comments, quotes, groups and missing brackets do not hide or forge the address."""
    assert first_address(value) == address


@pytest.mark.parametrize(
    ("raw", "completed"),
    [
        (b"From: root\r\n", b"From: root@x.org\r\n"),
        (b"From: root (Cron Daemon)\r\n", b"From: root@x.org (Cron Daemon)\r\n"),
        (b"From: Cron <root>\r\n", b"From: Cron <root@x.org>\r\n"),
        (b"To: a, b@c, <d>,\r\n e\r\n", b"To: a@x.org, b@c, <d@x.org>,\r\n e@x.org\r\n"),
        (b"To: undisclosed-recipients:;\r\n", b"To: undisclosed-recipients:;\r\n"),
        (b"To: Alice <a@b>\r\n", b"To: Alice <a@b>\r\n"),
        (b"To: Alice Doe\r\n", b"To: Alice Doe\r\n"),
        (b"To: \r\n", b"To: \r\n"),
    ],
)
def test_addresses_are_completed(raw: bytes, completed: bytes) -> None:
    """Only addresses without a domain get one; every other octet stays."""
    assert complete_address(raw, "x.org") == completed


def test_addresses_are_replaced() -> None:
    """Only addr-specs are replaced: not names, comments or longer addresses."""
    raw = b'To: "a@b" <A@B> (a@b), xa@b,\r\n\ta@b, g: <a@bc>, a @ b;\r\n'
    assert replace_address(raw, "a@b", "n@m") == b'To: "a@b" <n@m> (a@b), xa@b,\r\n\tn@m, g: <a@bc>, n@m;\r\n'
    assert replace_address(b"From: root\r\n", "root", "ä@m") == "From: ä@m\r\n".encode()


@settings(max_examples=150)
@given(st.lists(st.sampled_from([*b'<>"(),:;@\\. \t', *b"ab", 0xC3, 0xB6, 0x85]), max_size=30).map(bytes))
def test_any_address_field_is_survived(value: bytes) -> None:
    """Whatever stands there, an answer is given, and replacing by itself changes only white space and comments."""
    address = first_address(value)
    raw = b"From: " + value + b"\r\n"
    assert raw.startswith(b"From: ")
    assert complete_address(raw, "x.org").endswith(b"\r\n")
    if address and "\ufffd" not in address:
        assert address.encode() in replace_address(raw, address, address)


def test_slow_address_fields_are_not_slow() -> None:
    """Quotes, brackets and comments that are never closed do not make each other search the whole field."""
    for piece in (b'\\"', b"(", b'<"\\"', b"<", b'"', b"(a", b"<((", b"a "):
        first_address(piece * (100_000 // len(piece)))


@pytest.mark.parametrize(
    ("raw", "folded"),
    [
        (b"S: short\r\n", b"S: short\r\n"),
        (b"S: aaaa bbbb cccc\r\n", b"S: aaaa\r\n bbbb cccc\r\n"),
        (b"S: aaaaaaaaaaaa\r\n", b"S: aaaaaaa\r\n aaaaa\r\n"),
        (b"S: a\r\n bbbb\tcccccccc d\r\n", b"S: a\r\n bbbb\r\n\tcccccccc\r\n d\r\n"),
        ("S: aaaaaöö\r\n".encode(), "S: aaaaaö\r\n ö\r\n".encode()),
        ("S: aaaaaaöö\r\n".encode(), "S: aaaaaa\r\n öö\r\n".encode()),
    ],
)
def test_long_fields_are_folded(raw: bytes, folded: bytes) -> None:
    """At white space where there is some, else between characters; nothing else changes."""
    assert fold_long_field(raw, 10) == folded


@settings(max_examples=150)
@given(st.text("ab \t", max_size=80))
def test_folding_at_space_keeps_the_value(text: str) -> None:
    """No line is over the limit afterwards, and without hard breaks the unfolded octets are the same."""
    raw = b"Subject: " + text.encode() + b"\r\n"
    folded = fold_long_field(raw, 20)
    assert all(len(line) <= 20 for line in folded.split(b"\r\n"))
    assert (
        folded.replace(b"\r\n", b"").replace(b" ", b"").replace(b"\t", b"")
        == b"Subject:" + "".join(text.split()).encode()
    )
    if all(len(word) < 10 for word in text.split()) and text.strip() and "  " not in text.replace("\t", " "):
        assert folded.replace(b"\r\n", b"") == raw[:-2]


@pytest.mark.parametrize(("header", "answer"), [(b"A: b", False), ("A: ö".encode(), True), (b"A: \xf6", False)])
def test_utf8_is_measured(header: bytes, answer: bool) -> None:
    """Only octets that are UTF-8 ask for SMTPUTF8; undeclared Latin-1 does not."""
    assert has_utf8(header) is answer


@settings(max_examples=60)
@given(st.integers(0, 4_000_000_000))
def test_dates_are_those_of_the_standard_library(at: int) -> None:
    """The date-time is the one that another implementation reads as the same second."""
    assert email.utils.parsedate_to_datetime(format_date(at + 0.9)).timestamp() == at


ARRIVAL = Arrival(
    1700000000.5, "587", "2001:db8::1", "client.example.org", "app1", "ESMTPSA", "TLSv1.3 TLS_AES_256_GCM_SHA384"
)


def test_received_says_where_the_message_came_from() -> None:
    """Client, TLS, ourselves, id, the only recipient and the date stand in the field, folded."""
    assert received(ARRIVAL, "relay.example.org", "0123456789AB", "bob@example.net") == (
        b"Received: from client.example.org ([IPv6:2001:db8::1]) by relay.example.org\r\n"
        b"\twith ESMTPSA (TLSv1.3 TLS_AES_256_GCM_SHA384) id 0123456789AB\r\n"
        b"\tfor <bob@example.net>; Tue, 14 Nov 2023 22:13:20 +0000\r\n"
    )


def test_received_hides_what_it_shall() -> None:
    """Without the client, without recipients, without the user's name."""
    octets = received(ARRIVAL, "relay.example.org", "0123456789AB", hide_client=True)
    assert octets.startswith(b"Received: by relay.example.org with ESMTPSA")
    for hidden in (b"client", b"2001:db8", b"app1", b"for <"):
        assert hidden not in octets


@pytest.mark.parametrize("ehlo", ["a b", "x)\r\nBcc: y", "x; Mon", "", "é.example", "a" * 300, "(x)", "[1.2.3.4"])
def test_received_does_not_repeat_nonsense(ehlo: str) -> None:
    """A client cannot write clauses or fields through its EHLO name."""
    octets = received(Arrival(0.0, client="192.0.2.1", ehlo=ehlo), "r.example", "ID")
    assert octets.startswith(b"Received: from unknown ([192.0.2.1]) by r.example with ESMTP id ID;")
    assert len(parse_fields(octets)) == 1


def test_received_names_an_internationalised_recipient_only_in_such_mail() -> None:
    """A UTF-8 recipient appears only where the transfer was SMTPUTF8 anyway (RFC 6531 3.7.3)."""
    assert b"for <" not in received(Arrival(0.0), "r.example", "ID", "ö@x.org")
    assert "for <ö@x.org>".encode() in received(Arrival(0.0, protocol="UTF8SMTPS"), "r.example", "ID", "ö@x.org")
