"""Front: watches whether the entry at the front of a ready queue moves, and tells when it has not for a moment."""

import asyncio
from collections.abc import Callable

from smarthost.mail.entry import Entry
from smarthost.queue.ready import ReadyQueue

PATIENCE = 0.005  # seconds that one entry may stand at the front before further sessions are opened


class Front:
    """Watches one ready queue. Mutable; `stalled` is called while `is_stalled` says that the front has not moved."""

    def __init__(self, ready: ReadyQueue, loop: asyncio.AbstractEventLoop, stalled: Callable[[], None]) -> None:
        """Begin without watching."""
        self.is_stalled = False
        self._ready, self._loop, self._stalled = ready, loop, stalled
        self._entry: Entry | None = None

    def watch(self) -> None:
        """Look again in a moment whether the entry at the front has moved, unless that is done already."""
        if self._entry is None:
            self._entry = self._ready.todo[0]
            self._loop.call_later(PATIENCE, self._look)

    def _look(self) -> None:
        front, self._entry = self._entry, None
        if not self._ready.todo:
            return
        if self._ready.todo[0] is front:
            # The peer is slow or far away, so that what waits is better carried side by side.
            self.is_stalled = True
            self._stalled()
            self.is_stalled = False
        else:
            self.watch()
