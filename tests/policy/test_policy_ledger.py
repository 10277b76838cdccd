"""Ledger: what rates remember outlives their users, stops and crashes, and a crash lets nothing through twice."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smarthost.policy.ledger import GRANT_WAIT, Ledger, LimitState
from smarthost.policy.rate import Cells, Rate, parse_rate

NOW = 1_800_000_000.0


class Disk:
    """Rows that were written, some of them not yet told of; a life is a ledger on top of them."""

    def __init__(self) -> None:
        """Begin empty."""
        self.rows: dict[str, bytes] = {}
        self.told: list[Callable[[], None]] = []
        self.is_asked = False
        self.writes = 0
        self.ledger = Ledger()
        self.ledger.ask = self.ask

    def ask(self) -> None:
        """Note that rows are to be written."""
        self.is_asked = True

    def write(self, now: float, *, is_last: bool = False) -> None:
        """Write what is to be written and tell of it."""
        if self.is_asked or is_last:
            self.is_asked = False
            self.writes += 1
            rows, kept = self.ledger.write(now, is_last=is_last)
            self.rows |= {row.name: row.state for row in rows}
            self.rows = {name: state for name, state in self.rows.items() if state}
            kept()

    def begin_again(self, now: float) -> None:
        """Begin a life on what is on disk."""
        self.ledger = Ledger()
        self.ledger.ask = self.ask
        self.ledger.restore([LimitState(*row) for row in self.rows.items()], now)


def fill(cells: Cells, disk: Disk, now: float) -> int:
    """Take as many as go at once, with the disk as quick as can be; gives how many."""
    gone = 0
    while True:
        disk.write(now)
        if cells.wait(now):
            return gone
        cells.take(now)
        gone += 1


def test_the_same_name_gets_the_same_cells() -> None:
    """Who asks again with the same rates counts on; a quota's number may change, and what was counted stands."""
    disk = Disk()
    assert fill(disk.ledger.cells("x", [parse_rate("10/h")]), disk, NOW) == 10
    assert disk.ledger.cells("x", [parse_rate("10/h")]).wait(NOW) > 3000
    assert fill(disk.ledger.cells("x", [parse_rate("15/h")]), disk, NOW) == 5
    assert fill(disk.ledger.cells("y", [parse_rate("15/h")]), disk, NOW) == 15


