"""Streams: answers that go on and on, and how they end: with the key that opened them, and with the relay."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from smarthost.mail.key import Key
from smarthost.reception.http.callers import Caller
from smarthost.reception.http.problem import too_many

MOST = 16  # streams of one key at a time


class Stream:
    """One stream. `wake` is set when there may be something to be said, and when `is_over`."""

    def __init__(self, caller: Caller) -> None:
        """Begin."""
        self.caller = caller
        self.wake = asyncio.Event()
        self.is_over = False

    def end(self) -> None:
        """Let it end."""
        self.is_over = True
        self.wake.set()


class Streams:
    """All streams that are open."""

    def __init__(self) -> None:
        """Begin with none."""
        self._open: set[Stream] = set()
        self._is_over = False

    @contextmanager
    def opened(self, caller: Caller) -> Iterator[Stream]:
        """Open a stream for as long as it is read; raises Refused (429) where a key has too many."""
        stream = Stream(caller)
        if self._is_over:
            stream.end()
        self._open.add(stream)
        try:
            yield stream
        finally:
            self._open.discard(stream)

    def check(self, caller: Caller) -> None:
        """Raise Refused (429) where a caller has as many streams as may be."""
        mine = caller.key.id if caller.key is not None else ""
        if sum((each.caller.key.id if each.caller.key is not None else "") == mine for each in self._open) >= MOST:
            raise too_many(10, f"{MOST} streams of one key are allowed at a time")

    def expel(self, key: Key) -> None:
        """End what a key has opened."""
        for stream in self._open:
            if stream.caller.key is not None and stream.caller.key.id == key.id:
                stream.end()

    def close(self) -> None:
        """End all, and those that still come."""
        self._is_over = True
        for stream in self._open:
            stream.end()
