"""Places: all sites together have so many connections, in turn, and none is held by who is idle, slow or dead."""

import asyncio

import pytest

from smarthost.delivery import places as places_module
from smarthost.delivery.places import Place, Places


class Site:
    """A claimant that wants a number of places and keeps what it gets, until it is told to spare some."""

    def __init__(self, places: Places, name: str, wanted: int = 1, *, rank: int = 2) -> None:
        self.places, self.name, self.wanted, self.rank = places, name, wanted, rank
        self.is_slow = False
        self.held: list[Place] = []
        self.idle = self.stalled = False

    def work(self) -> None:
        """Take what is wanted."""
        while len(self.held) < self.wanted and (place := self.places.take(self)) is not None:
            self.held.append(place)

    def spare_idle(self, most: int) -> int:
        """Give some back, if they rest."""
        return self._give_back(min(len(self.held), most)) if self.idle else 0

    def spare_busy(self, before: float) -> int:
        """Say that one will end."""
        for place in self.held:
            if place.since < before and not place.is_called_back:
                place.call_back()
                return 1
        return 0

    def cut_stalled(self, seconds: float) -> int:
        """Give all back, if they hang."""
        return self._give_back(len(self.held)) if self.stalled else 0

    def _give_back(self, number: int) -> int:
        given, self.held, self.wanted = self.held[:number], self.held[number:], len(self.held) - number
        for place in given:
            place.give_back()
        return len(given)


@pytest.fixture
async def places() -> Places:
    """Give eight places."""
    return Places(8, asyncio.get_running_loop())


async def turns(number: int = 10) -> None:
    """Let the loop run what is ready."""
    for _ in range(number):
        await asyncio.sleep(0)


async def test_a_place_is_one_however_often_it_comes_back(places: Places) -> None:
    """What is given back twice counts once, and the count never goes below what is held."""
    site = Site(places, "a", 3)
    site.work()
    assert places.taken == 3
    for _ in range(3):
        site.held[0].give_back()
        site.held[0].opened()
    assert places.taken == 2 and places.waiting == 0


async def test_each_site_has_one_a_turn(places: Places) -> None:
    """Sites that wait get one place each before any gets its second, in the order in which they came."""
    greedy = Site(places, "greedy", 100)
    greedy.work()
    assert len(greedy.held) == 8
    others = [Site(places, str(number), 2) for number in range(4)]
    for other in others:
        other.work()
    for _ in range(5):
        greedy.held.pop().give_back()
        await turns()
    # The greedy one stood in line first, for its ninth; then the four, each of which then waits for its second.
    assert [len(other.held) for other in others] == [1, 1, 1, 1] and len(greedy.held) == 4
    assert places.taken == 8 and places.waiting == 5


async def test_idle_sessions_end_first(places: Places) -> None:
    """Who waits gets the place of a session that rests at once; a busy site of several loses nothing."""
    resting, busy = Site(places, "resting", 1), Site(places, "busy", 7)
    busy.work()
    resting.work()
    resting.idle = True
    newcomer = Site(places, "newcomer")
    newcomer.work()
    assert not newcomer.held
    await turns()
    assert len(newcomer.held) == 1 and not resting.held and len(busy.held) == 7
    assert not any(place.is_called_back for place in busy.held)


async def test_of_several_busy_sessions_one_is_called_back_for_each_that_waits(places: Places) -> None:
    """As many sessions end behind what they carry as sites wait; those with one session keep it."""
    big, small = Site(places, "big", 7), Site(places, "small", 1)
    big.work()
    small.work()
    waiting = [Site(places, "x"), Site(places, "y")]
    for each in waiting:
        each.work()
    async with asyncio.timeout(5):
        while sum(place.is_called_back for place in big.held) < 2:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.3)  # further looks call nobody else back
    called = [place for place in big.held if place.is_called_back]
    assert len(called) == 2 == places.called_back and not small.held[0].is_called_back
    for place in called:
        big.held.remove(place)
        big.wanted -= 1
        place.give_back()
    await turns()
    assert all(each.held for each in waiting) and places.called_back == 0


