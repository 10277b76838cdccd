"""Posts delivery reports to applications: in order, in batches, again until they are taken, and never before asked."""

import asyncio
import logging
from base64 import b64encode
from collections import defaultdict
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any

import msgspec

from smarthost.crypto.webhook import sign
from smarthost.mail.message import format_id
from smarthost.mail.record import Record
from smarthost.network.http_client import HttpAnswer, HttpRequest
from smarthost.outreach.hook_runner import Ask
from smarthost.outreach.tail import Tail
from smarthost.policy.client_sync import OutreachTerms, SyncTarget, body_of, pause_after, read_answer, report_of
from smarthost.spool.store import Fault, LoggedEvent, Spool

log = logging.getLogger(__name__)

STATE = "client-sync-state"
MESSAGE = "message"  # the kind of record that the HTTP door keeps of each message that came by it
EVERYBODY = "*"  # the target of tenants that have none of their own; no tenant can have this name
TIMEOUT = 60.0  # seconds of one call: the application writes what it is told into its database
MOST_REFUSED = 10_000  # reports that an application did not take and is told again; beyond it the oldest are given up
HASTE = 1.0  # seconds between two calls of an application that has more for us but is told nothing
AGAIN = 10.0  # seconds after which a runner that failed of itself is started again


class _Kept(msgspec.Struct):
    """What is read of the HTTP door's record of a message: the application's own name for it."""

    client_id: str = ""


class _State(msgspec.Struct):
    """What is durable of a target: the cursor up to which was told, the cursors of what was not taken, and its rest."""

    cursor: int
    refused: list[int] = []
    rest_until: float = 0.0


