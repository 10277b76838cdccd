"""Webhooks of all tenants: asked for, changed, listed, replayed, and each sent by a runner of its own while active."""

import asyncio
import logging
import secrets
from collections import defaultdict
from collections.abc import Callable, Coroutine, MutableMapping, Sequence
from random import Random
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from smarthost.crypto.sealing import Sealer
from smarthost.crypto.webhook import new_secret, secret_fault
from smarthost.mail.record import Record, RecordKey
from smarthost.outreach.hook_runner import Ask, HookRunner, Sender
from smarthost.outreach.hook_state import (
    DEAD,
    LINE,
    STATE,
    WEBHOOK,
    HookState,
    Line,
    dead_id,
    dead_of,
    line_record,
    record_of,
    records_of,
    state_record,
    webhook_of,
)
from smarthost.outreach.tail import Tail
from smarthost.policy.webhook import (
    EVERYTHING,
    DeadEvent,
    Faults,
    Webhook,
    WebhookStatus,
    WebhookWish,
    wish_faults,
)
from smarthost.spool.store import Fault, RecordStore, Spool

log = logging.getLogger(__name__)

Box = Callable[[], Sealer]

MOST = 20  # webhooks of a tenant
OVERLAP = 86_400.0  # seconds for which a secret that was replaced signs, too
AGAIN = 10.0  # seconds after which a runner that failed of itself is started again
_STOP = 1.0  # seconds that requests on their way have at a change or at the end


