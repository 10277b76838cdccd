"""Tables, ages and sizes as people see them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smarthost.cli.queue_format import format_message, format_queue
from smarthost.cli.table import format_age, format_fields, format_size, format_table

ROW = {
    "id": "0S3MGHH24900",
    "entry": 1,
    "queue": "relayhost",
    "sender": "",
    "recipients": ["a@example.net", "b@example.net", "c@example.net"],
    "arrived": "2026-01-01T00:00:00.000Z",
    "size": 10_240,
    "attempts": 3,
    "why": "retry",
    "due": "2026-01-01T01:05:00.000Z",
    "expires": "2026-01-06T00:00:00.000Z",
    "last": "451 4.3.0 try later (smtp.example.net)",
}
NOW = 1_767_229_200.0  # 2026-01-01T01:00:00Z


def test_queue_table() -> None:
    """The table shows age, attempts, next try, reason, sender, recipients and the last reply, aligned."""
    parked = ROW | {"due": None, "why": "held", "recipients": ["a@example.net"], "sender": "x@example.org", "last": ""}
    assert format_queue([ROW, parked], NOW, 200) == (
        "ID            AGE    SIZE   TRIES  NEXT      WHY    SENDER           RECIPIENTS        LAST REPLY\n"
        "0S3MGHH24900  1h00m  10.0K  3      in 5m00s  retry  <>               a@example.net +2"
        "  451 4.3.0 try later (smtp.example.net)\n"
        "0S3MGHH24900  1h00m  10.0K  3      -         held   <x@example.org>  a@example.net\n"
    )


def test_what_holds_a_site_is_shown_instead() -> None:
    """Where the whole site is held, the table says by what, and when it ends."""
    cause = "rule my-rule, suspend, after: 451 4.7.28 too much mail"
    held = ROW | {"why": "automation", "until": "2026-01-01T01:30:00.000Z", "cause": cause}
    row = format_queue([held], NOW, 200).splitlines()[1]
    assert "in 30m00s  automation" in row and row.endswith(cause)


def test_wide_columns_give_way_first() -> None:
    """In a narrow terminal the longest cells are cut and end in an ellipsis, the short ones stay whole."""
    assert format_table(("ID", "TEXT"), [("abc", "x" * 50), ("d", "y")], 20) == (
        "ID   TEXT\nabc  xxxxxxxxxxxxxx…\nd    y\n"
    )


def test_control_characters_are_not_obeyed() -> None:
    """What a peer put into its reply cannot move the cursor."""
    assert format_table(("A",), [("\x1b[2J\n\x9b",)], 80) == "A\n?[2J??\n"


def test_wide_marks_count_twice() -> None:
    """East Asian wide characters take two columns, combining marks none."""
    assert format_table(("A", "B"), [("日本", "x"), ("e\u0301", "y")], 80) == "A     B\n日本  x\ne\u0301     y\n"


@given(
    st.lists(st.tuples(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40)), max_size=5),
    st.integers(30, 120),
)
def test_table_is_always_one_line_a_row(rows: list[tuple[str, str, str]], width: int) -> None:
    """Whatever is in the cells, each row is one line."""
    text = format_table(("A", "B", "C"), rows, width)
    assert len(text.splitlines()) <= text.count("\n") == len(rows) + 1


def test_table_fits() -> None:
    """Lines are never wider than the terminal as long as it has some columns at all."""
    text = format_queue([ROW | {"sender": "a" * 60 + "@example.org", "last": "z" * 400}], NOW, 100)
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0s"), (59.9, "59s"), (60, "1m00s"), (3661, "1h01m"), (86_400 * 2 + 3600 * 4, "2d04h")],
)
def test_ages(seconds: float, text: str) -> None:
    """An age has its two largest units."""
    assert format_age(seconds) == text


@pytest.mark.parametrize(("octets", "text"), [(0, "0"), (999, "999"), (1000, "1.0K"), (10_485_760, "10.0M")])
def test_sizes(octets: int, text: str) -> None:
    """A size has one unit."""
    assert format_size(octets) == text


def test_fields_leave_out_what_is_empty() -> None:
    """Names are aligned, and nothing is shown for a field without a value; 0 is a value."""
    assert (
        format_fields([("a", 0), ("long name", "x"), ("none", None), ("empty", "")]) == "        a  0\nlong name  x\n"
    )


def test_message_page() -> None:
    """A message is shown with its envelope, its entries and its events."""
    events = [
        {
            "time": "2026-01-01T00:00:00.000Z",
            "event": "delayed",
            "recipient": "a@example.net",
            "code": 451,
            "status": "4.3.0",
            "reply": "later",
            "seconds": {"queued": 0.001},
        }
    ]
    page = format_message({"message": {"id": ROW["id"], "sender": ""}, "entries": [ROW], "events": events}, NOW)
    assert "sender  <>" in page
    assert "next try  2026-01-01T01:05:00.000Z (in 5m00s)" in page
    assert "2026-01-01T00:00:00.000Z delayed   to <a@example.net> (451 4.3.0 later) queued=1.0ms" in page
