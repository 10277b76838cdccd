"""A gate, where a limit is asked, and a line of entries that wait for gates."""

import asyncio
from bisect import insort

from smarthost.mail.entry import Entry
from smarthost.policy.ledger import Ledger
from smarthost.policy.restraints import Restraint
from smarthost.queue.lanes import Lanes
from smarthost.queue.waiting import Key


class Gate:
    """One restraint at work: its cells, who waits for it, how many were let in (`out`) and are `flying`. Mutable."""

    __slots__ = ("cells", "flying", "held", "on_disk", "out", "recipients", "restraint", "timer", "waiting")

    def __init__(self, restraint: Restraint, ledger: Ledger) -> None:
        """Begin with nobody waiting; what the cells have counted before stands."""
        self.waiting: list[tuple[float, int, Line]] = []
        self.on_disk: list[tuple[float, str]] = []
        self.flying = self.held = self.out = 0
        self.timer: asyncio.TimerHandle | None = None
        self.follow(restraint, ledger)

    def follow(self, restraint: Restraint, ledger: Ledger) -> None:
        """Take over what the configuration says now."""
        self.restraint = restraint
        self.cells = ledger.cells(f"{restraint.name} messages", restraint.message_rate)
        self.recipients = ledger.cells(f"{restraint.name} recipients", restraint.recipient_rate)

    def wait(self, now: float) -> float:
        """Give the seconds until its rates let one go."""
        return max(self.cells.wait(now), self.recipients.wait(now))

    def room(self, now: float) -> int:
        """Give how many may go at once."""
        room = min(self.cells.room(now), self.recipients.room(now))
        most = self.restraint.max_connections
        return room if most is None else min(room, most - self.flying)


class Line:
    """What waits of one queue for the gates that all of it has to pass, in the order of service. Mutable.

    `out` counts entries that were let in and are in no session yet; `is_cut` says that more is on disk. `place` is the
    gate at which it waits; a line without one has as many out as it may, or nobody in it.
    """

    __slots__ = ("_back", "_entries", "gates", "is_cut", "name", "out", "place")

    def __init__(self, name: str, gates: tuple[Gate, ...]) -> None:
        """Begin empty."""
        self.name, self.gates = name, gates
        self._entries = Lanes()
        self._back: list[Entry] = []  # what was let in and came back, before all others
        self.out = 0
        self.is_cut = False
        self.place: Gate | None = None

    def __len__(self) -> int:
        """Count the entries that wait."""
        return len(self._back) + len(self._entries)

    @property
    def front(self) -> Entry:
        """Give the next entry; raises IndexError when there is none."""
        return self._back[0] if self._back else self._entries[0]

    def push(self, entry: Entry) -> None:
        """Put an entry at its end."""
        self._entries.append(entry)
        self._count(1)

    def push_back(self, entry: Entry) -> None:
        """Put an entry that was let in back where it was: before those that were not, in the order of their times."""
        insort(self._back, entry, key=_time_of)
        self._count(1)

    def pop(self) -> Entry:
        """Take the next entry."""
        self._count(-1)
        return self._back.pop(0) if self._back else self._entries.popleft()

    def withdraw(self, key: Key) -> bool:
        """Take an entry out by its key; False when it is not here."""
        for entry in [*self._back, *self._entries.anyhow()]:
            if entry.key == key:
                self._back.remove(entry) if entry in self._back else self._entries.remove(entry)
                self._count(-1)
                return True
        return False

    def drain(self) -> list[Entry]:
        """Take all out."""
        entries = [*self._back, *self._entries.anyhow()]
        self._count(-len(entries))
        self._back.clear()
        self._entries.clear()
        return entries

    def _count(self, more: int) -> None:
        if self.place is not None:
            self.place.held += more


def _time_of(entry: Entry) -> tuple[float, Key]:
    return entry.due, entry.key
