"""Sharing: sites on the same hosts have the connections of their limit together, and take turns at them."""

import asyncio

import pytest
from test_places import Site, turns

from smarthost.delivery import sharing as sharing_module
from smarthost.delivery.places import Place
from smarthost.delivery.sharing import Sharing


class Demanding(Site):
    """A site on some hosts that may have two connections."""

    def __init__(self, sharing: Sharing, name: str, wanted: int = 1, hosts: str = "mx", most: int = 2) -> None:
        super().__init__(sharing.total, name, wanted)
        self.sharing, self.hosts, self.most = sharing, hosts, most

    def work(self) -> None:
        """Take what is wanted."""
        while len(self.held) < self.wanted:
            place = self.sharing.take(self, self.hosts, self.most)
            if place is None:
                return
            self.held.append(place)


@pytest.fixture
async def sharing() -> Sharing:
    """Give eight connections in all."""
    return Sharing(8, asyncio.get_running_loop())


def end(site: Site, place: Place) -> None:
    """End one session of a site for good."""
    site.held.remove(place)
    site.wanted -= 1
    place.give_back()


async def test_all_demands_together_have_the_limit(sharing: Sharing) -> None:
    """Two connections to a place are two, whoever has them; another place has its own, and what comes back is free."""
    plain, strict, other = Demanding(sharing, "x"), Demanding(sharing, "x+sts", 2), Demanding(sharing, "y", 2, "my")
    for each in (plain, strict, other):
        each.work()
    assert [len(each.held) for each in (plain, strict, other)] == [1, 1, 2]
    assert (
        sharing.waits_for_hosts(strict, "mx")
        and not sharing.has_room("mx", 2)
        and not sharing.waits_for_hosts(other, "my")
    )
    assert sharing.total.taken == 4 and not sharing.total.waiting
    end(plain, plain.held[0])
    await turns()
    assert len(strict.held) == 2 and not sharing.waits_for_hosts(strict, "mx")
    for each in (strict, other):
        for place in tuple(each.held):
            end(each, place)
    assert sharing._by_hosts == {} and sharing.total.taken == 0


async def test_the_only_connection_is_given_up_in_turn(sharing: Sharing, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one connection is all that there may be, who has it is asked for it after its time, and stands in line."""
    monkeypatch.setattr(sharing_module, "TURN", 0.2)
    plain, strict = Demanding(sharing, "x", most=1), Demanding(sharing, "x+sts", most=1)
    plain.work()
    began = asyncio.get_running_loop().time()
    strict.work()
    await turns()
    assert not plain.held[0].is_called_back
    async with asyncio.timeout(5):
        while not plain.held[0].is_called_back:
            await asyncio.sleep(0.01)
    assert asyncio.get_running_loop().time() - began >= 0.2
    plain.held.pop().give_back()
    plain.work()
    await turns()
    assert len(strict.held) == 1 and sharing.waits_for_hosts(plain, "mx")


async def test_who_has_the_hosts_may_still_wait_for_the_relay(sharing: Sharing) -> None:
    """A place that others have in all is given back to those on the same hosts, until the turn of the site comes."""
    crowd = [Demanding(sharing, f"c{number}", 1, f"c{number}") for number in range(8)]
    for each in crowd:
        each.work()
    plain, strict = Demanding(sharing, "x", most=1), Demanding(sharing, "x+sts", most=1)
    plain.work()
    strict.work()
    assert sharing.total.waits(plain) and sharing.total.waits(strict) and sharing.has_room("mx", 1)
    for each in crowd[:2]:
        end(each, each.held[0])
    await turns()
    assert len(plain.held) == 1 and not strict.held and sharing.waits_for_hosts(strict, "mx")
    end(plain, plain.held[0])
    await turns()
    assert len(strict.held) == 1 and sharing.total.taken == 7


async def test_slow_hosts_are_opened_as_often_as_the_limit_says(sharing: Sharing) -> None:
    """Being slow costs a site its turn among all sites, not among those on the same hosts, which are as slow."""
    slow = Demanding(sharing, "x", 2)
    slow.is_slow = True
    slow.work()
    assert len(slow.held) == 2 and sharing.total._slow == 2
