"""Ready queue: the entries that may go to one site now, and how many sessions may carry them."""

from collections import deque
from collections.abc import Iterable

import msgspec

from smarthost.mail.entry import Entry
from smarthost.mail.route import Site
from smarthost.policy.depth import Depth
from smarthost.policy.limits import SiteLimits
from smarthost.policy.rate import Cells, Rate
from smarthost.policy.window import Window


class ReadyQueue:
    """What waits in memory for one site. Mutable; `scheduler` and `promoter` fill it, the site's dispatcher empties it.

    `busy` counts entries that a dispatcher has taken and not settled; `is_paced` says whether `cells` may ever wait.
    Nothing is sent before `suspended_until`, a Unix time; `suspended_by` and `slowed_by` say for people what has
    suspended the site, or has made its limits stricter than the configuration's, "" where nothing has. `quota` is what
    an upstream of a pool may take, counted in `cells`, too; None where there is none.
    """

    __slots__ = (
        "busy",
        "cells",
        "configured",
        "depth",
        "is_paced",
        "limits",
        "opening_cells",
        "quota",
        "site",
        "slowed_by",
        "suspended_by",
        "suspended_until",
        "todo",
        "usual_cells",
        "window",
    )

    def __init__(
        self, site: Site, limits: SiteLimits, former: "ReadyQueue | None" = None, quota: Cells | None = None
    ) -> None:
        """Begin empty, with the limits of the site, and the quota of an upstream whose mail may go to others instead.

        `former` is the site's queue under an older configuration: its sessions count until they have ended, and rates
        that are still the same go on counting, in cells that both share, since a session of the older one may yet
        count there.
        """
        self.site = site
        self.limits = self.configured = limits
        self.todo: deque[Entry] = deque()
        self.busy = 0
        self.window: Window = Window(limits.max_connections, former.window if former is not None else None)
        self.depth = Depth()
        self.usual_cells = Cells(limits.message_rate)
        self.quota = quota
        self.opening_cells = Cells(limits.max_connection_rate)
        if former is not None and former.configured.message_rate == limits.message_rate:
            self.usual_cells = former.usual_cells
        if former is not None and former.configured.max_connection_rate == limits.max_connection_rate:
            self.opening_cells = former.opening_cells
        self.cells = self._with_quota(self.usual_cells)
        self.is_paced = self._has_rates()
        self.suspended_until = 0.0
        self.suspended_by = self.slowed_by = ""

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
        return self.quota is not None or bool(self.limits.message_rate)

    def push(self, entry: Entry) -> None:
        """Put an entry at the end."""
        self.todo.append(entry)

    def push_back(self, entry: Entry) -> None:
        """Put an entry that was taken and not tried back at the front."""
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
        for index, entry in enumerate(self.todo):
            if entry.key == key:
                del self.todo[index]
                return True
        return False

    def bring_forward(self, entry: Entry) -> None:
        """Have an entry that waits here taken next."""
        if self.withdraw(entry.key):
            self.todo.appendleft(entry)

    def drain(self) -> list[Entry]:
        """Take out all that waits; what is in delivery stays."""
        entries = list(self.todo)
        self.todo.clear()
        return entries

    def __repr__(self) -> str:
        """Tell the state in a line, for logs and tests."""
        return f"<ReadyQueue {self.site.name} todo={len(self.todo)} busy={self.busy} {self.window.state}>"
