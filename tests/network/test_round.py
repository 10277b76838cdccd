"""Rounds: everything that was heard is worked through, in order, before anything is written."""

import asyncio
from functools import partial

from smarthost.network.round import LARGE, MOST_HELD, Round


async def test_work_comes_before_writing() -> None:
    """What several sessions hear in one turn of the loop is taken in order, then each writes."""
    rounds = Round(asyncio.get_running_loop())
    told: list[str] = []

    def take(name: str, data: bytes) -> None:
        told.append(f"{name} takes {data.decode()}")
        rounds.speak(lambda: told.append(f"{name} writes"))

    for name, data in (("a", b"1"), ("b", b"2"), ("a", b"3")):
        rounds.hear(partial(take, name), data)
    assert not told
    await asyncio.sleep(0)
    assert told == ["a takes 1", "b takes 2", "a takes 3", "a writes", "b writes", "a writes"]


async def test_a_session_that_ends_does_not_miss_what_it_heard() -> None:
    """Asked to run, a round takes what is there at once; later there is nothing left, and nothing is taken twice."""
    rounds = Round(asyncio.get_running_loop())
    taken: list[bytes] = []
    rounds.hear(taken.append, b"last words")
    rounds.run()
    assert taken == [b"last words"]
    rounds.run()
    await asyncio.sleep(0)
    assert taken == [b"last words"]


async def test_much_does_not_wait() -> None:
    """A large reading is taken at once, behind what was heard before, and so is what many sessions add up to."""
    rounds = Round(asyncio.get_running_loop())
    sizes: list[int] = []

    def take(data: bytes) -> None:
        sizes.append(len(data))

    rounds.hear(take, b"x")
    rounds.hear(take, b"x" * (LARGE + 1))
    assert sizes == [1, LARGE + 1]
    sizes.clear()
    for _ in range(MOST_HELD // LARGE + 1):
        rounds.hear(take, b"x" * LARGE)
    assert len(sizes) == MOST_HELD // LARGE + 1


async def test_one_that_fails_does_not_stop_the_others() -> None:
    """What raises in its round is told to the loop; whoever comes behind is served."""
    loop = asyncio.get_running_loop()
    rounds = Round(loop)
    faults: list[object] = []
    taken: list[bytes] = []
    loop.set_exception_handler(lambda loop, context: faults.append(context["exception"]))

    def fail(data: bytes = b"") -> None:
        raise ValueError("a bug")

    rounds.hear(fail, b"1")
    rounds.hear(taken.append, b"2")
    rounds.speak(fail)
    rounds.speak(lambda: taken.append(b"written"))
    await asyncio.sleep(0)
    assert taken == [b"2", b"written"]
    assert [str(fault) for fault in faults] == ["a bug", "a bug"]


async def test_what_is_heard_within_a_round_has_a_round_of_its_own() -> None:
    """A session that hears or speaks while a round runs is served, though later."""
    rounds = Round(asyncio.get_running_loop())
    told: list[str] = []

    def write() -> None:
        told.append("written")
        if len(told) < 3:
            rounds.speak(write)
            rounds.run()

    rounds.speak(write)
    for _ in range(4):
        await asyncio.sleep(0)
    assert told == ["written"] * 3