async def test_nobody_takes_from_who_has_no_more(places: Places) -> None:
    """A site that waits for its fifth connection has none ended for it that another one has as its third."""
    first, second = Site(places, "first", 5), Site(places, "second", 4)
    first.work()
    second.work()
    assert (len(first.held), len(second.held)) == (5, 3)
    async with asyncio.timeout(5):
        while not any(place.is_called_back for place in first.held):
            await asyncio.sleep(0.01)  # for the fourth of the second site, which makes them equal
    first.held.remove(place := next(place for place in first.held if place.is_called_back))
    place.give_back()
    first.work()  # which wants it again
    await asyncio.sleep(0.3)
    assert (len(first.held), len(second.held)) == (4, 4)
    assert places.waiting == 1 and not any(place.is_called_back for place in (*first.held, *second.held))


async def test_urgent_mail_goes_first_and_low_mail_goes(places: Places) -> None:
    """Sites stand in line by their next messages; a low one is passed over 16 times, and one may become more urgent."""
    crowd = Site(places, "crowd", 8)
    crowd.work()
    served: list[str] = []

    class Waiting(Site):
        def work(self) -> None:
            before = len(self.held)
            super().work()
            if len(self.held) > before:
                served.append(self.name)
                self.wanted = 0
                self.held.pop().give_back()

    low, turned = Waiting(places, "low", rank=3), Waiting(places, "turned", rank=3)
    for each in (low, turned, *(Waiting(places, f"high {number}", rank=1) for number in range(20))):
        each.work()
    turned.rank = 0
    turned.work()
    crowd.wanted = 0
    crowd.held.pop().give_back()
    async with asyncio.timeout(5):
        while len(served) < 22:
            await asyncio.sleep(0)
    assert served[0] == "turned" and served.index("low") == 16
    assert [name for name in served if name.startswith("high")] == [f"high {number}" for number in range(20)]


async def test_who_hangs_gives_way(places: Places) -> None:
    """Sessions whose peers say nothing are ended while others wait."""
    stuck = [Site(places, str(number)) for number in range(8)]
    for each in stuck:
        each.work()
        each.held[0].opened()
        each.stalled = True
    newcomer = Site(places, "newcomer")
    newcomer.work()
    await turns()
    assert len(newcomer.held) == 1


async def test_dead_sites_are_cut_beyond_their_share(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """While others wait, of eight openings that take long two go on, and the others make room and come again later."""
    monkeypatch.setattr(places_module, "SLOW", 0.05)
    dead = [Site(places, str(number)) for number in range(8)]
    hanging = []

    async def dial(site: Site) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            site.held.pop().give_back()
            raise

    for site in dead:
        site.work()
        site.held[0].task = asyncio.ensure_future(dial(site))
        hanging.append(site.held[0].task)
    healthy = [Site(places, f"healthy {number}") for number in range(6)]
    for site in healthy:
        site.work()
    async with asyncio.timeout(5):
        while not all(site.held for site in healthy):
            await asyncio.sleep(0.01)
    assert sum(task.cancelled() for task in hanging) == 6
    assert sum(bool(site.held) for site in dead) == 2 and all(site.is_slow for site in dead)
    for site in dead:
        site.work()  # those that were cut stand in the line of the slow
    for site in healthy:
        site.held.pop().give_back()
        site.wanted = 0
    await turns()
    assert sum(bool(site.held) for site in dead) == 2 and places.waiting == 6
    next(site for site in dead if site.held).held[0].opened()  # it was slow, and not dead
    await turns()
    assert sum(bool(site.held) for site in dead) == 3
    for task in hanging:
        task.cancel()
    await asyncio.gather(*hanging, return_exceptions=True)
