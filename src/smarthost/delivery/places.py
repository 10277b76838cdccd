"""Places: how many connections all sites together may have, and whose turn it is when none is left."""

import asyncio
from itertools import islice
from typing import Protocol

LOOK = 0.1  # seconds between two looks at who could give a place up, while somebody waits for one
LOOKED_AT = 256  # sites that one look asks
SLOW = 3.0  # seconds after which a session that is being opened counts as slow
STALLED = 30.0  # seconds without a word after which a session is ended for others that wait, if nothing is lost by it
_SLOW_SHARE = 4  # slow openings have one place in so many at most, and one turn in so many


class Claimant(Protocol):
    """Who opens the sessions of one site. `is_slow` says that opening the last one took long, or that it failed so."""

    is_slow: bool

    def work(self) -> None:
        """Ask for a place again, if one is still wanted."""

    def spare_idle(self) -> int:
        """End sessions that nothing waits for; gives how many."""

    def spare_busy(self) -> int:
        """End one of several sessions once it has carried what it carries; gives how many."""

    def cut_stalled(self, seconds: float) -> int:
        """End sessions that have heard nothing for some seconds, where nothing becomes ambiguous; gives how many."""


class Place:
    """A connection that somebody may have. Mutable; it is given back on every path, and more than once is once."""

    __slots__ = ("_places", "claimant", "is_called_back", "is_slow", "since", "task")

    def __init__(self, places: "Places", claimant: Claimant, since: float) -> None:
        """Begin as one that is being opened; `task` opens it, and ends when it is cancelled."""
        self._places: Places | None = places
        self.claimant, self.since, self.is_slow = claimant, since, claimant.is_slow
        self.is_called_back = False
        self.task: asyncio.Task[None] | None = None

    def opened(self) -> None:
        """Note that the session stands: whatever its peer does now, opening it is no burden any more."""
        if self._places is not None:
            self._places.opened(self)

    def call_back(self) -> None:
        """Note that its session ends for the sake of others."""
        if self._places is not None and not self.is_called_back:
            self.is_called_back = True
            self._places.called_back += 1

    def give_back(self) -> None:
        """Let somebody else have it."""
        places, self._places = self._places, None
        if places is not None:
            places.freed(self)


class Places:
    """The connections of all sites. Mutable; `most` is how many there may be, `taken` how many there are.

    Where none is left the sites stand in line, and each gets one place when its turn comes. Sessions that rest are
    ended for them at once, then those of sites that have several, each behind the message that it carries. A site
    that answers slowly, or not at all, is given a quarter of the places at most while it is being opened: who has
    taken longer, while others wait and that quarter is full, is cut, with no attempt spent, and comes again in a line
    of its own.
    """

    def __init__(self, most: int, loop: asyncio.AbstractEventLoop) -> None:
        """Begin with every place free."""
        self.most, self.taken, self.called_back = most, 0, 0
        self._loop = loop
        self._slow = self._turn = 0
        self._prompt_line: dict[Claimant, None] = {}  # sets that keep their order
        self._slow_line: dict[Claimant, None] = {}
        self._opening: dict[Place, None] = {}
        self._holders: dict[Claimant, int] = {}
        self._called: Claimant | None = None
        self._is_serving = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """Count the sites that wait for a place."""
        return len(self._prompt_line) + len(self._slow_line)

    def waits(self, claimant: Claimant) -> bool:
        """Whether a site stands in line."""
        return claimant in self._prompt_line or claimant in self._slow_line

    def take(self, claimant: Claimant) -> Place | None:
        """Give a place, or put the site in line and give None: `work` is called when its turn comes."""
        if not self._may_have(claimant):
            if not self.waits(claimant):
                (self._slow_line if claimant.is_slow else self._prompt_line)[claimant] = None
            self._watch()
            return None
        place = Place(self, claimant, self._loop.time())
        self.taken += 1
        self._slow += place.is_slow
        self._opening[place] = None
        self._holders[claimant] = self._holders.get(claimant, 0) + 1
        return place

    def opened(self, place: Place) -> None:
        """Note that what was being opened stands."""
        self._opening.pop(place, None)
        if place.is_slow:
            place.is_slow = False
            self._slow -= 1
            self._serve_soon()

    def freed(self, place: Place) -> None:
        """Take a place back."""
        self._opening.pop(place, None)
        self.taken -= 1
        self._slow -= place.is_slow
        self.called_back -= place.is_called_back
        left = self._holders[place.claimant] - 1
        if left:
            self._holders[place.claimant] = left
        else:
            del self._holders[place.claimant]
        self._serve_soon()

    def _may_have(self, claimant: Claimant) -> bool:
        if claimant is self._called:
            self._called = None  # one a turn
            return True
        if self.taken >= self.most:
            return False
        if claimant.is_slow:
            return not self._slow_line and self._slow < self._most_slow
        return not self._prompt_line

    @property
    def _most_slow(self) -> int:
        return max(self.most // _SLOW_SHARE, 1)

    def _serve_soon(self) -> None:
        if not self._is_serving and self.waiting and not self._loop.is_closed():
            self._is_serving = True
            self._loop.call_soon(self._serve)

    def _serve(self) -> None:
        """Have those in line take what is free; who does not want it any more has left the line."""
        self._is_serving = False
        while self.taken < self.most and (claimant := self._next()) is not None:
            self._called = claimant
            claimant.work()
            self._called = None

    def _next(self) -> Claimant | None:
        """Take who is next out of the line; the slow ones come every fourth time at most."""
        self._turn += 1
        may_be_slow = bool(self._slow_line) and self._slow < self._most_slow
        if may_be_slow and (not self._prompt_line or self._turn % _SLOW_SHARE == 0):
            line = self._slow_line
        elif self._prompt_line:
            line = self._prompt_line
        else:
            return None
        claimant = next(iter(line))
        del line[claimant]
        return claimant

    def _watch(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(LOOK, self._look)
            self._loop.call_soon(self._reclaim)

    def _look(self) -> None:
        """While somebody waits: see to what is opened slowly, and to sessions that others need more."""
        self._timer = None
        if not self.waiting:
            return
        self._slow_down()
        self._reclaim()
        self._serve_soon()
        self._timer = self._loop.call_later(LOOK, self._look)

    def _slow_down(self) -> None:
        """Count what has been opened for long as slow; beyond their share it is cut."""
        now = self._loop.time()
        for place in tuple(self._opening):  # in the order of their beginnings
            if now - place.since < SLOW:
                break
            del self._opening[place]
            place.claimant.is_slow = True
            if place.is_slow:
                continue
            if self._slow < self._most_slow:
                place.is_slow = True
                self._slow += 1
            elif place.task is not None:
                place.task.cancel()

    def _reclaim(self) -> None:
        """Have sessions ended for those that wait: those that rest, then one of several, then those that are stuck."""
        served = len(self._prompt_line) + min(len(self._slow_line), max(self._most_slow - self._slow, 0))
        wanted = served - self.called_back - (self.most - self.taken)
        asked = []
        for claimant in list(islice(self._holders, LOOKED_AT)) if wanted > 0 else ():
            if wanted <= 0:
                break
            asked.append(claimant)
            wanted -= claimant.cut_stalled(STALLED) + claimant.spare_idle()
        for claimant in asked:
            if wanted > 0 and self._holders.get(claimant, 0) > 1:
                wanted -= claimant.spare_busy()
            if (count := self._holders.pop(claimant, 0)) > 0:
                self._holders[claimant] = count  # behind all others: asked last
