"""Decides how long to wait before one more may go: pacing cells for seconds and minutes, quotas for hours and days."""

import re
from collections import deque
from collections.abc import Iterable
from types import MappingProxyType
from typing import Protocol

import msgspec

_UNITS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_NAMES = MappingProxyType({1.0: "s", 60.0: "min", 3600.0: "h", 86400.0: "d"})
_RATE = re.compile(r"(\d+)\s*/\s*(\d*)\s*([a-z]+)(?:\s*,\s*max_burst\s*=\s*(\d+))?", re.IGNORECASE)
_QUOTA_FROM = 3600.0  # seconds; a period this long or longer is a quota, a shorter one is paced
_BUCKETS = 64  # a power of two, so that the width of a bucket times their number is the period exactly
_LEAP = 60.0  # seconds by which a clock must have been set back at the least for a pacing cell to believe it
_GRAIN = 1e-6  # seconds; Unix time as a float is no finer than a quarter of this
_MANY = 1 << 40  # more than any rate lets through at once


class Rate(msgspec.Struct, frozen=True):
    """At most `count` in `period` seconds; `burst` of them may come at once where the rate is paced."""

    count: int
    period: float
    burst: int = 1

    def __str__(self) -> str:
        """Write it as in the configuration: "100/min", "5/s,max_burst=10"."""
        unit = _NAMES.get(self.period) or f"{self.period:.0f}s"
        return f"{self.count}/{unit}" + (f",max_burst={self.burst}" if self.burst > 1 else "")

    @property
    def is_quota(self) -> bool:
        """Whether it is counted in a sliding window (an hour or longer) rather than paced."""
        return self.period >= _QUOTA_FROM


class Meter(Protocol):
    """What counts against one rate."""

    def wait(self, now: float) -> float:
        """Give the seconds until one may go; 0.0 means at once."""

    def room(self, now: float) -> int:
        """Give how many may go at once."""

    def take(self, now: float, count: int = 1) -> None:
        """Count what goes at `now`."""


def parse_rate(text: str) -> Rate:
    """Read "100/min", "100/30min", "5/s,max_burst=10" or "10000/d"; raises ValueError with a sentence."""
    found = _RATE.fullmatch(text.strip())
    unit = _UNITS.get(found.group(3).lower()) if found else None
    if found is None or unit is None:
        raise ValueError(f'{text!r} is no rate; write N/period[,max_burst=M] as in "100/min", period in s, min, h or d')
    count, number, burst = int(found.group(1)), int(found.group(2) or 1), int(found.group(4) or 1)
    if not (count and number and burst):
        raise ValueError(f"{text!r} is no rate; its numbers must be 1 or more")
    rate = Rate(count, float(number * unit), burst)
    if rate.is_quota and found.group(4):
        raise ValueError(f"{text!r} is a quota of an hour or more, which has no max_burst; that is for s and min")
    return rate


