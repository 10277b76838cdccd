"""Long contents are taken out of JSON however its octets come; the rest stays as it is."""

import json
from base64 import b64encode

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smarthost.compose import long_contents
from smarthost.compose.long_contents import LONG, LongContents

UNIQUE = b"u" * 18


def scanned(octets: bytes, sizes: list[int], room: int = 10**9) -> tuple[LongContents, bytes]:
    """Feed octets in blocks of some sizes, again and again; gives the scan and what was taken out."""
    scan, taken, at, turn = LongContents(UNIQUE, room), [], 0, 0
    while at < len(octets):
        size = sizes[turn % len(sizes)]
        taken.append(scan.feed(octets[at : at + size]))
        at, turn = at + size, turn + 1
    return scan, b"".join(taken)


def written(content: bytes, lines: int = 0) -> str:
    """Give base64, in lines where that is wanted."""
    text = b64encode(content).decode()
    return text if not lines else "\r\n".join(text[at : at + lines] for at in range(0, len(text), lines))


@given(
    st.binary(max_size=300),
    st.lists(st.integers(1, 40), min_size=1, max_size=4),
    st.sampled_from([0, 76]),
    st.sampled_from([None, 1]),
    st.text(max_size=60),
    st.booleans(),
)
@settings(deadline=None)
def test_any_split_gives_the_same(
    content: bytes, sizes: list[int], lines: int, indent: int | None, text: str, escaped: bool
) -> None:
    """What a decoder reads of the rest, with what was taken out put back, is what it reads of the whole."""
    attachment = {"filename": "content", "content": written(content, lines), "x": {"content": [text]}}
    whole = {"text": text * 3, "attachments": [attachment, attachment]}
    octets = json.dumps(whole, indent=indent, ensure_ascii=escaped).encode()
    if escaped:
        octets = octets.replace(b"=", rb"\u003d").replace(b"/", rb"\/")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_contents, "LONG", 20)
        scan, taken = scanned(octets, sizes)
    found = msgspec.json.decode(bytes(scan.kept))
    for each in found["attachments"]:
        if scan.spans:
            span = scan.spans[msgspec.convert(each["content"], bytes)]
            assert span.is_good and taken[span.offset : span.offset + span.size] == content
            each["content"] = attachment["content"]
    assert found == whole
    assert len(scan.spans) == 2 or len(attachment["content"]) <= 20


@pytest.mark.parametrize("wrong", ["!", "=", "A", "AA==A", r"\u00e9", r"\b", "\n"])
def test_what_is_not_base64_is_told(wrong: str) -> None:
    """A character that is none, padding too early, too few of it, and other escapes."""
    text = "A" * (LONG + 4) + wrong
    scan, _ = scanned(b'{"content": "%s%s"}' % (text.encode(), b"AAAA" if wrong == "=" else b""), [1000])
    assert [span.is_good for span in scan.spans.values()] == [False]


def test_what_is_short_or_no_content_stays() -> None:
    """A long text under another name, a long key and a short content are in the rest, octet for octet."""
    long = r"x\"" * LONG
    octets = f'{{"text": "{long}", "content": "QUJD", "{long}": ["content", "{long}"], "content" "{long}"'.encode()
    scan, taken = scanned(octets, [777])
    assert scan.kept == octets and not taken and not scan.spans


def test_no_more_is_given_than_there_is_room_for() -> None:
    """What is beyond is counted, so that it can be said, and is nowhere."""
    octets = b'[{"content": "%s"}]' % b64encode(b"x" * 300_000)
    scan, taken = scanned(octets, [65536], room=100_000)
    assert len(taken) <= 100_000 and [span.size for span in scan.spans.values()] == [300_000]
