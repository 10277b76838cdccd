"""Line: sites that wait for a connection, in the order of their turns."""

from itertools import islice
from typing import Generic, TypeVar

from smarthost.mail.envelope import RANKS
from smarthost.policy.fairness import Turns

T = TypeVar("T")


class Line(Generic[T]):
    """Those with more urgent mail are first, and none is passed over for ever; first in first out among equals.

    Mutable. `policy.fairness` says which rank is next.
    """

    __slots__ = ("_counts", "_rank_of", "_ranks", "_turns")

    def __init__(self) -> None:
        """Begin with nobody waiting."""
        self._rank_of: dict[T, int] = {}
        self._ranks: tuple[dict[T, None], ...] = tuple({} for _ in RANKS)  # sets that keep their order
        self._counts = [0] * len(RANKS)
        self._turns = Turns()

    def __len__(self) -> int:
        """Count those who wait."""
        return len(self._rank_of)

    def __contains__(self, each: T) -> bool:
        """Whether one of them waits."""
        return each in self._rank_of

    def join(self, each: T, rank: int) -> None:
        """Stand at the end of a rank; who waits already keeps its place, unless its mail has become more urgent."""
        before = self._rank_of.get(each)
        if before is not None:
            if before <= rank:
                return
            del self._ranks[before][each]
            self._counts[before] -= 1
        self._rank_of[each] = rank
        self._ranks[rank][each] = None
        self._counts[rank] += 1

    def next(self) -> T:
        """Take out who is next; raises IndexError when nobody waits."""
        rank = self._turns.choose(self._counts)
        if rank < 0:
            raise IndexError("nobody waits")
        each = next(iter(self._ranks[rank]))
        del self._ranks[rank][each], self._rank_of[each]
        self._counts[rank] -= 1
        self._turns.took(rank, self._counts)
        return each

    def first(self, most: int) -> list[T]:
        """Give some of those who wait."""
        return list(islice(self._rank_of, most))
