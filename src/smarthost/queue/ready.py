"""Ready queue: the entries that may go to one site now, and how many sessions may carry them."""

from collections import deque
from collections.abc import Iterable, Sequence

import msgspec

from smarthost.mail.entry import Entry, Why
from smarthost.mail.envelope import Priority
from smarthost.mail.route import Route, Site
from smarthost.policy.capacity import Capacity
from smarthost.policy.depth import Depth
from smarthost.policy.ledger import Ledger
from smarthost.policy.limits import SiteLimits
from smarthost.policy.rate import Cells, Rate
from smarthost.policy.window import Window
from smarthost.queue.lanes import Lanes


class ReadyQueue:
    """What waits in memory for one site. Mutable; `scheduler` and `promoter` fill it, the site's dispatcher empties it.

    `todo` is what waits, in the order of service: a deque while all of it has one priority and one user, as it nearly
    always has, and `Lanes` from the moment in which it has not until it is empty. `busy` counts entries that a
    dispatcher has taken and not settled; `is_paced` says whether `wait` may ever be long. Nothing is sent before
    `suspended_until`, a Unix time; `suspended_by` and `slowed_by` say for people what has suspended the site, or has
    made its limits stricter than the configuration's, "" where nothing has. `quota` is what an upstream of a pool may
    take, counted in `cells`, too; None where there is none. `switched_to` is the route for the mail of an upstream
    that a rule has suspended, when no other upstream can have it.
    """

    __slots__ = (
        "_identity",
        "_priority",
        "busy",
        "capacity",
        "cells",
        "configured",
        "counts_recipients",
        "depth",
        "is_paced",
        "limits",
        "opening_cells",
        "quota",
        "recipient_cells",
        "ruled_by",
        "ruled_until",
        "site",
        "slowed_by",
        "stopped_by",
        "stopped_until",
        "suspended_by",
        "suspended_until",
        "switched_to",
        "todo",
        "usual_cells",
        "window",
    )

    def __init__(
        self,
        site: Site,
        limits: SiteLimits,
        ledger: Ledger | None = None,
        quota: Sequence[Rate] = (),
    ) -> None:
        """Begin empty, with the limits of the site; `quota` are the rates of an upstream of a pool.

        Rates count in the ledger's cells of the site, which outlive the queue, or in cells of its own where there is
        none.
        """
        self.site = site
        self.limits = self.configured = limits
        self.todo: deque[Entry] | Lanes = deque()
        # Of the entries in `todo` while that is a deque; None where it is not.
        self._priority: Priority | None = None
        self._identity = ""
        self.busy = 0
        self.window = Window(limits.max_connections)
        self.depth = Depth()
        self.capacity = Capacity()
        self.usual_cells = _cells(ledger, site, "messages", limits.message_rate)
        self.recipient_cells = _cells(ledger, site, "recipients", limits.recipient_rate)
        self.counts_recipients = bool(limits.recipient_rate)
        self.opening_cells = _cells(ledger, site, "connections", limits.max_connection_rate)
        self.quota = _cells(ledger, site, "quota", quota) if quota else None
        self.cells = self._with_quota(self.usual_cells)
        self.is_paced = self._has_rates()
        self.suspended_until = self.ruled_until = self.stopped_until = 0.0
        self.ruled_by = self.stopped_by = ""
        self.suspended_by = self.slowed_by = ""
        self.switched_to: Route | None = None

    @property
    def suspended_why(self) -> Why:
        """What a suspension is called: a person's or a rule's."""
        return Why.SUSPENDED if self.stopped_until >= self.ruled_until else Why.AUTOMATION

    def set_suspension(self) -> None:
        """Follow a change of `ruled_until` or `stopped_until`: the later one holds."""
        is_stopped = self.stopped_until >= self.ruled_until
        self.suspended_until = max(self.stopped_until, self.ruled_until)
        self.suspended_by = self.stopped_by if is_stopped else self.ruled_by

    def slow_down(self, rates: Iterable[Rate], connections: int | None, reason: str, now: float) -> None:
        """Add rates to those of the configuration, and lower the connections; what was sent just now counts."""
        usual = self.configured
        rates = tuple(rates)
        slower = Cells(rates)
        slower.take(now)
        self.limits = msgspec.structs.replace(
            usual,
            message_rate=usual.message_rate + rates,
            max_connections=min(usual.max_connections, connections or usual.max_connections),
        )
        self.cells, self.is_paced = self._with_quota(self.usual_cells.joined(slower)), self._has_rates()
        self.window.maximum, self.slowed_by = self.limits.max_connections, reason

    def resume_speed(self) -> None:
        """Follow the configuration's limits again, whose rates have gone on counting."""
        self.limits, self.cells, self.slowed_by = self.configured, self._with_quota(self.usual_cells), ""
        self.is_paced, self.window.maximum = self._has_rates(), self.limits.max_connections

    def _with_quota(self, cells: Cells) -> Cells:
        return cells if self.quota is None else cells.joined(self.quota)

    def _has_rates(self) -> bool:
        return self.quota is not None or self.counts_recipients or bool(self.limits.message_rate)

    def wait(self, now: float) -> float:
        """Give the seconds until the rates let one more go; 0.0 means at once."""
        wait = self.cells.wait(now)
        return max(wait, self.recipient_cells.wait(now)) if self.counts_recipients else wait

    def slowest_rate(self, now: float) -> tuple[str, Rate] | None:
        """Give the rate that holds mail back for the longest time now, behind its key; None where none does."""
        held: list[tuple[float, str, Rate]] = []
        for key, cells in (("message_rate", self.cells), ("recipient_rate", self.recipient_cells)):
            rates = getattr(self.limits, key)
            held += [(wait, key, rate) for wait, rate in zip(cells.waits(now), rates, strict=False)]
        wait, key, rate = max(held, key=lambda each: each[0], default=(0.0, "", None))
        return (key, rate) if rate is not None and wait > 0.0 else None

    def push(self, entry: Entry) -> None:
        """Put an entry at the end of those of its priority and its user."""
        message = entry.message
        if message.envelope.priority is not self._priority or message.arrival.identity != self._identity:
            self._mix(message.envelope.priority, message.arrival.identity)
        self.todo.append(entry)

    def _mix(self, priority: Priority, identity: str) -> None:
        """Make `todo` ready for an entry of another priority or user than those that wait there."""
        if not self.todo:
            self.todo = deque()
            self._priority, self._identity = priority, identity
        elif self._priority is not None:
            self.todo = Lanes(self.todo)
            self._priority = None

    def push_back(self, entry: Entry) -> None:
        """Put an entry that was taken and not tried back at the front, before those of a higher priority, too."""
        self.busy -= 1
        self.todo.appendleft(entry)

    def take(self) -> Entry:
        """Take the entry at the front; raises IndexError when there is none."""
        entry = self.todo.popleft()
        self.busy += 1
        return entry

    def done(self) -> None:
        """Note that a taken entry has been settled."""
        self.busy -= 1

    def withdraw(self, key: tuple[int, int]) -> bool:
        """Take one waiting entry out by its key; False when it does not wait here (it may be in delivery)."""
        todo = self.todo
        for entry in todo.anyhow() if isinstance(todo, Lanes) else todo:
            if entry.key == key:
                todo.remove(entry)
                return True
        return False

    def bring_forward(self, entry: Entry) -> None:
        """Have an entry that waits here taken next."""
        if self.withdraw(entry.key):
            self.todo.appendleft(entry)

    def drain(self) -> list[Entry]:
        """Take out all that waits; what is in delivery stays."""
        todo = self.todo
        entries = list(todo.anyhow() if isinstance(todo, Lanes) else todo)
        todo.clear()
        return entries

    def __repr__(self) -> str:
        """Tell the state in a line, for logs and tests."""
        return f"<ReadyQueue {self.site.name} todo={len(self.todo)} busy={self.busy} {self.window.state}>"


def _cells(ledger: Ledger | None, site: Site, what: str, rates: Sequence[Rate]) -> Cells:
    return Cells(rates) if ledger is None else ledger.cells(f"site {site.place} {what}", rates)
