"""The JSON cutter: whatever the blocks, the same members come out, and a decoder agrees with what they are."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from smarthost.compose.json_cutter import JsonCutter

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(['"', "\\", "}", "]", '\\"']),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(max_size=5).filter(lambda name: name != "items"), VALUES, max_size=4)


def cut(octets: bytes, size: int, most: int = 1000) -> tuple[JsonCutter, list[tuple[str, Any]]]:
    """Feed blocks of a size; gives the members, decoded."""
    cutter, found = JsonCutter("items", most), []
    for start in range(0, len(octets), size):
        found += cutter.feed(octets[start : start + size])
    return cutter, [(json.loads(name), json.loads(value)) for name, value in found]


@given(OBJECTS, st.lists(VALUES, max_size=6), st.integers(0, 4), st.sampled_from([1, 2, 7, 10_000]), st.booleans())
def test_any_blocks_give_the_same(
    others: dict[str, Any], items: list[Any], place: int, size: int, is_loose: bool
) -> None:
    """The array may stand anywhere among the members, and blanks between marks."""
    members = list(others.items())
    members.insert(place, ("items", items))
    octets = json.dumps(dict(members), indent=1 if is_loose else None, ensure_ascii=is_loose).encode()
    cutter, found = cut(octets, size)
    assert cutter.is_whole and not cutter.fault
    assert [value for name, value in found if name == "items"] == items
    assert {name: value for name, value in found if name != "items"} == others


def test_what_is_no_object_is_refused() -> None:
    """Each breach of the structure has its sentence, and nothing is given behind it."""
    for octets, fault in (
        (b"[]", "it is no object"),
        (b'{"a" 1}', 'a ":" is missing'),
        (b'{"a":1 "b":2}', 'a "," or "}" is missing'),
        (b'{"a":,}', "a value is missing"),
        (b'{"a":1,}', "the name of a member is missing"),
        (b'{"items":[{}, ]}', "a value is missing"),
        (b'{"items":[{} {}]}', 'a "," or "]" is missing'),
        (b'{"items":{}}', '"items" is no array'),
        (b'{"items":[],"items":[]}', '"items" is there twice'),
        (b"{} x", "something stands behind its end"),
    ):
        for size in (1, 100):
            cutter, _ = cut(octets, size)
            assert cutter.fault == fault, octets
            assert cutter.feed(b"{}") == [] and not cutter.is_whole


def test_what_is_too_long_or_ends_early() -> None:
    """No part is held that is longer than it may be, and what has no end is not whole."""
    for octets in (b'{"items":[{"a":"' + b"x" * 3000, b'{"' + b"y" * 3000, b'{"a":' + b"[" * 3000):
        cutter, found = cut(octets, 100)
        assert "longer than 1000 octets" in cutter.fault and not found
    cutter, found = cut(b'{"items":[{"a":1},{"a"', 3)
    assert not cutter.fault and not cutter.is_whole and found == [("items", {"a": 1})]
