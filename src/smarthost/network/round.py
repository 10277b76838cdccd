"""Round: what many sessions have heard is worked through in a row, then what they have to say is written in a row."""

import asyncio
from collections.abc import Callable

MOST_HELD = 1024 * 1024  # octets that wait for their round; more is worked through at once
LARGE = 64 * 1024  # octets of one reading that do not wait, so that a session that sends much is soon told to pause


class Round:
    """Gathers what sessions hear in one turn of the event loop, and does the work and then the writing.

    Reading, working and writing run through different code, of the kernel and of ours; session by session each drives
    the other two out of the processor's caches. In a row, the same work took 10 to 15 % less CPU time.

    Within one session everything stays in order. To be used on the loop's thread only; a session whose connection
    ends calls `run` first, so that nothing that was heard before the end is missed.
    """

    __slots__ = ("_heard", "_is_due", "_is_running", "_loop", "_octets", "_spoken")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin with nothing heard."""
        self._loop = loop
        self._heard: list[tuple[Callable[[bytes], None], bytes]] = []
        self._spoken: list[Callable[[], None]] = []
        self._octets = 0
        self._is_due = self._is_running = False

    def hear(self, take: Callable[[bytes], None], data: bytes) -> None:
        """Have octets taken when the loop has read what it can, or at once when they are many."""
        self._heard.append((take, data))
        self._octets += len(data)
        if len(data) > LARGE or self._octets > MOST_HELD:
            self.run()
        elif not self._is_due:
            self._is_due = True
            self._loop.call_soon(self.run)

    def speak(self, write: Callable[[], None]) -> None:
        """Have something written when the work of this round is done."""
        self._spoken.append(write)
        if not (self._is_due or self._is_running):
            self._is_due = True
            self._loop.call_soon(self.run)

    def run(self) -> None:
        """Do what is due, now; harmless at any time. What raises is told to the loop, and the others go on."""
        if self._is_running:
            return
        self._is_running, self._is_due = True, False
        heard = self._heard
        if heard:
            self._heard, self._octets = [], 0
            for take, data in heard:
                try:
                    take(data)
                except Exception as error:
                    self._tell(error)
        spoken = self._spoken
        if spoken:
            self._spoken = []
            for write in spoken:
                try:
                    write()
                except Exception as error:
                    self._tell(error)
        self._is_running = False
        if self._heard or self._spoken:
            self._is_due = True
            self._loop.call_soon(self.run)

    def _tell(self, error: Exception) -> None:
        self._loop.call_exception_handler({"message": "a session failed in its round", "exception": error})
