"""Rates: texts, pacing and sliding-window quotas, replayed on made-up clocks."""

from bisect import bisect_right

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smarthost.policy.rate import Cell, Cells, Quota, Rate, parse_rate

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("100/s", Rate(100, 1.0, 1)),
        ("100/min", Rate(100, 60.0, 1)),
        ("100/m", Rate(100, 60.0, 1)),
        ("5/30min", Rate(5, 1800.0, 1)),
        ("5/90min", Rate(5, 5400.0, 1)),
        ("1000/h", Rate(1000, 3600.0, 1)),
        ("10000/d", Rate(10000, 86400.0, 1)),
        ("100/min,max_burst=5", Rate(100, 60.0, 5)),
        (" 100 / min , max_burst = 5 ", Rate(100, 60.0, 5)),
    ],
)
def test_rates_are_read(text: str, rate: Rate) -> None:
    """Every form that the contract names is read."""
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text",
    ["", "100", "100/", "/min", "0/min", "5/0min", "5/min,max_burst=0", "5/year", "5/h,max_burst=2", "-1/s", "x/s"],
)
def test_what_is_no_rate_is_refused(text: str) -> None:
    """A text that is no rate raises with a sentence that says so."""
    with pytest.raises(ValueError, match=r"no rate|quota"):
        parse_rate(text)


def test_hours_are_quotas() -> None:
    """A period of an hour or more is counted, a shorter one is paced."""
    assert [parse_rate(text).is_quota for text in ("1/s", "1/59min", "1/60min", "1/h", "1/d")] == [0, 0, 1, 1, 1]


def test_pacing_has_a_burst_of_one() -> None:
    """Sixty a minute is one a second, not sixty at once."""
    cell = Cell(parse_rate("60/min"))
    waits = []
    for second in (0.0, 0.25, 1.0, 1.5, 2.0, 10.0, 10.0):
        waits.append(cell.wait(NOW + second))
        if not waits[-1]:
            cell.take(NOW + second)
    assert waits == pytest.approx([0.0, 0.75, 0.0, 0.5, 0.0, 0.0, 1.0])


def test_a_burst_may_come_at_once() -> None:
    """With max_burst=5 five go at once, then one an interval."""
    cell = Cell(parse_rate("60/min,max_burst=5"))
    gone = 0
    while cell.wait(NOW) == 0.0:
        cell.take(NOW)
        gone += 1
    assert gone == 5
    assert cell.wait(NOW) == pytest.approx(1.0)


rates = st.builds(Rate, st.integers(1, 200), st.sampled_from([1.0, 60.0, 1800.0]), st.integers(1, 5))


@given(rates, st.lists(st.floats(0, 5), max_size=200))
def test_pacing_never_lets_more_through_than_its_rate(rate: Rate, pauses: list[float]) -> None:
    """In no stretch of time do more go than the burst and what the rate adds."""
    cell, now, gone = Cell(rate), NOW, []
    for pause in pauses:
        now += pause * rate.period / rate.count
        if cell.wait(now) == 0.0:
            cell.take(now)
            gone.append(now)
    for first in range(len(gone)):
        for last in range(first, len(gone)):
            allowed = rate.burst + (gone[last] - gone[first] + 1e-5) * rate.count / rate.period
            assert last - first + 1 <= allowed + 1e-3


@given(rates, st.lists(st.floats(0, 3), max_size=100))
def test_waiting_as_told_is_enough(rate: Rate, pauses: list[float]) -> None:
    """After the wait that a cell names, one may go at once."""
    cells, now = Cells((rate, Rate(50, 3600.0))), NOW
    for pause in pauses:
        now += pause
        cells.take(now)
        now += cells.wait(now)
        assert cells.wait(now) <= 2e-6


@settings(max_examples=60)
@given(
    st.integers(1, 30),
    st.sampled_from([3600.0, 7200.0, 86400.0, 5400.0]),
    st.lists(st.floats(0, 0.2), min_size=1, max_size=300),
)
def test_a_quota_holds_in_every_window(count: int, period: float, pauses: list[float]) -> None:
    """However events come, no window of the period holds more than the count, and waiting as told is enough."""
    quota, now, gone = Quota(Rate(count, period)), NOW, []
    for pause in pauses:
        now += pause * period
        wait = quota.wait(now)
        if wait:
            now += wait
            while quota.wait(now):
                now += quota.wait(now)
        quota.take(now)
        gone.append(now)
    for index, end in enumerate(gone):
        assert index + 1 - bisect_right(gone, end - period) <= count


