"""Content comes through DATA unchanged; nothing but CRLF.CRLF ends it; line ends and NUL are as promised."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smarthost.wire.data import DataFault, DataReader, LongLineScan, Stuffer, has_long_line, stuff

# Dense in what matters, so that a few hundred examples find every state.
RAW = st.lists(st.sampled_from([b"\r", b"\n", b".", b"a", b"\r\n", b"\r\n.", b"\0", b"bc"]), max_size=24).map(b"".join)
CLEAN = st.lists(st.sampled_from([b"\r\n", b".", b"..", b"a", b"line\r\n", b".\r\n"]), max_size=24).map(
    lambda parts: b"".join(parts) + b"\r\n"
)


def read(chunks: list[bytes], reject_bare: bool = False) -> tuple[bytes, DataReader]:
    """Feed chunks until the end is seen; what is behind it goes to `rest`."""
    reader = DataReader(reject_bare)
    blocks: list[bytes] = []
    for number, chunk in enumerate(chunks):
        blocks += reader.feed(chunk)
        if reader.ended:
            reader.rest += b"".join(chunks[number + 1 :])
            break
    return b"".join(blocks), reader


def octets_of(raw: bytes) -> list[bytes]:
    """Cut octet by octet."""
    return [bytes([octet]) for octet in raw]


@pytest.mark.parametrize(
    ("raw", "content", "rest"),
    [
        (b".\r\n", b"", b""),
        (b".\r\nQUIT\r\n", b"", b"QUIT\r\n"),
        (b"a\r\n.\r\n", b"a\r\n", b""),
        (b"a\r\n.\r\nMAIL FROM:<>\r\n", b"a\r\n", b"MAIL FROM:<>\r\n"),
        (b"\r\n.\r\n", b"\r\n", b""),
        (b"..\r\n.\r\n", b".\r\n", b""),
        (b"..a\r\n...b\r\n.c\r\n.\r\n", b".a\r\n..b\r\nc\r\n", b""),
        (b"a\nb\rc\r\n.\r\n", b"a\r\nb\r\nc\r\n", b""),
        (b"\n\r\r\n.\r\n", b"\r\n\r\n\r\n", b""),
        (b"a\r\r\n.\r\n", b"a\r\n\r\n", b""),
        (b"a\n..b\r\n.\r\n", b"a\r\n..b\r\n", b""),
        (b"a\n\r\n.\r\n", b"a\r\n\r\n", b""),
    ],
)
def test_content_comes_out_clean(raw: bytes, content: bytes, rest: bytes) -> None:
    """Dots, line ends, the end and what is behind it are told apart, whole and octet by octet."""
    for chunks in ([raw], octets_of(raw)):
        given_out, reader = read(chunks)
        assert (given_out, reader.rest, reader.ended, reader.fault) == (content, rest, True, None)
        assert reader.raw_size == len(raw) - len(rest)


@pytest.mark.parametrize(
    "ending",
    [
        b"\n.\n",
        b"\n.\r\n",
        b"\r.\r\n",
        b"\r.\r",
        b"\r\n.\n",
        b"\r\n.\r",
        b"\n.\r",
        b"\r.\n",
        b"\r\n\0.\r\n",
        b"\r\n.\0\r\n",
        b"\r\n.\r\0\n",
        b"\r\0\n.\r\n",
        b"\0\r\n.\n",
        b"\r\n. \r\n",
        b"\r\n.\r\r\n",
        b"\r\n..\r\n",
    ],
)
@pytest.mark.parametrize("reject_bare", [False, True])
def test_no_other_ending_smuggles_a_second_message(ending: bytes, reject_bare: bool) -> None:
    """Behind a false ending all is still content until the true one, and on the way out it ends nothing either."""
    raw = b"first" + ending + b"MAIL FROM:<evil@example.org>\r\n.\r\n"
    for chunks in ([raw], octets_of(raw)):
        given_out, reader = read(chunks, reject_bare)
        assert reader.ended
        assert reader.rest == b""
        if reader.fault is None:
            sent = stuff(given_out)
            assert sent.find(b"\r\n.\r\n") == len(sent) - 5
            assert sent.count(b"\n") == sent.count(b"\r") == sent.count(b"\r\n")
            assert b"MAIL FROM" in given_out


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (b"a\nb\r\n.\r\n", DataFault.BARE_NEWLINE),
        (b"a\rb\r\n.\r\n", DataFault.BARE_NEWLINE),
        (b"a\0b\r\n.\r\n", DataFault.NUL),
        (b"a\nb\0\r\n.\r\n", DataFault.NUL),
        (b"a\r\n.\r\n", None),
    ],
)
def test_faults_drop_content_and_drain(raw: bytes, fault: DataFault | None) -> None:
    """After a fault the end is still found, and the fault does not depend on the cut."""
    for chunks in ([raw + b"QUIT\r\n"], octets_of(raw + b"QUIT\r\n")):
        _, reader = read(chunks, reject_bare=True)
        assert (reader.fault, reader.ended, reader.rest) == (fault, True, b"QUIT\r\n")


def test_nothing_more_is_given_after_a_fault() -> None:
    """A block with NUL and all behind it are dropped."""
    reader = DataReader(False)
    assert reader.feed(b"good\r\n" * 3) != []
    assert reader.feed(b"bad\0\r\n") == []
    assert reader.feed(b"more\r\n" * 100) == []
    assert len(reader._held) <= 4
    assert reader.feed(b".\r\n") == []
    with pytest.raises(ValueError, match="ended"):
        reader.feed(b"x")


@settings(max_examples=200)
@given(RAW, st.booleans(), st.data())
def test_any_cut_gives_the_same(raw: bytes, reject_bare: bool, data: st.DataObject) -> None:
    """Content, rest, fault and size are the same whole, octet by octet and in any two cuts."""
    raw += data.draw(st.sampled_from([b"", b"\r\n.\r\n", b"\r\n.\r\nQUIT\r\n"]))
    first = data.draw(st.integers(0, len(raw)))
    second = data.draw(st.integers(first, len(raw)))
    seen = []
    for chunks in ([raw], octets_of(raw), [raw[:first], raw[first:second], raw[second:]]):
        content, reader = read(chunks, reject_bare)
        if reader.fault is not None:
            content = b""
        seen.append((content, reader.rest, reader.fault, reader.ended, reader.raw_size, reader._held))
    assert seen[0] == seen[1] == seen[2]


@settings(max_examples=300)
@given(RAW, st.data())
def test_content_is_dotted_when_a_line_begins_with_a_dot(raw: bytes, data: st.DataObject) -> None:
    """Wherever the octets are cut, no line of content that is not called dotted begins with a dot."""
    raw += b"\r\n.\r\n"
    cut = data.draw(st.integers(0, len(raw)))
    for chunks in ([raw], octets_of(raw), [raw[:cut], raw[cut:]]):
        content, reader = read(chunks)
        if reader.fault is None and not reader.is_dotted:
            assert b"\r\n." not in b"\r\n" + content


def test_plain_content_is_not_dotted() -> None:
    """A dot elsewhere, and the one of the end, are no dots at the beginning of a line."""
    for raw, is_dotted in ((b"a.\r\nb.c\r\n.\r\n", False), (b".\r\n", False), (b"a\r\n..\r\n.\r\n", True)):
        assert read([raw])[1].is_dotted is is_dotted


@settings(max_examples=200)
@given(RAW)
def test_given_content_has_only_whole_line_ends(raw: bytes) -> None:
    """Whatever comes in, no bare CR or LF and no NUL comes out."""
    content, reader = read([raw + b"\r\n.\r\n"])
    if reader.fault is None:
        assert b"\0" not in content
        assert content.count(b"\n") == content.count(b"\r") == content.count(b"\r\n")


@settings(max_examples=200)
@given(CLEAN, st.data())
def test_twice_round(content: bytes, data: st.DataObject) -> None:
    """What is stuffed, whole or in blocks, is read back equal."""
    assert read([stuff(content)])[0] == content
    cut = data.draw(st.integers(0, len(content)))
    stuffer = Stuffer()
    sent = stuffer.feed(content[:cut]) + stuffer.feed(content[cut:]) + stuffer.end()
    assert sent == stuff(content)
    stuffer = Stuffer()
    assert b"".join(stuffer.feed(octet) for octet in octets_of(content)) + stuffer.end() == sent


@pytest.mark.parametrize(
    ("content", "sent"),
    [(b"", b".\r\n"), (b"a", b"a\r\n.\r\n"), (b"a\r\n", b"a\r\n.\r\n"), (b".a\r\n.\r\n", b"..a\r\n..\r\n.\r\n")],
)
def test_stuff_ends_content(content: bytes, sent: bytes) -> None:
    """The end of data always stands on a line of its own."""
    assert stuff(content) == sent


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", False),
        (b"x" * 10, False),
        (b"x" * 11, True),
        (b"x" * 10 + b"\r\n", False),
        (b"x" * 11 + b"\r\n", True),
        (b"\r\n" * 30 + b"x" * 10 + b"\r\n" + b"y" * 11 + b"\r\n", True),
        ((b"x" * 10 + b"\r\n") * 9, False),
    ],
)
def test_long_lines_are_found(content: bytes, found: bool) -> None:
    """Exactly the limit is not too long, one octet more is."""
    assert has_long_line(content, 10) is found
    scan = LongLineScan(10)
    for octet in octets_of(content):
        scan.feed(octet)
    assert scan.found is found


@settings(max_examples=150)
@given(st.lists(st.integers(0, 14), max_size=12), st.integers(1, 20))
def test_long_lines_in_any_blocks(lengths: list[int], block: int) -> None:
    """The scan agrees with looking at every line, in blocks of any size."""
    content = b"".join(b"x" * length + b"\r\n" for length in lengths)
    scan = LongLineScan(10)
    for start in range(0, len(content), block):
        scan.feed(content[start : start + block])
    assert scan.found is has_long_line(content, 10) is any(length > 10 for length in lengths)
