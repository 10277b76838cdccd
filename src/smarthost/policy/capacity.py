"""Remembers how many recipients a site takes in one transaction, learned from its refusals of one too many."""

from collections.abc import Callable, Mapping
from weakref import WeakValueDictionary

import msgspec

REMEMBERED = 86400.0  # seconds from the last refusal on
FIRST_TRIAL = 3600.0  # seconds until a quarter more is tried; twice as long after each trial that was refused
LONGEST_TRIAL = 8 * 3600.0


class Learned(msgspec.Struct, frozen=True):
    """What is known of one site, to be kept: the number, until when, when more is tried, and the pause behind that."""

    most: int
    until: float
    trial_at: float
    pause: float


class Capacity:
    """What one site is believed to take. Mutable, pure; times are Unix seconds.

    `most` is the number that it took when it refused one more with 452 or 552 (RFC 5321 4.5.3.1.10), 0 while nothing is
    known. It is tried with a quarter more after a while, and with no bound of ours after a day without a refusal.
    """

    __slots__ = ("__weakref__", "_changed", "_pause", "_trial_at", "most", "until")

    def __init__(self, changed: Callable[["Capacity"], None] = lambda capacity: None) -> None:
        """Begin with nothing known; `changed` is called when something else is known."""
        self._changed = changed
        self.most = 0
        self.until = 0.0
        self._trial_at = 0.0
        self._pause = FIRST_TRIAL

    def within(self, most: int, now: float) -> int:
        """Give how many recipients a transaction may have now, `most` at the most."""
        if not self.most:
            return most
        if now >= self.until:
            self.most, self._pause = 0, FIRST_TRIAL
            self._changed(self)
            return most
        return min(most, self.most)

    def refused(self, accepted: int, now: float) -> None:
        """Take note that one more was refused behind those that were accepted in the same transaction."""
        if self.most and accepted < self.most:
            self._pause = min(self._pause * 2, LONGEST_TRIAL)
        self.most, self.until, self._trial_at = accepted, now + REMEMBERED, now + self._pause
        self._changed(self)

    def took(self, count: int, now: float) -> None:
        """Take note that so many were taken in one transaction, and none refused as one too many."""
        if self.most and count >= self.most and now >= self._trial_at:
            self.most = count + max(count // 4, 1)
            self._trial_at = now + self._pause
            self._changed(self)

    @property
    def learned(self) -> Learned | None:
        """What is known, to be kept; None while nothing is."""
        return Learned(self.most, self.until, self._trial_at, self._pause) if self.most else None

    def restore(self, learned: Learned, now: float) -> None:
        """Go on from what was kept; a clock that was ahead does not make it last longer."""
        self.most, self.until = max(learned.most, 0), min(learned.until, now + REMEMBERED)
        self._pause = min(max(learned.pause, FIRST_TRIAL), LONGEST_TRIAL)
        self._trial_at = min(learned.trial_at, now + self._pause)


class Capacities:
    """What all sites are believed to take, by their names: one for a site, whoever asks. Mutable, pure.

    `keep` is called with a site and what is known of it now, None for nothing.
    """

    def __init__(self) -> None:
        """Begin with nothing known."""
        self.keep: Callable[[str, Learned | None], None] = lambda site, learned: None
        self._known: WeakValueDictionary[str, Capacity] = WeakValueDictionary()
        self._learned: dict[str, Capacity] = {}  # holds those of which something is known

    def of(self, site: str) -> Capacity:
        """Give a site's, made if it is not there."""
        known = self._known.get(site)
        if known is None:
            known = self._known[site] = Capacity(lambda capacity: self._changed(site, capacity))
        return known

    def restore(self, kept: Mapping[str, Learned], now: float) -> None:
        """Take what a life before has kept; what is over is not kept any more."""
        for site, learned in kept.items():
            if learned.until > now and learned.most > 0:
                self._learned[site] = self.of(site)
                self._learned[site].restore(learned, now)
            else:
                self.keep(site, None)

    def tidy(self, now: float) -> None:
        """Forget what is over."""
        for capacity in [each for each in self._learned.values() if each.until <= now]:
            capacity.within(0, now)

    def _changed(self, site: str, capacity: Capacity) -> None:
        learned = capacity.learned
        if learned is None:
            self._learned.pop(site, None)
        else:
            self._learned[site] = capacity
        self.keep(site, learned)