@pytest.mark.parametrize("text", ["100/h", "1/d", "20/30min,max_burst=20"])
def test_a_stop_forgets_nothing_and_costs_nothing(text: str) -> None:
    """After an orderly end the next life may send exactly the rest."""
    disk, rate = Disk(), parse_rate(text)
    cells = disk.ledger.cells("x", [rate])
    whole = rate.count if rate.is_quota else rate.burst
    for _ in range(whole // 2):
        disk.write(NOW)
        cells.take(NOW)
    disk.write(NOW, is_last=True)
    disk.begin_again(NOW + 1)
    rest = fill(disk.ledger.cells("x", [rate]), disk, NOW + 1)
    assert rest == whole - whole // 2


def test_a_crash_costs_a_block_at_most() -> None:
    """After a crash no more than a 32nd of the quota is lost, and nothing is let through twice."""
    disk, rate = Disk(), Rate(640, 3600.0)
    cells = disk.ledger.cells("x", [rate])
    for _ in range(300):
        disk.write(NOW)
        assert cells.wait(NOW) == 0.0
        cells.take(NOW)
    assert disk.writes < 300 / 10 + 2
    disk.begin_again(NOW + 1)
    assert 320 <= fill(disk.ledger.cells("x", [rate]), disk, NOW + 1) <= 340


def test_a_strict_cell_waits_for_the_disk_and_another_does_not() -> None:
    """Nothing goes before the disk covers it, a moment at most; cells that are not strict go on."""
    ledger = Ledger()
    strict, other = ledger.cells("x", [Rate(9, 3600.0)]), ledger.cells("y", [Rate(9, 3600.0)], is_strict=False)
    assert strict.wait(NOW) == GRANT_WAIT and strict.room(NOW) == 0
    assert other.wait(NOW) == 0.0 and other.room(NOW) == 9
    ledger.write(NOW)[1]()
    assert strict.wait(NOW) == 0.0 and strict.room(NOW) == 1


def test_a_short_cell_begins_empty_after_a_life() -> None:
    """What remembers a few seconds is not written; the first life begins at once, a later one after those seconds."""
    disk = Disk()
    rate = parse_rate("2/s,max_burst=4")
    assert fill(disk.ledger.cells("x", [rate]), disk, NOW) == 4
    disk.begin_again(NOW)
    cells = disk.ledger.cells("x", [rate])
    assert cells.wait(NOW) == pytest.approx(0.5) and not disk.rows
    assert cells.room(NOW + 2.0) == 4


def test_what_remembers_nothing_is_forgotten() -> None:
    """A name that nobody uses, and whose time is over, leaves memory and disk; one that still counts does not."""
    disk = Disk()
    fill(disk.ledger.cells("x", [Rate(3, 3600.0)]), disk, NOW)
    disk.ledger.tidy(NOW + 1800)
    assert disk.ledger.cells("x", [Rate(3, 3600.0)]).wait(NOW + 1800) > 0
    disk.ledger.tidy(NOW + 4000)
    disk.ledger.tidy(NOW + 4001)
    disk.write(NOW + 4001)
    assert disk.rows == {} and not disk.ledger._held and not disk.ledger._known
    disk.rows = {"old /3600": b'{"reach":3660.0,"counted":[[1,5]]}', "torn": b"{"}
    disk.begin_again(NOW)
    disk.ledger.tidy(NOW + 3661)
    disk.write(NOW + 3661)
    assert disk.rows == {}


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["32/h", "100/h", "3/d", "40/30min,max_burst=40"]),
    st.lists(st.tuples(st.integers(1, 50), st.booleans()), max_size=30),
)
def test_many_at_once_stay_within_the_block(text: str, takes: list[tuple[int, bool]]) -> None:
    """Whoever takes several at once, as recipients are, gets no more than the disk knows of: over crashes, too."""
    rate, disk, gone = parse_rate(text), Disk(), 0
    cells = disk.ledger.cells("x", [rate])
    for wanted, crashes in takes:
        count = min(cells.room(NOW), wanted)
        if count:
            cells.take(NOW, count)
            gone += count
        if crashes:
            disk.begin_again(NOW)
            cells = disk.ledger.cells("x", [rate])
        else:
            disk.write(NOW)
    assert gone <= (rate.count if rate.is_quota else rate.burst)


rates = st.sampled_from(["1/h", "10/h", "100/h", "1000/2h", "6/30min,max_burst=3", "10/min,max_burst=40", "5/s"])
steps = st.lists(
    st.tuples(st.floats(0, 900), st.sampled_from(["go", "go", "go", "fill", "stop", "crash"])), max_size=40
)


@settings(max_examples=200, deadline=None)
@given(rates, steps, st.booleans())
def test_no_window_is_exceeded_over_any_lives(text: str, steps: list[tuple[float, str]], strict: bool) -> None:
    """Whatever stops and crashes: no window has more than the quota in it, no stretch more than burst and rate."""
    rate, disk, now, gone = parse_rate(text), Disk(), NOW, []
    cells = disk.ledger.cells("x", [rate], is_strict=strict)
    for pause, step in steps:
        now += pause
        if step in ("go", "fill"):
            times = fill(cells, disk, now) if step == "fill" else 0
            disk.write(now)
            if step == "go" and not cells.wait(now):
                cells.take(now)
                times = 1
                # What is not strict is on disk together with what it counts.
                disk.write(now) if not strict else None
            gone += [now] * times
            continue
        if step == "stop":
            disk.write(now, is_last=True)
        disk.begin_again(now)
        cells = disk.ledger.cells("x", [rate], is_strict=strict)
    for index, first in enumerate(gone):
        for count, last in enumerate(gone[index:], 1):
            if rate.is_quota:
                assert last - first >= rate.period or count <= rate.count
            else:
                assert count <= rate.burst + (last - first) * rate.count / rate.period + 1e-3