class SyncRunner:
    """One target. `run` is a task of its owner; what was told is written before anything else is."""

    def __init__(
        self, name: str, target: SyncTarget, spool: Spool, tail: Tail, ask: Ask, clock: Callable[[], float]
    ) -> None:
        """Tell nothing yet. `name` is a tenant, or `EVERYBODY`, of whom `skips` leaves some out."""
        self.name, self.target = name, target
        self.skips: frozenset[str] = frozenset()
        self.tally: MutableMapping[str, int] = defaultdict(int)
        self._records, self._tail, self._ask, self._clock = spool.records, tail, ask, clock
        self._state = _State(tail.head)
        self._wake = asyncio.Event()
        self._hurries = False
        self._next = 0.0  # when the target is called at the latest
        self._not_before = 0.0
        self._failures = 0
        self._refused_again = 0.0  # when what was refused is told again

    async def run(self) -> None:
        """Tell for ever; the task is cancelled to end it."""
        key = (STATE, self.name, "state")
        found = (await self._records.find([key])).get(key)
        if found is not None:
            self._state = msgspec.json.decode(found.data, type=_State)
        else:
            await self._write()
        stop = self._tail.listen(self._wake.set)
        try:
            while True:
                self._wake.clear()
                await self._sync()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._patience()):
                        await self._wake.wait()
        finally:
            stop()

    def run_now(self) -> None:
        """Call at once, whatever the application asked for."""
        self._hurries = True
        self._wake.set()

    @property
    def is_done(self) -> bool:
        """Whether there is nothing that the application is still to be told."""
        return not self._state.refused and self._state.cursor >= self._tail.head

    async def _sync(self) -> None:
        """Call as often as there is something to tell, or the application has more for us."""
        while True:
            now = self._clock()
            if not self._hurries and now < max(self._not_before, self._state.rest_until):
                return
            with_refused = now >= self._refused_again or self._hurries
            events, end = await self._collect(with_refused)
            if not events and now < self._next and not self._hurries:
                if end != self._state.cursor:
                    self._state.cursor = end  # nothing of it concerns us; written with the next call
                return
            was_asked, self._hurries = self._hurries, False
            if with_refused:
                self._refused_again = now + self.target.interval
            if not await self._call(events, end, was_asked):
                return

    async def _collect(self, with_refused: bool) -> tuple[list[LoggedEvent], int]:
        """Give what is told next, in order, and the cursor behind it."""
        events: list[LoggedEvent] = []
        if with_refused and self._state.refused:
            for cursor in self._state.refused[: self.target.batch]:
                events += (await self._tail.one(cursor)).events
            found = {each.cursor for each in events}
            kept = [each for each in self._state.refused[: self.target.batch] if each in found]
            self._state.refused = kept + self._state.refused[self.target.batch :]  # the history forgot the others
        cursor = self._state.cursor
        while len(events) < self.target.batch and cursor < self._tail.head:
            page = await self._tail.after(cursor)
            for logged in page.events:
                if self._concerns(logged):
                    events.append(logged)
                    if len(events) == self.target.batch:
                        return events, logged.cursor
            if page.end <= cursor:
                break
            cursor = page.end
        return events, cursor

    def _concerns(self, logged: LoggedEvent) -> bool:
        mine = logged.tenant not in self.skips if self.name == EVERYBODY else logged.tenant == self.name
        return mine and report_of(logged.event) is not None

    async def _named(self, events: list[LoggedEvent]) -> list[tuple[LoggedEvent, dict[str, Any]]]:
        """Give the reports of events under the names that applications know, without mail that has none.

        A message that came by HTTP is known by the application's own id, or by ours, which it was answered; one that
        came by SMTP by its ENVID.
        """
        keys = {(MESSAGE, each.tenant, format_id(each.event.message)) for each in events}
        found = await self._records.find(list(keys))
        named = []
        for each in events:
            report, ours = report_of(each.event), format_id(each.event.message)
            record = found.get((MESSAGE, each.tenant, ours))
            name = msgspec.json.decode(record.data, type=_Kept).client_id or ours if record is not None else ""
            if report is not None and (name or each.event.envid):
                named.append((each, report | {"id": name or each.event.envid, "tenant_id": each.tenant}))
        return named

    async def _call(self, events: list[LoggedEvent], end: int, was_asked: bool) -> bool:
        """Post reports and write what became of them; true when the application is to be called again at once."""
        reports = await self._named(events)
        if events and not reports and not was_asked:
            self._state.cursor = end  # written with the next call
            return True
        body = body_of([report for _, report in reports])
        answer = await self._ask(HttpRequest("POST", self.target.url, self._headers(body), body, TIMEOUT))
        now = self._clock()
        if not isinstance(answer, HttpAnswer) or not 200 <= answer.status < 300:
            self._failures += 1
            self.tally["failed"] += 1
            self._not_before = now + pause_after(self._failures)
            wrong = f"HTTP {answer.status}" if isinstance(answer, HttpAnswer) else f"it {answer.reason}"
            log.log(
                logging.WARNING if self._failures == 1 else logging.DEBUG,
                "delivery reports of %s were not taken: %s",
                self.name,
                wrong,
            )
            return False
        self._failures, self._not_before = 0, 0.0
        self.tally["taken"] += 1
        said = read_answer(answer.body, now)
        told = {each.cursor for each, _ in reports}
        refused = [each.cursor for each, report in reports if str(report["id"]) in said.refused]
        left = [each for each in self._state.refused if each not in told]
        self._state = _State(end, sorted({*left, *refused}), said.rest_until if said.rest_until > now else 0.0)
        if len(self._state.refused) > MOST_REFUSED:
            log.error("%d delivery reports of %s are given up", len(self._state.refused) - MOST_REFUSED, self.name)
            self._state.refused = self._state.refused[-MOST_REFUSED:]
        self._next = now + self.target.interval
        await self._write()
        if said.queued and not reports:
            self._not_before = now + HASTE
            self._next = now + HASTE
        return bool(said.queued or reports) and not self._state.rest_until

    def _headers(self, body: bytes) -> Mapping[str, str]:
        target, headers = self.target, {"Content-Type": "application/json", "Accept": "application/json"}
        if target.token:
            headers["Authorization"] = f"Bearer {target.token}"
        elif target.user:
            login = b64encode(f"{target.user}:{target.password}".encode()).decode()
            headers["Authorization"] = f"Basic {login}"
        elif target.secret:
            now = int(self._clock())
            name = f"sync_{self._state.cursor}_{now}"
            headers |= {
                "webhook-id": name,
                "webhook-timestamp": str(now),
                "webhook-signature": sign((target.secret,), name, now, body),
            }
        return headers

    def _patience(self) -> float | None:
        """Give the seconds until something is to be done without being woken."""
        now = self._clock()
        wanted = min(self._next, self._refused_again) if self._state.refused else self._next
        return max(max(wanted, self._not_before, self._state.rest_until) - now, 0.0) + 0.01

    async def _write(self) -> None:
        """Write what was told, and wait until it is durable: until then nothing more is told."""
        record = Record(STATE, self.name, "state", msgspec.json.encode(self._state))
        written: asyncio.Future[Fault | None] = asyncio.get_running_loop().create_future()
        self._records.write([record], (), lambda fault: None if written.done() else written.set_result(fault))
        await written


