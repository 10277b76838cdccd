"""Turn: a moment in which the event loop stands still, so that the writer's rows need not fight for the interpreter."""

import asyncio
import threading

# Rows take about 50 µs a message. Where they take longer, because pages have to be read from a slow disk, the loop goes
# on without waiting for them: this is the longest that it ever stands still.
PATIENCE = 0.005


class Turn:
    """One moment, from `ask` to `end`, both by the writer's thread.

    sqlite3 lets go of the interpreter twice a row. A busy loop takes it each time, and each time costs two changes of
    threads: measured with 50 sessions, an eighth of all CPU time. `was_long` says afterwards that the loop went on
    before the end.
    """

    __slots__ = ("_arrived", "_ended", "was_long")

    def __init__(self) -> None:
        """Be ready to ask."""
        self._arrived, self._ended = threading.Lock(), threading.Lock()
        self._arrived.acquire()
        self._ended.acquire()
        self.was_long = False

    def ask(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait until the loop stands still, or for `PATIENCE`; a loop that is closed is not waited for."""
        try:
            loop.call_soon_threadsafe(self._stand_still)
        except RuntimeError:
            return
        self._arrived.acquire(timeout=PATIENCE)

    def end(self) -> None:
        """Let the loop go on; to be called once."""
        self._ended.release()

    def _stand_still(self) -> None:
        self._arrived.release()
        self.was_long = not self._ended.acquire(timeout=PATIENCE)
