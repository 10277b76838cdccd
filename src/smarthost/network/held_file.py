"""A file that threads read and write for tasks, and that a task may let go of while a thread is still at it."""

import asyncio
import os
import threading
from collections.abc import Callable


class HeldFile:
    """Opened by the first thread that needs it. Its methods but `let_go` are for threads, and may raise OSError.

    A task that is cancelled leaves its thread behind. If it closed the descriptor then, the thread would go on with
    whatever gets the same number next; so each use, and the closing, waits for the one before.
    """

    def __init__(self, opening: Callable[[], int]) -> None:
        """Open nothing yet; `opening` gives a descriptor."""
        self._opening, self._descriptor = opening, -1
        self._is_closed = False
        self._lock = threading.Lock()

    def size(self) -> int:
        """Give the octets of the file."""
        with self._lock:
            return os.fstat(self._opened()).st_size

    def read(self, octets: int) -> bytes:
        """Give the next octets, b"" at the end, and after the closing."""
        with self._lock:
            return b"" if self._is_closed else os.read(self._opened(), octets)

    def read_at(self, offset: int, octets: int) -> bytes:
        """Give octets from a place on, b"" behind the end and after the closing."""
        with self._lock:
            return b"" if self._is_closed else os.pread(self._opened(), octets, offset)

    def write(self, block: bytes) -> None:
        """Append a block."""
        with self._lock:
            view = memoryview(block)
            while view and not self._is_closed:
                view = view[os.write(self._opened(), view) :]

    def rewind(self) -> None:
        """Go back to the start."""
        with self._lock:
            os.lseek(self._opened(), 0, os.SEEK_SET)

    def sync(self) -> None:
        """Bring it to the disk."""
        with self._lock:
            os.fsync(self._opened())

    def close(self) -> None:
        """Close it; a second time is no error."""
        with self._lock:
            self._is_closed = True
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def let_go(self) -> None:
        """Close it as soon as no thread is at it; for the loop, which does not wait."""
        asyncio.get_running_loop().run_in_executor(None, self.close)

    def _opened(self) -> int:
        if self._is_closed:
            raise OSError("the file was closed")
        if self._descriptor < 0:
            self._descriptor = self._opening()
        return self._descriptor
