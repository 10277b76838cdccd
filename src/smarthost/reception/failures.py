"""Counts failed logins per address and says which addresses have had too many."""

from collections.abc import Callable

from smarthost.reception.peer import block_of

MOST_FAILURES = 5
PERIOD = 600.0  # seconds
MOST_ADDRESSES = 10_000


class Failures:
    """Failed logins of the last ten minutes; five of one address block it until they are old enough.

    Memory is bounded: beyond ten thousand addresses the one that failed longest ago is forgotten.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """Start with none; `clock` gives Unix seconds."""
        self._clock = clock
        self._times: dict[str, list[float]] = {}

    def add(self, address: str) -> None:
        """Count a failure of an IP address ("" is a local socket)."""
        block = block_of(address)
        times = self._recent(block)
        times.append(self._clock())
        # Taken out and put back, so that the dictionary's order is by the last failure.
        self._times.pop(block, None)
        self._times[block] = times[-MOST_FAILURES:]
        if len(self._times) > MOST_ADDRESSES:
            del self._times[next(iter(self._times))]

    def is_blocked(self, address: str) -> bool:
        """Say whether an address has had too many failures."""
        if not self._times:
            return False
        block = block_of(address)
        recent = self._recent(block)
        if not recent:
            self._times.pop(block, None)
        return len(recent) >= MOST_FAILURES

    def _recent(self, block: str) -> list[float]:
        start = self._clock() - PERIOD
        return [at for at in self._times.get(block, ()) if at > start]
