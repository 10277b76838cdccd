"""The loop stands still while many rows are written, never for long, and nobody waits for a loop that does not come."""

import asyncio
import threading
import time

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
        return heard

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