class ReportPush:
    """Every target of a configuration. `follow` at the start and at each reload, `stop` at the end."""

    def __init__(
        self,
        spool: Spool,
        ask: Ask,
        clock: Callable[[], float],
        tally: MutableMapping[str, int] | None = None,
        guarded: Ask | None = None,
    ) -> None:
        """Tell nobody yet; `ask` puts an HTTP request, `guarded` one to a guarded target.

        `tally` counts calls that were "taken" or "failed".
        """
        self._spool, self._ask, self._guarded, self._clock = spool, ask, guarded or ask, clock
        self._tally = defaultdict(int) if tally is None else tally
        self._tail = Tail(spool.event_log)
        self._runners: dict[str, tuple[SyncRunner, asyncio.Task[None]]] = {}

    async def follow(self, terms: OutreachTerms) -> None:
        """Tell those whom a configuration names, and nobody else; a target that stays goes on where it is."""
        wanted = dict(terms.tenants)
        if terms.sync is not None:
            wanted[EVERYBODY] = terms.sync
        skips = frozenset(terms.tenants)
        for name, (runner, _) in tuple(self._runners.items()):
            if wanted.get(name) != runner.target or (name == EVERYBODY and skips != runner.skips):
                await self._end(name)
        for name, target in wanted.items():
            if name not in self._runners:
                self._begin(name, target, skips if name == EVERYBODY else frozenset())

    def run_now(self, tenant: str) -> bool:
        """Call the application of a tenant at once, "" for those of all; false when there is none."""
        if not tenant:
            for runner, _ in self._runners.values():
                runner.run_now()
            return bool(self._runners)
        found = self._runners.get(tenant) or self._runners.get(EVERYBODY)
        if found is not None:
            found[0].run_now()
        return found is not None

    def is_told(self, tenant: str) -> bool:
        """Say whether everything that happened was told to the application of a tenant; true where it has none."""
        found = self._runners.get(tenant) or self._runners.get(EVERYBODY)
        return found is None or found[0].is_done

    async def stop(self) -> None:
        """End; what was told and not written is told again."""
        for name in tuple(self._runners):
            await self._end(name)

    def _begin(self, name: str, target: SyncTarget, skips: frozenset[str]) -> None:
        ask = self._guarded if target.is_guarded else self._ask
        runner = SyncRunner(name, target, self._spool, self._tail, ask, self._clock)
        runner.skips, runner.tally = skips, self._tally
        task = asyncio.create_task(self._keep(runner), name=f"delivery reports of {name}")
        self._runners[name] = runner, task

    async def _keep(self, runner: SyncRunner) -> None:
        """Run a target, and again a while after it failed of itself."""
        while True:
            try:
                await runner.run()
            except Exception:
                log.exception("delivery reports of %s stopped, and go on soon", runner.name)
            await asyncio.sleep(AGAIN)

    async def _end(self, name: str) -> None:
        _, task = self._runners.pop(name)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
