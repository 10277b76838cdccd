"""Sends one webhook its events: in order for each message, some at a time, again when they are not taken."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from random import Random

import msgspec

from smarthost.crypto.webhook import sign
from smarthost.network.http_client import HttpAnswer, HttpFault, HttpRequest
from smarthost.outreach.hook_state import HookState, Line
from smarthost.outreach.tail import Tail
from smarthost.policy.webhook import DeadEvent, Webhook, event_type, pause_after, payload, read_retry_after
from smarthost.report.rows import event_row
from smarthost.spool.store import LoggedEvent

log = logging.getLogger(__name__)

Ask = Callable[[HttpRequest], Awaitable[HttpAnswer | HttpFault]]

TIMEOUT = 15.0  # seconds of one request
MOST_AT_ONCE = 32  # requests of one webhook; it begins with two, and each failure halves them
MOST_OPEN = 512  # events in memory that were not taken
MOST_LINES = 5000  # messages that wait to be told again; beyond it the log is not read on
MOST_IN_LINE = 5000  # events of one message that wait
TROUBLE = 5  # failures in a row after which nothing new is tried while anything waits to be tried again
FLUSH = 1.0  # seconds after which progress is written: what was sent since then is sent again after a crash
GONE = 410


class Sender(msgspec.Struct):
    """What the runners of all webhooks share; `gone` is called with a webhook whose receiver wants no more, and `tally`
    counts what was "taken", "refused" and "dead".
    """

    ask: Ask
    tail: Tail
    clock: Callable[[], float]
    rng: Random
    gone: Callable[[Webhook], None]
    tally: MutableMapping[str, int]


class HookRunner:
    """One active webhook. `run` is a task of its owner; `close` ends it in good order."""

    def __init__(self, hook: Webhook, state: HookState, sender: Sender) -> None:
        """Send nothing yet."""
        self.hook, self.state = hook, state
        self.last_error = ""
        self._sender = sender
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._busy: set[int] = set()  # keys of lines whose first event is on its way
        self._allowed = 2
        self._failures = 0  # in a row
        self._quiet_until = 0.0
        self._scan_at = 0.0  # before then no line is due
        self._flush_at = 0.0
        self._closing = False

    async def run(self) -> None:
        """Send until `close`."""
        stop = self._sender.tail.listen(self._wake.set)
        try:
            while not self._closing:
                self._wake.clear()
                await self._read_on()
                self._start()
                self._flush_if_due()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._patience()):
                        await self._wake.wait()
        finally:
            stop()
            for task in self._tasks:
                task.cancel()

    async def close(self, patience: float) -> None:
        """Start nothing more, wait for what is on its way, and write the progress."""
        self._closing = True
        self._wake.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=patience)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.state.is_dirty:
            written = asyncio.Event()
            self.state.flush(lambda fault: written.set())
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await written.wait()

    @property
    def is_troubled(self) -> bool:
        """Whether the receiver has taken nothing for several times."""
        return self._failures >= TROUBLE and bool(self.state.lines)

    async def _read_on(self) -> None:
        state, tail = self.state, self._sender.tail
        while (
            not self._closing
            and state.open_events < MOST_OPEN
            and len(state.lines) < MOST_LINES
            and not self.is_troubled
            and state.read < tail.head
            and not any(len(line.cursors) > MOST_IN_LINE for line in state.lines.values())
        ):
            page = await tail.after(state.read)
            for logged in page.events:
                if logged.tenant == self.hook.tenant and self.hook.wants(event_type(logged.event)):
                    state.take_in(logged)
            if page.end <= state.read:
                return
            state.read = page.end

    def _start(self) -> None:
        """Start what may go: lines that are due first, then what was never tried."""
        now = self._sender.clock()
        if now < self._quiet_until or self._closing:
            return
        free = self._allowed - len(self._tasks)
        if free > 0 and self._scan_at <= now:
            idle = [each for each in self.state.lines.values() if each.key not in self._busy]
            idle.sort(key=lambda line: (line.due, line.cursors[0]))
            going = [line for line in idle[:free] if line.due <= now]
            for line in going:
                self._busy.add(line.key)
                self._run(self._tell_line(line))
            free -= len(going)
            self._scan_at = idle[len(going)].due if len(going) < len(idle) else math.inf
        while free > 0 and self.state.ready and not self.is_troubled:
            self._run(self._tell(self.state.ready.popleft()))
            free -= 1

    def _run(self, telling: Awaitable[None]) -> None:
        async def tell() -> None:
            await telling

        task = asyncio.create_task(tell(), name="webhook")
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        self._wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a webhook could not be sent", exc_info=error)

    def _patience(self) -> float | None:
        """Give the seconds until there may be something to do without being woken."""
        now = self._sender.clock()
        times = [self._flush_at] if self._flush_at else []
        if len(self._tasks) < self._allowed:
            if self._scan_at < math.inf:
                times.append(max(self._scan_at, self._quiet_until))
            if self.state.ready and not self.is_troubled:
                times.append(self._quiet_until)
        return max(min(times) - now, 0.0) + 0.01 if times else None

    def _flush_if_due(self) -> None:
        now = self._sender.clock()
        if not self.state.is_dirty:
            self._flush_at = 0.0
        elif not self._flush_at:
            self._flush_at = now + FLUSH
        elif now >= self._flush_at:
            self.state.flush()
            self._flush_at = 0.0

    async def _tell(self, logged: LoggedEvent) -> None:
        """Send an event for the first time."""
        wrong = await self._post(logged.cursor, body_of(logged))
        if wrong is None:
            self.state.taken(logged)
        else:
            line = Line(self.state.key_of(logged), [])
            self.state.put_in_line(logged, line)
            self._put_off(line, wrong, body_of(logged))
            self._scan_at = min(self._scan_at, line.due)

    async def _tell_line(self, line: Line) -> None:
        """Send the first event of a line again."""
        try:
            cursor, body = line.cursors[0], line.body
            if not body:
                page = await self._sender.tail.one(cursor)
                if not page.events:
                    log.warning("webhook %s: the history forgot an event before it was taken", self.hook.id)
                    self.state.advance(line, self._sender.clock())
                    return
                body = body_of(page.events[0])
            wrong = await self._post(cursor, body)
            if wrong is None:
                self.state.advance(line, self._sender.clock())
            else:
                self._put_off(line, wrong, body)
        finally:
            self._busy.discard(line.key)
            self._scan_at = min(self._scan_at, line.due)

    def _put_off(self, line: Line, wrong: str, body: bytes) -> None:
        """Have a line's first event tried again later, or never."""
        now = self._sender.clock()
        line.attempts += 1
        pause = pause_after(line.attempts, self._sender.rng.random())
        if pause is not None:
            line.due, line.error = now + pause, wrong
            self.state.changed(line)
            return
        self._sender.tally["dead"] += 1
        log.error("webhook %s: an event was not taken %d times, and is not sent again", self.hook.id, line.attempts)
        self.state.advance(line, now, DeadEvent(line.cursors[0], now, line.attempts, wrong, body))

    async def _post(self, cursor: int, body: bytes) -> str | None:
        """Post a body; gives what went wrong, None when it was taken."""
        now, webhook_id = self._sender.clock(), f"evt_{cursor}"
        headers = {
            "Content-Type": "application/json",
            "webhook-id": webhook_id,
            "webhook-timestamp": str(int(now)),
            "webhook-signature": sign(self.hook.secrets(now), webhook_id, int(now), body),
        }
        answer = await self._sender.ask(HttpRequest("POST", self.hook.url, headers, body, TIMEOUT))
        if isinstance(answer, HttpAnswer) and 200 <= answer.status < 300:
            self._went_well()
            return None
        wrong = f"the receiver {answer.reason}" if isinstance(answer, HttpFault) else f"HTTP {answer.status}"
        self._went_wrong(answer, wrong)
        return wrong

    def _went_well(self) -> None:
        self._sender.tally["taken"] += 1
        self._allowed = min(self._allowed + 1, MOST_AT_ONCE)
        if self._failures >= TROUBLE:
            log.info("webhook %s: its receiver takes events again", self.hook.id)
            now = self._sender.clock()
            for line in self.state.lines.values():
                line.due = min(line.due, now)
            self._scan_at = now
        self._failures, self.last_error = 0, ""

    def _went_wrong(self, answer: HttpAnswer | HttpFault, wrong: str) -> None:
        self._sender.tally["refused"] += 1
        self._allowed = max(self._allowed // 2, 1)
        self._failures += 1
        self.last_error = wrong
        if self._failures == TROUBLE:
            log.warning("webhook %s: its receiver takes no events (%s)", self.hook.id, wrong)
        if isinstance(answer, HttpAnswer):
            now = self._sender.clock()
            pause = read_retry_after(answer.headers.get("retry-after", ""), now)
            self._quiet_until = max(self._quiet_until, now + pause) if pause else self._quiet_until
            if answer.status == GONE:
                self._sender.gone(self.hook)


def body_of(logged: LoggedEvent) -> bytes:
    """Write what is posted of an event: its data are what the event routes give, too."""
    return payload(logged.event, {"cursor": logged.cursor} | event_row(logged.event))