class Webhooks:
    """Every webhook. `start`, then `stop`; in between the rest may be called, by routes as well."""

    def __init__(
        self,
        spool: Spool,
        ask: Ask,
        box: Box,
        clock: Callable[[], float],
        rng: Random,
        tally: MutableMapping[str, int] | None = None,
    ) -> None:
        """Send nothing yet; `ask` puts an HTTP request, `box` gives what seals the secrets. `tally` counts."""
        self._box = box
        self._records: RecordStore = spool.records
        self._clock = clock
        self._tail = Tail(spool.event_log)
        self.sender = Sender(ask, self._tail, clock, rng, self._gone, defaultdict(int) if tally is None else tally)
        self._runners: dict[RecordKey, tuple[HookRunner, asyncio.Task[None]]] = {}
        self._changes: set[asyncio.Task[None]] = set()
        self._locks: WeakValueDictionary[RecordKey, asyncio.Lock] = WeakValueDictionary()
        self._stopping = False

    async def start(self) -> None:
        """Start every webhook that is active."""
        after = ("", "")
        while page := await self._records.all(WEBHOOK, after):
            for record in page:
                await self._begin(webhook_of(record, self._box()))
            after = page[-1].tenant, page[-1].id

    async def stop(self) -> None:
        """End all, with the progress written."""
        self._stopping = True
        for change in tuple(self._changes):
            change.cancel()
        await asyncio.gather(*self._changes, *map(self._end, tuple(self._runners)), return_exceptions=True)

    async def create(self, tenant: str, wish: WebhookWish) -> Webhook | Faults:
        """Make a webhook, or say what is wrong; its secret is shown by this answer, and listings leave it out."""
        faults = self._faults(wish)
        if wish.url is None:
            faults = (("url", "is missing"), *faults)
        elif not faults and await self._records.count(WEBHOOK, tenant) >= MOST:
            faults = (("", f"there are {MOST} webhooks already"),)
        if faults:
            return faults
        hook = Webhook(
            secrets.token_hex(10),
            tenant,
            wish.url or "",
            wish.secret or new_secret(),
            wish.events or (EVERYTHING,),
            wish.description or "",
            wish.active is not False,
            created=self._clock(),
        )
        # Its place in the log is written beside it, so that it hears of everything from this moment on.
        await self._write([record_of(hook, self._box()), state_record(hook, self._tail.head)])
        await self._begin(hook)
        return hook

    async def page(self, tenant: str, after: str = "", limit: int = 100) -> list[Webhook]:
        """Give a tenant's webhooks behind an id."""
        return [webhook_of(record, self._box()) for record in await self._records.page(WEBHOOK, tenant, after, limit)]

    async def get(self, tenant: str, name: str) -> Webhook | None:
        """Give a webhook."""
        key = (WEBHOOK, tenant, name)
        found = (await self._records.find([key])).get(key)
        return None if found is None else webhook_of(found, self._box())

    async def update(self, tenant: str, name: str, wish: WebhookWish) -> Webhook | Faults | None:
        """Change what a wish names; None when there is no such webhook.

        A new secret (`secret` "" has one made) signs at once, and the one before beside it for a day. One that is made
        active goes on where it was.
        """
        if faults := self._faults(wish):
            return faults
        async with self._lock(tenant, name):
            hook = await self.get(tenant, name)
            if hook is None:
                return None
            changes: dict[str, object] = {
                key: value
                for key in ("url", "events", "description", "active")
                if (value := getattr(wish, key)) is not None
            }
            if wish.secret is not None:
                now = self._clock()
                changes |= {"secret": wish.secret or new_secret(), "former": hook.secret, "former_until": now + OVERLAP}
            if wish.active:
                changes["disabled"] = ""
            hook = msgspec.structs.replace(hook, **changes)
            if not hook.secret:
                return (("secret", 'cannot be read with this relay\'s key; give a new one, or "" to have one made'),)
            await self._end(hook_key(hook))
            await self._write([record_of(hook, self._box())])
            await self._begin(hook)
            return hook

    async def delete(self, tenant: str, name: str) -> bool:
        """Remove a webhook with all that waits for it; false when there is none."""
        async with self._lock(tenant, name):
            hook = await self.get(tenant, name)
            if hook is None:
                return False
            await self._end(hook_key(hook))
            owned = [*await records_of(self._records, hook, LINE), *await records_of(self._records, hook, DEAD)]
            keys = [hook_key(hook), (STATE, tenant, name), *(record.key for record in owned)]
            await self._write([], keys)
        return True

    async def status(self, hook: Webhook) -> WebhookStatus:
        """Say how a webhook fares."""
        if (running := self._runners.get(hook_key(hook))) is not None:
            state = running[0].state
            return WebhookStatus(state.position, len(state.lines), running[0].last_error)
        state = HookState(hook, self._records)
        await state.load(self._tail.head)
        return WebhookStatus(state.position, len(state.lines), hook.disabled)

    async def dead(self, tenant: str, name: str, after: int = 0, limit: int = 100) -> list[DeadEvent] | None:
        """Give events that are not sent any more, behind a cursor; None when there is no such webhook."""
        hook = await self.get(tenant, name)
        if hook is None:
            return None
        page = await self._records.page(DEAD, tenant, dead_id(hook, after), limit)
        return [dead_of(record) for record in page if record.id.startswith(f"{hook.id}.")]

    async def replay_dead(self, tenant: str, name: str, cursors: Sequence[int] = ()) -> int | None:
        """Send dead events again, all or some; gives how many, None when there is no such webhook."""
        async with self._lock(tenant, name):
            hook = await self.get(tenant, name)
            if hook is None:
                return None
            found = [(record, dead_of(record)) for record in await records_of(self._records, hook, DEAD)]
            chosen = [each for each in found if not cursors or each[1].cursor in cursors]
            now = self._clock()
            lines = [Line(-dead.cursor, [dead.cursor], 0, now, dead.error, dead.body) for _, dead in chosen]
            await self._end(hook_key(hook))
            await self._write([line_record(hook, line) for line in lines], [record.key for record, _ in chosen])
            await self._begin(hook)
            return len(chosen)

    async def replay(self, tenant: str, name: str, cursor: int) -> bool:
        """Send everything behind a cursor again that the history still has; false when there is no such webhook."""
        async with self._lock(tenant, name):
            hook = await self.get(tenant, name)
            if hook is None:
                return False
            await self._end(hook_key(hook))
            await self._write([state_record(hook, min(max(cursor, 0), self._tail.head))])
            await self._begin(hook)
            return True

    def _faults(self, wish: WebhookWish) -> Faults:
        wrong = secret_fault(wish.secret) if wish.secret else ""
        return (*wish_faults(wish), *((("secret", wrong),) if wrong else ()))

    def _lock(self, tenant: str, name: str) -> asyncio.Lock:
        return self._locks.setdefault((WEBHOOK, tenant, name), asyncio.Lock())

    async def _begin(self, hook: Webhook) -> None:
        """Start a webhook's runner, if it is active."""
        if not hook.active or self._stopping:
            return
        state = HookState(hook, self._records)
        await state.load(self._tail.head)
        runner = HookRunner(hook, state, self.sender)
        task = asyncio.create_task(runner.run(), name=f"webhook {hook.id}")
        self._runners[hook_key(hook)] = runner, task
        task.add_done_callback(lambda ended: self._ended(hook, ended))

    async def _end(self, key: RecordKey) -> None:
        """End a webhook's runner; its progress is with the spool before what is written next."""
        runner, task = self._runners.pop(key, (None, None))
        if runner is not None and task is not None:
            await runner.close(_STOP)
            await asyncio.gather(task, return_exceptions=True)

    def _ended(self, hook: Webhook, task: "asyncio.Task[None]") -> None:
        running = self._runners.get(hook_key(hook))
        if running is None or running[1] is not task or task.cancelled():
            return
        log.error("webhook %s stopped, and is started again soon", hook.id, exc_info=task.exception())
        self._change(self._begin_again(hook))

    async def _begin_again(self, hook: Webhook) -> None:
        await asyncio.sleep(AGAIN)
        async with self._lock(hook.tenant, hook.id):
            await self._end(hook_key(hook))
            found = await self.get(hook.tenant, hook.id)
            if found is not None:
                await self._begin(found)

    def _gone(self, hook: Webhook) -> None:
        log.warning("webhook %s: its receiver answered 410 Gone, so that it is not active any more", hook.id)
        self._change(self._disable(hook, "the receiver answered 410 Gone"))

    async def _disable(self, hook: Webhook, reason: str) -> None:
        async with self._lock(hook.tenant, hook.id):
            found = await self.get(hook.tenant, hook.id)
            if found is None or not found.active or found.url != hook.url:
                return
            await self._end(hook_key(hook))
            await self._write([record_of(msgspec.structs.replace(found, active=False, disabled=reason), self._box())])

    def _change(self, change: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(change, name="webhook change")
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)

    async def _write(self, kept: Sequence[Record], removed: Sequence[RecordKey] = ()) -> None:
        """Write records and wait until they are durable; raises OSError when the disk is full."""
        written: asyncio.Future[Fault | None] = asyncio.get_running_loop().create_future()
        self._records.write(kept, removed, lambda fault: None if written.done() else written.set_result(fault))
        fault = await written
        if fault is not None:
            raise OSError(f"the spool could not be written: {fault}")


def hook_key(hook: Webhook) -> RecordKey:
    """Give the key of a webhook's record."""
    return WEBHOOK, hook.tenant, hook.id
