"""Decides how many sessions a site may have: grows with success, shrinks with failure, and probes a dead site."""

from enum import StrEnum

INITIAL = 5  # sessions before anything is known (Postfix: initial_destination_concurrency)
DEAD_AFTER = 10  # failures in a row that make a site dead even while sessions are open
FIRST_PAUSE = 60.0  # seconds; doubles with each probe that fails
LONGEST_PAUSE = 900.0  # seconds


class State(StrEnum):
    """Whether a site is in use, left alone for a while, or being tried with one session."""

    READY = "ready"
    THROTTLED = "throttled"
    PROBING = "probing"


class Window:
    """The sessions of one site. Mutable, pure; times are Unix seconds.

    A place is taken with `opened` when dialling starts and given back with `closed`; `open` counts places and `limit`
    says how many there may be now. `failed` is called while the session that failed still holds its place. READY
    becomes THROTTLED, until `until`, when a site is dead; then `may_open` allows one session, and `opened` makes it
    PROBING; success leads to READY from anywhere, a failed probe back to THROTTLED for twice as long.
    """

    def __init__(self, maximum: int) -> None:
        """Start READY with room for a few sessions; `maximum` may be changed later."""
        self.maximum = maximum
        self.limit = min(INITIAL, maximum)
        self.open = 0
        self.state = State.READY
        self.until = 0.0
        self._failures = 0
        self._pause = FIRST_PAUSE

    @property
    def bounds(self) -> tuple[int, int]:
        """Give how many places are taken, and how many may be while nothing is wrong."""
        return self.open, min(self.limit, self.maximum)

    def may_open(self, now: float) -> bool:
        """Whether one more session may be opened now."""
        if self.state is State.READY:
            return self.open < min(self.limit, self.maximum)
        # A probe that ended without a verdict, as by a shutdown, leaves room for another one.
        return now >= self.until and (self.state is State.THROTTLED or not self.open)

    def opened(self) -> None:
        """Take a place, after `may_open` said yes."""
        self.open += 1
        if self.state is State.THROTTLED:
            self.state = State.PROBING

    def closed(self) -> None:
        """Give a place back, whatever became of the session."""
        self.open -= 1

    def succeeded(self) -> None:
        """Count a session that could be opened, or a transaction that the site answered."""
        self._failures = 0
        if self.state is not State.READY:
            self._pause = FIRST_PAUSE
            self.until = 0.0
            self.limit = min(INITIAL, self.maximum)
            self.state = State.READY
        elif self.limit < self.maximum and self.limit < self.open + INITIAL:
            # Growth without use would prove nothing, so the limit stays within reach of what is open.
            self.limit += 1

    def failed(self, now: float) -> None:
        """Count a connection or handshake that failed, or a verdict of scope SITE; never a message's refusal."""
        if self.state is State.PROBING:
            self._pause = min(self._pause * 2, LONGEST_PAUSE)
            self._throttle(now + self._pause)
        elif self.state is State.READY:
            self._failures += 1
            self.limit = max(1, self.limit - 1)
            if self._failures >= DEAD_AFTER or self.open <= 1:
                self._throttle(now + self._pause)

    def pause(self, until: float) -> None:
        """Leave the site alone until a Unix time at least, as after a refused login; then one probe goes."""
        self._throttle(max(until, self.until))

    def _throttle(self, until: float) -> None:
        self.state = State.THROTTLED
        self.until = until
        self._failures = 0
