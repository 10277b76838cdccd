"""Gauges: what is true at this moment on the event loop, brought over to the thread that serves scrapes."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import TimeoutError as FutureTimeout

import msgspec

TICK = 1.0  # seconds between two looks at the event loop's lag
FRESH = 1.0  # seconds that a snapshot serves: two scrapers at once ask the loop once
PATIENCE = 5.0  # seconds that a scrape waits for the loop; then it shows the last snapshot


class Gauges(msgspec.Struct, frozen=True):
    """A snapshot. It is built on the loop and never changed afterwards, so that another thread may read it.

    `queue_messages` are entries by state ("active", "parked"); `queue_oldest` is the age in seconds of the oldest by
    state; `site_connections` are by (site, state: "busy", "idle", "opening"); `site_suspended` names sites that get
    nothing at present, 1 for each; `delivery_connections` are those of all sites by state ("taken", "allowed"),
    `delivery_sites_waiting` the sites that wait for one, `dns_questions` are by state ("running", "waiting");
    `disk_free_ratio` is of the data directory, 0 to 1.
    """

    queue_messages: dict[str, int] = {}
    queue_oldest: dict[str, float] = {}
    site_queue: dict[str, int] = {}
    site_connections: dict[tuple[str, str], int] = {}
    site_suspended: dict[str, int] = {}
    delivery_connections: dict[str, int] = {}
    delivery_sites_waiting: int = 0
    dns_questions: dict[str, int] = {}
    disk_free_ratio: float = 0.0


class GaugeReader:
    """Gives a recent snapshot to a thread that is not the loop's; call it."""

    def __init__(self, take: Callable[[], Awaitable[Gauges]], loop: asyncio.AbstractEventLoop) -> None:
        """Take snapshots by a coroutine function that runs on the loop."""
        self._take = take
        self._loop = loop
        self._lock = threading.Lock()
        self._latest = Gauges()
        self._taken_at = float("-inf")

    def __call__(self) -> Gauges:
        """Give a snapshot of the last second; the last one there was when the loop does not answer in 5 s."""
        with self._lock:
            if time.monotonic() - self._taken_at < FRESH:
                return self._latest
            taking = self._ask()
            try:
                waiting = asyncio.run_coroutine_threadsafe(taking, self._loop)
            except RuntimeError:  # the loop is closed: the relay is stopping
                taking.close()
                return self._latest
            try:
                self._latest = waiting.result(PATIENCE)
            except FutureTimeout:
                waiting.cancel()
            self._taken_at = time.monotonic()
            return self._latest

    async def _ask(self) -> Gauges:
        return await self._take()


class LoopLag:
    """Measures how late the event loop serves its timers; `seconds` may be read from any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start looking once a second; on the loop's thread."""
        self._loop = loop
        self._expected = loop.time() + TICK
        self._measured = 0.0
        self._timer = loop.call_at(self._expected, self._tick)

    @property
    def seconds(self) -> float:
        """The lag at the last look, or of the look that is overdue now: a loop that hangs is seen from outside."""
        return max(self._measured, self._loop.time() - self._expected, 0.0)

    def stop(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _tick(self) -> None:
        now = self._loop.time()
        self._measured = max(now - self._expected, 0.0)
        self._expected = now + TICK
        self._timer = self._loop.call_at(self._expected, self._tick)
