"""Lines of keys and units of values: the walk over TOML finds what the parser finds, and units mean what they say."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smarthost.config_read import read_duration, read_size
from smarthost.config_source import find_lines

CONF = Path(__file__).parent.parent / "conf"

TRICKY = '''\
# [not.a.table]
title = "a # no comment"   # a comment
"quoted key" = 'literal'
site."google.com".x = 1
[a.b]   # comment
c = [ 1, 2,
  { d = "}", e = [ "]" ] }, # here
  [ 3,
    4 ],
]
text = """
f = 1
\\"""  [g]
"""
raw = \'\'\'
[h]
\'\'\'
after = 1979-05-27T07:32:00Z
[[t]]
x = 1
[t.u]
y = 2
[[t.v]]
z = 1
[[t.v]]
z = 2
[[t]]
x = { y = { z = 1 } }
'''


def test_lines_are_found_everywhere() -> None:
    """Keys in tables, arrays, inline tables and arrays of tables, behind strings of every kind, have their lines."""
    lines = find_lines(TRICKY)
    expected = {
        ("title",): 2,
        ("quoted key",): 3,
        ("site", "google.com", "x"): 4,
        ("a", "b"): 5,
        ("a", "b", "c"): 6,
        ("a", "b", "c", 1): 6,
        ("a", "b", "c", 2, "d"): 7,
        ("a", "b", "c", 2, "e", 0): 7,
        ("a", "b", "c", 3, 1): 9,
        ("a", "b", "text"): 11,
        ("a", "b", "raw"): 15,
        ("a", "b", "after"): 18,
        ("t", 0, "x"): 20,
        ("t", 0, "u", "y"): 22,
        ("t", 0, "v", 0, "z"): 24,
        ("t", 0, "v", 1, "z"): 26,
        ("t", 1): 27,
        ("t", 1, "x", "y", "z"): 28,
    }
    assert {path: lines.get(path) for path in expected} == expected
    assert ("f",) not in lines
    assert ("g",) not in lines


def _paths(value: Any, path: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = {path} if path else set()
    for key, part in inner:
        found |= _paths(part, (*path, key))
    return found


@pytest.mark.parametrize("text", [TRICKY, (CONF / "smarthost.toml").read_text(), (CONF / "minimal.toml").read_text()])
def test_every_path_of_a_file_has_a_line(text: str) -> None:
    """The walk finds exactly the paths that the TOML parser finds."""
    assert set(find_lines(text)) == _paths(tomllib.loads(text))


scalars = st.sampled_from(['"a]b"', "'x#y'", "12", "true", '"""a\n]"""', "1.5", r'"\"}"', "1979-05-27 07:32:00"])
keys = st.sampled_from(["a", "b", '"c d"', "'e.f'", "g-h"])
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda some: "[\n" + ", # c\n".join(some) + "\n]"),
        st.dictionaries(keys, inner, max_size=3).map(
            lambda some: "{" + ", ".join(f"{key} = {value}" for key, value in some.items()) + "}"
        ),
    ),
    max_leaves=6,
)


@given(st.lists(st.tuples(st.sampled_from(["", "[t]", "[[u]]", "[[u.v]]"]), st.dictionaries(keys, values)), max_size=5))
def test_the_walk_agrees_with_the_parser(parts: list[tuple[str, dict[str, str]]]) -> None:
    """For any valid file the walk finds exactly the paths that the parser finds, each on a line that exists."""
    text = ""
    for number, (header, table) in enumerate(parts):
        text += f"{header}\n" if header else f"[s{number}]\n"
        text += "".join(f"{key} = {value}\n" for key, value in table.items())
    try:
        parsed = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    lines = find_lines(text)
    assert set(lines) == _paths(parsed)
    assert all(1 <= line <= text.count("\n") + 1 for line in lines.values())


@pytest.mark.parametrize(
    ("text", "octets"),
    [("35MiB", 36_700_160), ("10MB", 10_000_000), ("1 KiB", 1024), ("7", 7), (7, 7), ("2GiB", 2**31)],
)
def test_sizes(text: object, octets: int) -> None:
    """Binary and decimal units mean what they say."""
    assert read_size(text) == octets


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("8s", 8.0), ("5m", 300.0), ("90min", 5400.0), ("2h", 7200.0), ("5d", 432000.0), ("500ms", 0.5), ("1.5h", 5400.0)],
)
def test_durations(text: str, seconds: float) -> None:
    """Units from milliseconds to weeks are read."""
    assert read_duration(text) == pytest.approx(seconds)