class Cell:
    """The generic cell rate algorithm (ITU-T I.371): spaces events by period/count, less a burst.

    Mutable; one for each limited thing. `wait` asks, `take` counts; taking before the wait is over pushes the next
    one further away.
    """

    def __init__(self, rate: Rate) -> None:
        """Start full: the first `burst` may go at once."""
        self._interval = rate.period / rate.count
        self._tolerance = self._interval * (rate.burst - 1)
        self.arrival = float("-inf")  # theoretical arrival time of the next event

    @property
    def reach(self) -> float:
        """Seconds for which what has gone may matter: after them the whole burst may go again."""
        return self._interval + self._tolerance

    def is_fresh(self, now: float) -> bool:
        """Whether nothing is remembered: the whole burst may go."""
        return self.arrival <= now

    def restore(self, arrival: float, more: int, now: float) -> None:
        """Go on from an arrival time that was kept, and `more` that may have gone since, at the latest by `now`."""
        self.arrival = min(max(arrival, now) + more * self._interval if more else arrival, now + self.reach)

    def wait(self, now: float) -> float:
        """Give the seconds until one may go; 0.0 means at once.

        A wait that no taking explains means that the clock was set back: mail shall not wait for as long as it was.
        """
        left = self.arrival - self._tolerance - now
        if left > 3 * self.reach + _LEAP:
            self.arrival = now + self.reach
            left = self.arrival - self._tolerance - now
        return left if left > _GRAIN else 0.0

    def room(self, now: float) -> int:
        """Give how many may go at once."""
        ahead = max(self.arrival - now, 0.0)
        return max(int((self._tolerance - ahead + _GRAIN) // self._interval) + 1, 0)

    def take(self, now: float, count: int = 1) -> None:
        """Count what goes at `now`."""
        self.arrival = max(self.arrival, now) + count * self._interval


class Quota:
    """A count in a sliding window that is never exceeded, wherever the window is laid.

    Events are counted in 64 buckets a period; the bucket of now and the 64 before it cover every window that ends
    now, so the count is conservative by one bucket at most. A clock that goes back counts into the newest bucket; one
    that goes back by more than a period has what was counted count as of now. Mutable.
    """

    def __init__(self, rate: Rate) -> None:
        """Start empty: the whole count may go at once."""
        self.count = rate.count
        self._width = rate.period / _BUCKETS
        self._buckets: deque[tuple[int, int]] = deque()  # (number of the bucket since 1970, events in it)
        self._total = 0

    def wait(self, now: float) -> float:
        """Give the seconds until one may go; 0.0 means at once."""
        self._forget(now)
        excess = self._total - self.count
        if excess < 0:
            return 0.0
        for bucket, events in self._buckets:
            excess -= events
            if excess < 0:
                return max((bucket + _BUCKETS + 1) * self._width - now, _GRAIN)
        raise AssertionError("a full quota has events to forget")

    def room(self, now: float) -> int:
        """Give how many may go at once."""
        self._forget(now)
        return max(self.count - self._total, 0)

    def take(self, now: float, count: int = 1) -> None:
        """Count what goes at `now`."""
        self._forget(now)
        bucket = int(now // self._width)
        if self._buckets and self._buckets[-1][0] >= bucket:
            bucket, events = self._buckets.pop()
            self._buckets.append((bucket, events + count))
        else:
            self._buckets.append((bucket, count))
        self._total += count

    @property
    def reach(self) -> float:
        """Seconds for which what has gone may matter."""
        return (_BUCKETS + 1) * self._width

    def is_fresh(self, now: float) -> bool:
        """Whether nothing is remembered: the whole count may go."""
        self._forget(now)
        return not self._buckets

    def counted(self, now: float) -> tuple[tuple[int, int], ...]:
        """Give what is counted, as pairs of a bucket's number and its events, to be kept."""
        self._forget(now)
        return tuple(self._buckets)

    def restore(self, counted: Iterable[tuple[int, int]], more: int, now: float) -> None:
        """Go on from what was kept, and `more` that may have gone since, at the latest by `now`."""
        newest = int(now // self._width)
        events: dict[int, int] = {}
        for bucket, count in (*counted, (newest, more)):
            # A clock that was ahead must not hold mail back for as long as it was.
            place = min(bucket, newest)
            events[place] = events.get(place, 0) + count
        self._buckets = deque(sorted((bucket, count) for bucket, count in events.items() if count))
        self._total = sum(count for _, count in self._buckets)

    def _forget(self, now: float) -> None:
        newest = int(now // self._width)
        if self._buckets and self._buckets[-1][0] > newest + _BUCKETS:
            self.restore(self._buckets, 0, now)
        oldest = newest - _BUCKETS
        while self._buckets and self._buckets[0][0] < oldest:
            self._total -= self._buckets.popleft()[1]


class Cells:
    """Several rates that apply together. Mutable; the longest wait counts."""

    def __init__(self, rates: Iterable[Rate] = (), meters: Iterable[Meter] = ()) -> None:
        """Make a cell or a quota for each rate, beside meters that are there already; none never waits."""
        made = (Quota(rate) if rate.is_quota else Cell(rate) for rate in rates)
        self._cells: tuple[Meter, ...] = (*meters, *made)

    def joined(self, more: "Cells") -> "Cells":
        """Give the rates of both as one: what is counted there is counted in both."""
        return Cells((), (*self._cells, *more._cells))

    def wait(self, now: float) -> float:
        """Give the seconds until one may go; 0.0 means at once."""
        longest = 0.0
        for cell in self._cells:
            longest = max(longest, cell.wait(now))
        return longest

    def waits(self, now: float) -> list[float]:
        """Give the seconds of each rate, in their order."""
        return [cell.wait(now) for cell in self._cells]

    def room(self, now: float) -> int:
        """Give how many may go at once; a great number where there is no rate."""
        least = _MANY
        for cell in self._cells:
            least = min(least, cell.room(now))
        return least

    def take(self, now: float, count: int = 1) -> None:
        """Count what goes at `now` in every rate."""
        for cell in self._cells:
            cell.take(now, count)
