"""Remembers how many recipients a site takes in one transaction, learned from its refusals of one too many."""

REMEMBERED = 86400.0  # seconds from the last refusal on
FIRST_TRIAL = 3600.0  # seconds until a quarter more is tried; twice as long after each trial that was refused
LONGEST_TRIAL = 8 * 3600.0


class Capacity:
    """What one site is believed to take. Mutable, pure; times are Unix seconds.

    `most` is the number that it took when it refused one more with 452 or 552 (RFC 5321 4.5.3.1.10), 0 while nothing is
    known. It is tried with a quarter more after a while, and with no bound of ours after a day without a refusal.
    """

    __slots__ = ("_pause", "_trial_at", "most", "until")

    def __init__(self) -> None:
        """Begin with nothing known."""
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
            return most
        return min(most, self.most)

    def refused(self, accepted: int, now: float) -> None:
        """Take note that one more was refused behind those that were accepted in the same transaction."""
        if self.most and accepted < self.most:
            self._pause = min(self._pause * 2, LONGEST_TRIAL)
        self.most, self.until, self._trial_at = accepted, now + REMEMBERED, now + self._pause

    def took(self, count: int, now: float) -> None:
        """Take note that so many were taken in one transaction, and none refused as one too many."""
        if self.most and count >= self.most and now >= self._trial_at:
            self.most = count + max(count // 4, 1)
            self._trial_at = now + self._pause
