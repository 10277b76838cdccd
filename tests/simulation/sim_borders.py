"""The borders of a simulated relay: its bounds of memory, its threads, what it fetches by HTTPS, and its log."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from sim_world import World

from smarthost.crypto import tls
from smarthost.network import oauth, sts
from smarthost.queue import room


class Inline:
    """Stands where worker threads are: tasks run on the loop, in their order."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Work on a loop."""
        self._loop = loop

    def submit(self, task: Callable[[], None]) -> None:
        """Run a task in the next turn; nothing runs any more in a life that is over."""
        if not self._loop.is_closed():
            self._loop.call_soon(task)


class Bugs(logging.Handler):
    """Takes what the relay logs with a traceback: that is a bug, whatever came of it."""

    def __init__(self, world: World) -> None:
        """Tell a world."""
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        """Blame what has a traceback."""
        if record.exc_info and record.exc_info[1] is not None:
            self._world.blame(f"{record.getMessage()}: {record.exc_info[1]!r}")


@contextmanager
def bounded(bounds: dict[str, int]) -> Iterator[None]:
    """Let the scheduler have little memory."""
    with replaced({(room, name): value for name, value in bounds.items()}):
        yield


_MADE_ONCE = lru_cache(tls._make_client_context)  # reading the system's authorities takes longer than most worlds


@contextmanager
def replaced(values: dict[tuple[Any, str], Any]) -> Iterator[None]:
    """Put other values in the place of names of modules, for a while."""
    before = {place: getattr(*place) for place in values}
    for place, value in values.items():
        setattr(*place, value)
    try:
        yield
    finally:
        for place, value in before.items():
            setattr(*place, value)


@contextmanager
def fetched_from(world: World) -> Iterator[None]:
    """Have what is fetched by HTTPS in threads come from a world."""
    fetch = world.tokens.fetch
    made = (tls, "_make_client_context"), _MADE_ONCE
    with replaced({(oauth, "in_thread"): fetch, (sts, "in_thread"): fetch, made[0]: made[1]}):
        yield


@contextmanager
def watched(world: World) -> Iterator[None]:
    """Hear what the relay logs."""
    log, bugs = logging.getLogger("smarthost"), Bugs(world)
    was, level = log.propagate, log.level
    log.addHandler(bugs)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(bugs)
        log.propagate, log.level = was, level
