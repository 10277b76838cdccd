"""A relay behind the control socket that remembers what it was asked."""

# ruff: noqa: D102 - the Protocol that it satisfies says what each method does

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from smarthost.control import ControlServer
from smarthost.control_socket import SOCKET_NAME
from smarthost.control_verbs import Question
from smarthost.spool.store import Filter

Row = dict[str, Any]

ID = "0S3MGHH24900"
NUMBER = 1_767_225_600_123_456 << 4

ENTRY: Row = {
    "id": ID,
    "entry": 1,
    "queue": "relayhost",
    "sender": "app@example.org",
    "recipients": ["you@example.net"],
    "arrived": "2026-01-01T00:00:00.123Z",
    "size": 2048,
    "attempts": 2,
    "why": "retry",
    "due": "2026-01-01T02:00:00.000Z",
    "expires": "2026-01-06T00:00:00.123Z",
    "last": "451 4.3.0 later (smtp.example.net)",
}


class FakeOperations:
    """Satisfies `control_verbs.Operations`; `asked` has the verbs with their arguments, `rows` how many it lists."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any, Any]] = []
        self.rows = 1
        self.given = 0
        self.problems: list[str] = []

    async def queue_list(self, wanted: Filter, limit: int) -> AsyncIterator[Row]:
        self.asked.append(("list", wanted, limit))
        for number in range(min(self.rows, limit or self.rows)):
            self.given += 1
            yield ENTRY | {"entry": number + 1}

    async def queue_show(self, message: int) -> Row | None:
        if message != NUMBER:
            return None
        return {"message": {"id": ID, "sender": "app@example.org"}, "entries": [ENTRY], "events": []}

    async def queue_flush(self, wanted: Filter) -> Row:
        return self._changed("flush", wanted, False)

    async def queue_hold(self, wanted: Filter, dry_run: bool) -> Row:
        return self._changed("hold", wanted, dry_run)

    async def queue_release(self, wanted: Filter, dry_run: bool) -> Row:
        return self._changed("release", wanted, dry_run)

    async def queue_retry(self, wanted: Filter, dry_run: bool) -> Row:
        return self._changed("retry", wanted, dry_run)

    async def queue_fail(self, wanted: Filter, dry_run: bool) -> Row:
        raise RuntimeError("a bug")

    async def queue_delete(self, wanted: Filter, dry_run: bool) -> Row:
        return self._changed("delete", wanted, dry_run)

    async def queue_export(self, wanted: Filter) -> AsyncIterator[Row]:
        yield {"id": ID, "sender": "app@example.org", "recipients": ["you@example.net"]}
        yield {"id": ID, "content": b"Subject: \xff\r\n"}
        yield {"id": ID, "content": b"\r\nbody\r\n", "end": True}

    async def trace(self, message: int) -> AsyncIterator[Row]:
        if message == NUMBER:
            yield {"time": "2026-01-01T00:00:00.123Z", "event": "accepted", "id": ID, "sender": "app@example.org"}

    async def why(self, message: int) -> AsyncIterator[Row]:
        if message == NUMBER:
            yield ENTRY | {"text": "It is tried again.", "since": ENTRY["arrived"], "until": ENTRY["due"]}

    async def explain(self, question: Question) -> Row:
        self.asked.append(("explain", question, None))
        return {"basis": "relay", "verdict": "sent", "recipient": {"address": question.recipient}}

    async def status(self) -> Row:
        return {"version": "0", "queue": {"active": 1}, "listening": ["127.0.0.1:2587"]}

    async def reload(self) -> Row:
        return {"problems": self.problems}

    def _changed(self, verb: str, wanted: Filter, dry_run: bool) -> Row:
        self.asked.append((verb, wanted, dry_run))
        return {"entries": 1, "messages": 1}


@contextmanager
def serving(folder: Path) -> Iterator[FakeOperations]:
    """Serve a fake relay's control socket from a thread with a loop of its own."""
    operations = FakeOperations()
    started = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        server = ControlServer(folder / SOCKET_NAME, operations)
        await server.start()
        started.set()
        await stop.wait()
        await server.stop()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert started.wait(5)
    try:
        yield operations
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(5)
        loop.close()
