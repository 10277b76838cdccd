"""Decides which priority is served next where several wait: the highest, but none is passed over for ever."""

from collections.abc import Sequence

# By rank (`mail.envelope.RANKS`): how often those that wait there may be passed over for a more urgent one before it is
# their turn. So low mail has a seventeenth of a busy site at the worst, and high mail waits for one of it at a time.
PATIENCE = (0, 4, 8, 16)


class Turns:
    """How often each rank has been passed over since it was last served. Mutable, pure.

    It ages by turns and not by the clock: after an hour in which a site was away, mail that waited for it is not all
    old at once, so that what is urgent still goes first.
    """

    __slots__ = ("_passed",)

    def __init__(self, former: "Turns | None" = None) -> None:
        """Begin with nobody passed over, or where another one stands."""
        self._passed: list[int] = [0] * len(PATIENCE) if former is None else former._passed.copy()

    def choose(self, waiting: Sequence[int]) -> int:
        """Give the rank that is served next, by how many wait at each; -1 where nobody does."""
        chosen = -1
        for rank, count in enumerate(waiting):
            if not count:
                continue
            if chosen < 0:
                chosen = rank
            elif self._passed[rank] >= PATIENCE[rank]:
                return rank
        return chosen

    def took(self, rank: int, waiting: Sequence[int]) -> None:
        """Count that one was served at a rank, where `waiting` wait now."""
        passed = self._passed
        passed[rank] = 0
        for lower in range(rank + 1, len(waiting)):
            if waiting[lower]:
                passed[lower] += 1
