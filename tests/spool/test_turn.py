"""The loop stands still while many rows are written, never for long, and nobody waits for a loop that does not come."""

import asyncio
import threading
import time

import pytest
from spool_samples import Opener, accept, sample

from smarthost.spool import writer
from smarthost.spool.turn import PATIENCE, Turn


async def test_the_loop_stands_still_until_the_end() -> None:
    """Between ask and end nothing of the loop's runs; afterwards everything does."""
    loop = asyncio.get_running_loop()
    told: list[str] = []

    def write() -> None:
        turn = Turn()
        turn.ask(loop)
        loop.call_soon_threadsafe(told.append, "loop")
        told.append("asked")
        time.sleep(PATIENCE / 5)
        told.append("ended")
        turn.end()

    await asyncio.to_thread(write)
    await asyncio.sleep(0)
    assert told == ["asked", "ended", "loop"]


async def test_a_turn_that_is_too_long_is_not_waited_for() -> None:
    """Rows that take long do not hold the loop up: it goes on although nobody said so."""
    loop = asyncio.get_running_loop()
    went_on, ended = threading.Event(), threading.Event()

    def write() -> bool:
        turn = Turn()
        turn.ask(loop)
        loop.call_soon_threadsafe(went_on.set)
        heard = went_on.wait(10)
        turn.end()
        ended.set()
        return heard and turn.was_long

    assert await asyncio.to_thread(write)
    assert ended.is_set()


async def test_a_loop_that_is_busy_or_closed_is_not_waited_for() -> None:
    """The writer goes on after its patience, and the loop, coming late, does not stop for a turn that is over."""
    loop = asyncio.get_running_loop()
    asked = threading.Event()

    def write() -> None:
        turn = Turn()
        turn.ask(loop)
        turn.end()
        asked.set()

    thread = threading.Thread(target=write)
    thread.start()
    assert asked.wait(10), "the loop was waited for although it did not come"
    await asyncio.sleep(0)
    thread.join()
    closed = asyncio.new_event_loop()
    closed.close()
    Turn().ask(closed)


async def test_the_writer_asks_for_turns_until_one_was_too_long(
    open_sqlite: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many rows are written in a turn, few are not; after a turn that was too long there is none for a while."""
    asked: list[Turn] = []

    class Watched(Turn):
        __slots__ = ()
        is_slow = False

        def ask(self, loop: asyncio.AbstractEventLoop) -> None:
            asked.append(self)
            super().ask(loop)

        @property
        def was_long(self) -> bool:
            return self.is_slow

        @was_long.setter
        def was_long(self, value: bool) -> None:
            pass

    monkeypatch.setattr(writer, "Turn", Watched)
    spool = open_sqlite()
    await accept(spool, sample(1))
    assert not asked
    serials = iter(range(100, 10_000))
    for _ in range(3):
        await accept(spool, *(sample(next(serials)) for _ in range(60)))
    assert len(asked) >= 3
    Watched.is_slow = True
    await accept(spool, *(sample(next(serials)) for _ in range(60)))
    found = len(asked)
    await accept(spool, *(sample(next(serials)) for _ in range(60)))
    assert len(asked) == found
