"""Waiting: what the scheduler knows of one queue and its lanes, in memory and on disk."""

from smarthost.mail.entry import Entry, Why

NEVER = float("inf")
Key = tuple[int, int]


class Lane:
    """The entries of a queue that have one priority and one user (`Entry.lane`).

    `count` are in memory; `disk_due` is the earliest due time among those that are on disk only, infinite when there
    is none; `half` is the count at which it is worth while to read more of them.
    """

    __slots__ = ("count", "disk_due", "half", "name")

    def __init__(self, name: str) -> None:
        """Begin with nothing known."""
        self.name = name
        self.count = 0
        self.disk_due = NEVER
        self.half = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left of it."""
        return not self.count and self.disk_due == NEVER


class Waiting:
    """One queue. `loaded` are its entries in memory, until their settle is on disk.

    `blocked_until` is a Unix time before which nothing is read from disk; `blocked_why`, `blocked_by` and
    `blocked_since` say why and since when, for people. `turn` is when the scheduler will look at it;
    `is_in_line` says that it waits for room in memory.
    """

    __slots__ = (
        "blocked_by",
        "blocked_since",
        "blocked_until",
        "blocked_why",
        "is_in_line",
        "lanes",
        "loaded",
        "name",
        "pulling",
        "turn",
    )

    def __init__(self, name: str) -> None:
        """Begin with nothing known."""
        self.name = name
        self.loaded: dict[Key, Entry] = {}
        self.lanes: dict[str, Lane] = {}
        self.blocked_until = 0.0
        self.blocked_why = Why.SITE_THROTTLED
        self.blocked_by = ""
        self.blocked_since = 0.0
        self.pulling = False
        self.is_in_line = False
        self.turn = NEVER

    def lane(self, name: str) -> Lane:
        """Find a lane, or make it."""
        lane = self.lanes.get(name)
        if lane is None:
            lane = self.lanes[name] = Lane(name)
        return lane

    @property
    def disk_due(self) -> float:
        """The earliest due time among entries that are on disk only, infinite when there is none."""
        return min([lane.disk_due for lane in self.lanes.values()], default=NEVER)

    @property
    def next_turn(self) -> float:
        """When this queue should be looked at: its earliest due time, but not while it is blocked."""
        due = self.disk_due
        return max(due, self.blocked_until) if due < NEVER else NEVER

    def is_starving(self, now: float) -> bool:
        """Whether a lane of which nothing is in memory has something due on disk."""
        return any(lane.disk_due <= now and not lane.count for lane in self.lanes.values())

    def is_forgettable(self, now: float) -> bool:
        """Whether nothing is left of it; lanes of which nothing is left are forgotten on the way."""
        if self.pulling:
            return False
        self.lanes = {name: lane for name, lane in self.lanes.items() if not lane.is_empty}
        return not self.lanes and self.blocked_until <= now
