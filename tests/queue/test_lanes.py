"""The ready queue's order: priorities, users in turn, first in first out; and what is put back or taken out."""

import pytest

from smarthost.mail.entry import Entry
from smarthost.mail.envelope import Envelope, Priority, Recipient
from smarthost.mail.message import Arrival, Message
from smarthost.mail.route import Deliver, Route, Site
from smarthost.policy.limits import SiteLimits
from smarthost.queue.lanes import Lanes
from smarthost.queue.ready import ReadyQueue

T0 = 1_790_000_000.0
PRIORITIES = {"i": Priority.IMMEDIATE, "h": Priority.HIGH, "m": Priority.MEDIUM, "l": Priority.LOW}


def entry(name: str) -> Entry:
    """Make an entry named by priority, user and number, as "mA1"."""
    recipient = Recipient(f"{name}@example.net", "example.net")
    envelope = Envelope("a@example.org", (recipient,), priority=PRIORITIES[name[0]])
    number = sum(ord(letter) << 8 * place for place, letter in enumerate(name))
    message = Message(number, Arrival(at=T0, identity=name[1]), envelope, 3)
    return Entry(message, 1, "relayhost", (recipient,), T0, T0 + 86400, T0 + 14400)


def name_of(waiting: Entry) -> str:
    """Give the name of an entry."""
    return waiting.recipients[0].address.partition("@")[0]


def ready_with(names: str) -> ReadyQueue:
    """Make a ready queue with entries."""
    ready = ReadyQueue(Site("example.net", (), Route("mx", Deliver.MX), T0), SiteLimits())
    for name in names.split():
        ready.push(entry(name))
    return ready


def drain(ready: ReadyQueue) -> str:
    """Take all, and check on the way that what is looked at is what is taken, and what is announced is what comes."""
    announced = [name_of(each) for each in ready.todo]
    names = []
    while ready.todo:
        front = ready.todo[0]
        assert ready.take() is front
        names.append(name_of(front))
    assert names == announced
    return " ".join(names)


def test_one_priority_and_one_user_wait_in_a_deque() -> None:
    """The usual case is first in, first out, and has nothing to do with lanes."""
    ready = ready_with("mA1 mA2 mA3")
    assert not isinstance(ready.todo, Lanes)
    assert drain(ready) == "mA1 mA2 mA3"


def test_an_urgent_entry_overtakes() -> None:
    """A higher priority goes before what has waited longer, in order of arrival among its like."""
    ready = ready_with("lA1 lA2 mA1 hA1 iA1 hA2 mA2")
    assert isinstance(ready.todo, Lanes)
    assert drain(ready) == "iA1 hA1 hA2 mA1 mA2 lA1 lA2"


def test_users_take_turns() -> None:
    """One message of a user does not wait behind all those of another one; each user's own keep their order."""
    assert drain(ready_with("mA1 mA2 mA3 mA4 mB1 mC1 mC2")) == "mA1 mB1 mC1 mA2 mC2 mA3 mA4"


def test_low_mail_does_not_starve() -> None:
    """While urgent mail keeps coming, low mail leaves, too."""
    ready = ready_with("lA1")
    served = []
    for number in range(40):
        ready.push(entry(f"hB{number:02}"))
        served.append(name_of(ready.take()))
    assert served.index("lA1") == 16


def test_it_is_a_deque_again_after_it_was_empty() -> None:
    """What comes after all has left costs no more than before, whoever's it is."""
    ready = ready_with("mA1 hB1")
    drain(ready)
    ready.push(entry("lC1"))
    assert not isinstance(ready.todo, Lanes)
    ready.push(entry("lC2"))
    assert drain(ready) == "lC1 lC2"


@pytest.mark.parametrize("names", ["mA1 mA2 mA3", "mA1 mB1 hA1"])
def test_what_is_put_back_goes_first(names: str) -> None:
    """Entries that were taken and not tried are the next ones again, in their order."""
    ready = ready_with(names)
    taken = [ready.take(), ready.take()]
    assert ready.busy == 2
    for each in reversed(taken):
        ready.push_back(each)
    assert ready.busy == 0
    assert drain(ready).split()[:2] == [name_of(each) for each in taken]


@pytest.mark.parametrize("names", ["mA1 mA2 mA3 mA4", "mA1 mB1 hA1 lA1"])
def test_withdraw_takes_one_out(names: str) -> None:
    """One entry leaves, wherever it waits, also when it was put back; the others stay."""
    ready = ready_with(names)
    ready.push_back(ready.take())
    for name in names.split():
        assert ready.withdraw(entry(name).key)
        assert not ready.withdraw(entry(name).key)
        assert name not in " ".join(name_of(each) for each in ready.todo)
    assert not ready.todo
    assert len(ready.todo) == 0


@pytest.mark.parametrize("names", ["mA1 mA2", "mA1 mB1 hA1 lA1"])
def test_drain_takes_all(names: str) -> None:
    """All that waits is given, and nothing waits afterwards."""
    ready = ready_with(names)
    ready.push_back(ready.take())
    assert sorted(name_of(each) for each in ready.drain()) == sorted(names.split())
    assert not ready.todo
    ready.push(entry("hZ1"))
    assert drain(ready) == "hZ1"


def test_lanes_without_entries() -> None:
    """Nothing can be taken, looked at or removed where nothing waits; nor any place but the front."""
    lanes = Lanes()
    with pytest.raises(IndexError):
        lanes.popleft()
    with pytest.raises(IndexError):
        lanes[0]
    with pytest.raises(ValueError, match="does not wait"):
        lanes.remove(entry("mA1"))
    lanes.append(entry("mA1"))
    with pytest.raises(IndexError):
        lanes[1]
