"""Places: how many connections all sites together may have, and whose turn it is when none is left."""

import asyncio
from collections.abc import Callable
from itertools import islice
from math import inf
from typing import Protocol

from smarthost.delivery.line import Line

LOOK = 0.1  # seconds between two looks at who could give a place up, while somebody waits for one
LOOKED_AT = 256  # sites that one look asks
SLOW = 3.0  # seconds after which a session that is being opened counts as slow
STALLED = 30.0  # seconds without a word after which a session is ended for others that wait, if nothing is lost by it
_SLOW_SHARE = 4  # slow openings have one place in so many at most, and one turn in so many


class Claimant(Protocol):
    """Who opens the sessions of one site.

    `is_slow` says that opening the last one took long, or that it failed so; `rank` is that of its next message
    (`mail.envelope.RANKS`).
    """

    is_slow: bool

    @property
    def rank(self) -> int:
        """How urgent the next message is; 0 is the most urgent."""

    def work(self) -> None:
        """Ask for a place again, if one is still wanted."""

    def spare_idle(self, most: int) -> int:
        """End some sessions that nothing waits for; gives how many."""

    def spare_busy(self, before: float) -> int:
        """End a session that was begun before a loop time, once it has carried what it carries; gives how many."""

    def cut_stalled(self, seconds: float) -> int:
        """End sessions that have heard nothing for some seconds, where nothing becomes ambiguous; gives how many."""


class Place:
    """A connection that somebody may have. Mutable; it is given back on every path, and more than once is once.

    `within` is another place that it needs as well, and takes with it whatever becomes of it.
    """

    __slots__ = ("_places", "claimant", "is_called_back", "is_slow", "since", "task", "within")

    def __init__(self, places: "Places", claimant: Claimant, since: float, within: "Place | None" = None) -> None:
        """Begin as one that is being opened; `task` opens it, and ends when it is cancelled."""
        self._places: Places | None = places
        self.within = within
        self.claimant, self.since, self.is_slow = claimant, since, places.is_slow(claimant)
        self.is_called_back = False
        self.task: asyncio.Task[None] | None = None

    def opened(self) -> None:
        """Note that the session stands: whatever its peer does now, opening it is no burden any more."""
        if self._places is not None:
            self._places.opened(self)
        if self.within is not None:
            self.within.opened()

    def call_back(self) -> None:
        """Note that its session ends for the sake of others."""
        if self._places is not None and not self.is_called_back:
            self.is_called_back = True
            self._places.called_back += 1
        if self.within is not None:
            self.within.call_back()

    def give_back(self) -> None:
        """Let somebody else have it."""
        places, self._places = self._places, None
        if places is not None:
            places.freed(self)
        if self.within is not None:
            self.within.give_back()


class Places:
    """Connections that several sites share. Mutable; `most` is how many there may be, `taken` how many there are.

    Where none is left the sites stand in line, and each gets one place when its turn comes. Sessions that rest are
    ended for them at once, then those of sites that have more than who waits, each behind the message that it carries;
    where there is a `turn`, also the only one of a site, for one that has none, after so many seconds.

    Unless all are `alike`, a site that answers slowly, or not at all, is given a quarter of the places at most while
    it is being opened: who has taken longer, while others wait and that quarter is full, is cut, with no attempt spent,
    and comes again in a line of its own. `emptied` is called when nobody has a place or waits for one any more.
    """

    __slots__ = (
        "_called",
        "_holders",
        "_is_serving",
        "_loop",
        "_number",
        "_opening",
        "_prompt_line",
        "_slow",
        "_slow_line",
        "_timer",
        "alike",
        "called_back",
        "emptied",
        "most",
        "taken",
        "turn",
    )

    def __init__(self, most: int, loop: asyncio.AbstractEventLoop, *, turn: float = inf, alike: bool = False) -> None:
        """Begin with every place free."""
        self.most, self.turn, self.alike = most, turn, alike
        self.taken = self.called_back = 0
        self.emptied: Callable[[Places], object] = lambda places: None
        self._loop = loop
        self._slow = self._number = 0
        self._prompt_line: Line[Claimant] = Line()
        self._slow_line: Line[Claimant] = Line()
        self._opening: dict[Place, None] = {}
        self._holders: dict[Claimant, int] = {}
        self._called: Claimant | None = None
        self._is_serving = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """Count the sites that wait for a place."""
        return len(self._prompt_line) + len(self._slow_line)

    @property
    def has_room(self) -> bool:
        """Whether a site that asks now is given a place."""
        return self.taken < self.most and not self._prompt_line

    def waits(self, claimant: Claimant) -> bool:
        """Whether a site stands in line."""
        return claimant in self._prompt_line or claimant in self._slow_line

    def is_slow(self, claimant: Claimant) -> bool:
        """Whether a site counts as a slow one here."""
        return claimant.is_slow and not self.alike

    def take(self, claimant: Claimant, within: Place | None = None) -> Place | None:
        """Give a place, or put the site in line and give None: `work` is called when its turn comes."""
        if not self._may_have(claimant):
            is_slow = self.is_slow(claimant) and claimant not in self._prompt_line
            line = self._slow_line if is_slow or claimant in self._slow_line else self._prompt_line
            line.join(claimant, claimant.rank)
            self._watch()
            return None
        place = Place(self, claimant, self._loop.time(), within)
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
        self._tell_if_empty()

    def _tell_if_empty(self) -> None:
        if not self.taken and not self.waiting:
            self.emptied(self)

    def _may_have(self, claimant: Claimant) -> bool:
        if claimant is self._called:
            self._called = None  # one a turn
            return True
        if self.taken >= self.most:
            return False
        if self.is_slow(claimant):
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
        self._tell_if_empty()

    def _next(self) -> Claimant | None:
        """Take who is next out of the line; the slow ones come every fourth time at most."""
        self._number += 1
        may_be_slow = bool(self._slow_line) and self._slow < self._most_slow
        if may_be_slow and (not self._prompt_line or self._number % _SLOW_SHARE == 0):
            return self._slow_line.next()
        return self._prompt_line.next() if self._prompt_line else None

    def _watch(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(LOOK, self._look)
            self._loop.call_soon(self._reclaim)

    def _look(self) -> None:
        """While somebody waits: see to what is opened slowly, and to sessions that others need more."""
        self._timer = None
        if not self.waiting:
            return
        if not self.alike:
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
            wanted -= claimant.cut_stalled(STALLED) + claimant.spare_idle(wanted)
        poorest = self._least_of_those_who_wait() if wanted > 0 else 0
        for claimant in asked:
            count = self._holders.get(claimant, 0)
            if wanted > 0 and count > poorest + 1:
                wanted -= claimant.spare_busy(inf)
            elif wanted > 0 and count and not poorest and self.turn < inf:
                wanted -= claimant.spare_busy(self._loop.time() - self.turn)
            if (count := self._holders.pop(claimant, 0)) > 0:
                self._holders[claimant] = count  # behind all others: asked last

    def _least_of_those_who_wait(self) -> int:
        """Give how many places those have that wait: the fewest, of the first of them."""
        some = (*self._prompt_line.first(LOOKED_AT), *self._slow_line.first(LOOKED_AT))
        return min((self._holders.get(each, 0) for each in some), default=0)
