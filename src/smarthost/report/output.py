"""Output: brings log lines to a file descriptor in batches, without ever making the event loop wait."""

import asyncio
import os
import threading
from queue import SimpleQueue

FLUSH_DELAY = 0.05  # seconds that a line waits for company
FLUSH_SIZE = 64 * 1024  # octets that are sent on at once
MAX_BACKLOG = 16 * 1024 * 1024  # octets that wait for a reader that has stopped; lines beyond are dropped and counted


class Output:
    """Gathers lines on the event loop and hands them, batch by batch, to a writer thread.

    A thread and not a non-blocking descriptor: standard output is often shared (a terminal, a pipe with the parent),
    and O_NONBLOCK would be set for everyone who shares it; a poll says that some octets fit, not that a batch does.
    One hand-over a batch costs some 20 µs in 50 ms. When the reader stops, at most MAX_BACKLOG octets wait; what comes
    then is dropped and counted in `dropped`: the relay goes on, and the history in the spool still has every event.
    """

    def __init__(self, descriptor: int, loop: asyncio.AbstractEventLoop) -> None:
        """Write to an open file descriptor, which stays the caller's; starts the writer thread."""
        self.dropped = 0
        self._descriptor = descriptor
        self._loop = loop
        self._loop_thread = threading.get_ident()
        self._lines: list[bytes] = []
        self._size = 0
        self._armed: asyncio.TimerHandle | None = None
        self._batches: SimpleQueue[bytes | None] = SimpleQueue()
        self._handed = 0
        self._written = 0
        self._closed = False
        self._thread = threading.Thread(target=self._drain, name="smarthost-log", daemon=True)
        self._thread.start()

    def write(self, line: bytes) -> None:
        """Add one line, newline included; on the event loop only."""
        self._lines.append(line)
        self._size += len(line)
        if self._size >= FLUSH_SIZE:
            self.flush()
        elif self._armed is None:
            self._armed = self._loop.call_later(FLUSH_DELAY, self.flush)

    def write_from_anywhere(self, line: bytes) -> None:
        """Add one line from any thread, and also when the loop has ended."""
        if threading.get_ident() == self._loop_thread and not self._loop.is_closed():
            self.write(line)
            return
        try:
            self._loop.call_soon_threadsafe(self.write, line)
        except RuntimeError:  # the loop is closed: order no longer matters
            self._hand_over(line)

    def flush(self) -> None:
        """Hand the gathered lines to the writer thread; does not wait for the disk or the reader."""
        if self._armed is not None:
            self._armed.cancel()
            self._armed = None
        if self._lines:
            batch = b"".join(self._lines)
            count = len(self._lines)
            self._lines.clear()
            self._size = 0
            self._hand_over(batch, count)

    def close(self, timeout: float = 2.0) -> None:
        """Flush, and wait at most some seconds until everything is written."""
        self.flush()
        self._closed = True
        self._batches.put(None)
        self._thread.join(timeout)

    def _hand_over(self, batch: bytes, count: int = 1) -> None:
        if self._closed or self._handed - self._written > MAX_BACKLOG:
            self.dropped += count
            return
        self._handed += len(batch)
        self._batches.put(batch)

    def _drain(self) -> None:
        while (batch := self._batches.get()) is not None:
            if not self._write_all(batch):
                self._closed = True  # the reader is gone for good: what follows is dropped and counted
                return
            self._written += len(batch)

    def _write_all(self, batch: bytes) -> bool:
        rest = memoryview(batch)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:  # somebody who shares the descriptor made it non-blocking
                threading.Event().wait(0.01)
            except OSError:
                return False
        return True
