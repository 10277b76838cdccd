"""Replies come out whole and equal, however their octets are cut; garbage and excess are faults."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smarthost.mail.reply import EnhancedStatus, Reply, make_reply
from smarthost.wire.reply_reader import MAX_LINE, MAX_LINES, ProtocolFault, ReplyReader

TEXT = st.text(
    st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_categories=["Cc", "Zl", "Zp", "Cs"]), max_size=30
)
REPLIES = st.builds(
    lambda klass, rest, subject, detail, lines: Reply(
        klass * 100 + rest, EnhancedStatus(klass, subject, detail), tuple(lines)
    ),
    st.sampled_from((2, 4, 5)),
    st.integers(0, 99),
    st.integers(0, 999),
    st.integers(0, 999),
    st.lists(TEXT, min_size=1, max_size=4),
)


@pytest.mark.parametrize(
    ("octets", "code", "status", "lines"),
    [
        (b"250 2.1.0 Ok\r\n", 250, "2.1.0", ("Ok",)),
        (b"250 Ok\r\n", 250, "2.0.0", ("Ok",)),
        (b"250\r\n", 250, "2.0.0", ("",)),
        (b"250 \r\n", 250, "2.0.0", ("",)),
        (b"250 2.1.0\r\n", 250, "2.1.0", ("",)),
        (b"354 go ahead\n", 354, "3.0.0", ("go ahead",)),
        (b"550 4.1.1 odd class\r\n", 550, "5.0.0", ("4.1.1 odd class",)),
        (b"550 5.1 two numbers\r\n", 550, "5.0.0", ("5.1 two numbers",)),
        (b"550 5.1.1234567 long\r\n", 550, "5.0.0", ("5.1.1234567 long",)),
        (b"550-5.7.1 one\r\n550 5.7.1 two\r\n", 550, "5.7.1", ("one", "two")),
        (b"550-one\r\n550 5.7.1 two\r\n", 550, "5.7.1", ("one", "two")),
        (
            b"250-relay.example\r\n250-SIZE 100\r\n250 8BITMIME\r\n",
            250,
            "2.0.0",
            ("relay.example", "SIZE 100", "8BITMIME"),
        ),
        (b"250-a\r\n250\r\n", 250, "2.0.0", ("a", "")),
        (b"550 \xff\x00\x1b[31m\r\n", 550, "5.0.0", ("\\xff??[31m",)),
        ("550 5.1.1 Größe\r\n".encode(), 550, "5.1.1", ("Größe",)),
    ],
)
def test_reads_replies_as_peers_write_them(octets: bytes, code: int, status: str, lines: tuple[str, ...]) -> None:
    """Each usual and unusual form is read, whole and octet by octet."""
    expected = [make_reply(code, status, *lines)]
    assert ReplyReader().feed(octets) == expected
    reader = ReplyReader()
    assert [reply for octet in octets for reply in reader.feed(bytes([octet]))] == expected
    assert not reader.pending


@pytest.mark.parametrize(
    "octets",
    [
        b"\r\n",
        b"hello\r\n",
        b"25\r\n",
        b"150 early\r\n",
        b"650 late\r\n",
        b"250ok\r\n",
        b"250\tok\r\n",
        b"250-a\r\n251 b\r\n",
        b"HTTP/1.1 400 Bad Request\r\n",
        "٢٥٠ digits\r\n".encode(),
        b"250 " + b"x" * MAX_LINE,
        b"250 " + b"x" * MAX_LINE + b"\r\n",
        b"250-x\r\n" * (MAX_LINES + 1),
        (b"250-" + b"x" * 4000 + b"\r\n") * 17,
    ],
)
def test_garbage_and_excess_are_faults(octets: bytes) -> None:
    """What is no reply, or too much of one, raises ProtocolFault, whole and octet by octet."""
    with pytest.raises(ProtocolFault):
        ReplyReader().feed(octets)
    reader = ReplyReader()
    with pytest.raises(ProtocolFault):
        for octet in octets:
            reader.feed(bytes([octet]))


def test_a_fault_hands_over_the_replies_before_it() -> None:
    """A 250 that came in the same octets as garbage is not lost, so that no message is sent twice."""
    with pytest.raises(ProtocolFault) as caught:
        ReplyReader().feed(b"250 2.0.0 queued\r\nrubbish\r\n")
    assert caught.value.replies == (make_reply(250, "2.0.0", "queued"),)


def test_pending_tells_of_an_unfinished_reply() -> None:
    """A part of a line and a part of a reply are both pending."""
    reader = ReplyReader()
    assert not reader.pending
    assert reader.feed(b"25") == []
    assert reader.pending
    assert reader.feed(b"0-a\r\n") == []
    assert reader.pending
    assert len(reader.feed(b"250 b\r\n")) == 1
    assert not reader.pending


def test_many_different_replies_do_not_fill_the_memory() -> None:
    """A reader remembers only a few replies, and still reads each of them right."""
    reader = ReplyReader()
    for number in range(200):
        assert reader.feed(b"250 2.0.0 queued as %d\r\n" % number)[0].text == f"queued as {number}"
    assert len(reader._cache) <= 16


@settings(max_examples=60)
@given(st.lists(REPLIES, min_size=1, max_size=5), st.data())
def test_twice_round_in_any_cut(replies: list[Reply], data: st.DataObject) -> None:
    """What we write as replies is read back equal, in any two cuts."""
    octets = b"".join(reply.encode() for reply in replies)
    first = data.draw(st.integers(0, len(octets)))
    second = data.draw(st.integers(first, len(octets)))
    reader = ReplyReader()
    read = [*reader.feed(octets[:first]), *reader.feed(octets[first:second]), *reader.feed(octets[second:])]
    assert read == replies


@settings(max_examples=60)
@given(st.binary(max_size=200))
def test_any_octets_give_replies_or_a_fault(octets: bytes) -> None:
    """Nothing but ProtocolFault is ever raised."""
    try:
        ReplyReader().feed(octets)
    except ProtocolFault:
        pass