def test_a_day_of_greed_stays_under_the_quota() -> None:
    """A client that always sends as soon as it may gets the day's count, and one bucket's width later the next."""
    quota = Quota(parse_rate("1000/d"))
    for _ in range(1000):
        assert quota.wait(NOW) == 0.0
        quota.take(NOW)
    assert 86400.0 <= quota.wait(NOW) <= 86400.0 * 65 / 64
    later = NOW + quota.wait(NOW)
    assert quota.wait(later) == 0.0


def test_a_quota_survives_a_clock_that_goes_back() -> None:
    """Events of a clock that went back are counted into the newest bucket, so that none is forgotten early."""
    quota = Quota(Rate(3, 3600.0))
    quota.take(NOW)
    quota.take(NOW - 600)
    quota.take(NOW - 60)
    assert quota.wait(NOW) > 3600.0 - 60
    assert quota.wait(NOW + 3600.0 * 66 / 64) == 0.0


@pytest.mark.parametrize("back", [60.0, 3600.0, 86400.0, 366 * 86400.0])
@pytest.mark.parametrize("text", ["3/h", "3/d", "3/s", "3/min", "3/30min,max_burst=3"])
def test_a_clock_that_was_ahead_holds_nothing_back_for_ever(text: str, back: float) -> None:
    """While the clock is set back in a life, a quota waits for two periods at most, and a cell for some minutes."""
    rate = parse_rate(text)
    (meter,) = (Quota(rate) if rate.is_quota else Cell(rate),)
    for _ in range(3):
        meter.take(NOW + meter.wait(NOW))
    wait = meter.wait(NOW - back)
    assert wait <= (2.1 * rate.period if rate.is_quota else 3 * meter.reach + 60 + 1)
    assert wait > 0.0, "what has gone is not forgotten"
    assert meter.wait(NOW - back + wait) == 0.0


def test_a_quota_that_is_overdrawn_waits_for_all() -> None:
    """Taking without asking is counted too, and the wait covers the excess."""
    quota = Quota(Rate(2, 3600.0))
    for second in (0, 600, 1200, 1800):
        quota.take(NOW + second)
    wait = quota.wait(NOW + 1800)
    assert quota.wait(NOW + 1800 + wait) == 0.0
    assert 1200 + 3600 - 1800 <= wait <= 1200 + 3600 * 65 / 64 - 1800


@pytest.mark.parametrize("ended", ["stop", "crash"])
@pytest.mark.parametrize("text", ["64/h", "64/d", "64/30min,max_burst=64"])
def test_a_clock_that_is_an_hour_back_after_a_restart(text: str, ended: str) -> None:
    """What has gone counts as of the start: no more than the rest goes, and after a period and a bucket all may."""
    rate = parse_rate(text)
    meters = [Quota(rate) if rate.is_quota else Cell(rate) for _ in range(2)]
    for _ in range(30):
        meters[0].take(NOW)
    reserved = 2 if ended == "crash" else 0
    if rate.is_quota:
        meters[1].restore(meters[0].counted(NOW), reserved, NOW - 3600)
    else:
        meters[1].restore(meters[0].arrival, reserved, NOW - 3600)
    gone = 0
    while not meters[1].wait(NOW - 3600):
        meters[1].take(NOW - 3600)
        gone += 1
    assert gone <= 34 - reserved
    assert meters[1].wait(NOW - 3600) <= rate.period * 65 / 64
    assert meters[1].room(NOW - 3600 + meters[1].reach + 1) == (rate.count if rate.is_quota else rate.burst)


def test_the_longest_wait_counts() -> None:
    """Several rates apply together."""
    cells = Cells((parse_rate("10/s"), parse_rate("2/h")))
    cells.take(NOW)
    assert cells.wait(NOW) == pytest.approx(0.1)
    cells.take(NOW + 1)
    assert cells.wait(NOW + 2) > 3500


def test_no_rate_never_waits() -> None:
    """Without rates everything may go at once."""
    cells = Cells(())
    cells.take(NOW)
    assert cells.wait(NOW) == 0.0
