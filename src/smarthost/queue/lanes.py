"""Lanes: entries that wait for one site, in the order of service: by priority, users in turn, first in first out."""

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator

from smarthost.mail.entry import Entry
from smarthost.mail.envelope import RANKS
from smarthost.policy.fairness import Turns


class Lanes:
    """What a deque does for entries of one priority and one user, for those of several. Mutable.

    Each priority has a circle of users, and each user a line. `policy.fairness` says which priority is next; within it
    the user who has waited longest for a turn has it. What is put back at the front is served before all others.
    """

    __slots__ = ("_circles", "_counts", "_returned", "_total", "_turns")

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        """Begin with entries that wait in this order already."""
        self._circles: list[OrderedDict[str, deque[Entry]]] = [OrderedDict() for _ in RANKS]
        self._counts = [0] * len(RANKS)
        self._returned: deque[Entry] = deque()
        self._turns = Turns()
        self._total = 0
        for entry in entries:
            self.append(entry)

    def append(self, entry: Entry) -> None:
        """Put an entry at the end of its user's line."""
        message = entry.message
        rank, identity = RANKS[message.envelope.priority], message.arrival.identity
        circle = self._circles[rank]
        line = circle.get(identity)
        if line is None:
            circle[identity] = deque((entry,))
        else:
            line.append(entry)
        self._counts[rank] += 1
        self._total += 1

    def appendleft(self, entry: Entry) -> None:
        """Put an entry that was taken back before all others."""
        self._returned.appendleft(entry)
        self._total += 1

    def popleft(self) -> Entry:
        """Take the entry at the front; raises IndexError when there is none."""
        if self._returned:
            self._total -= 1
            return self._returned.popleft()
        rank = self._turns.choose(self._counts)
        if rank < 0:
            raise IndexError("nothing waits")
        circle = self._circles[rank]
        identity, line = next(iter(circle.items()))
        entry = line.popleft()
        if line:
            circle.move_to_end(identity)
        else:
            del circle[identity]
        self._counts[rank] -= 1
        self._total -= 1
        self._turns.took(rank, self._counts)
        return entry

    def __getitem__(self, place: int) -> Entry:
        """Give the entry at the front, which is the only place that can be asked for; raises IndexError."""
        if self._returned:
            return self._returned[0]
        rank = self._turns.choose(self._counts)
        if rank < 0 or place:
            raise IndexError("only the front can be looked at, and only while something waits")
        return next(iter(self._circles[rank].values()))[0]

    def remove(self, entry: Entry) -> None:
        """Take an entry out wherever it waits; raises ValueError when it does not."""
        if entry in self._returned:
            self._returned.remove(entry)
            self._total -= 1
            return
        message = entry.message
        rank, identity = RANKS[message.envelope.priority], message.arrival.identity
        line = self._circles[rank].get(identity)
        if line is None:
            raise ValueError("the entry does not wait here")
        line.remove(entry)
        if not line:
            del self._circles[rank][identity]
        self._counts[rank] -= 1
        self._total -= 1

    def anyhow(self) -> Iterator[Entry]:
        """Give the entries in no order, which is quicker."""
        yield from self._returned
        for circle in self._circles:
            for line in circle.values():
                yield from line

    def clear(self) -> None:
        """Forget all that waits."""
        self._returned.clear()
        for circle in self._circles:
            circle.clear()
        self._counts = [0] * len(RANKS)
        self._total = 0

    def __len__(self) -> int:
        """Count the entries."""
        return self._total

    def __iter__(self) -> Iterator[Entry]:
        """Give the entries in the order in which they will be served if nothing comes between."""
        yield from self._returned
        turns, counts = Turns(self._turns), self._counts.copy()
        circles = [deque(map(iter, circle.values())) for circle in self._circles]
        while (rank := turns.choose(counts)) >= 0:
            circle = circles[rank]
            entry = next(circle[0], None)
            if entry is None:
                circle.popleft()
                continue
            circle.rotate(-1)
            counts[rank] -= 1
            turns.took(rank, counts)
            yield entry
