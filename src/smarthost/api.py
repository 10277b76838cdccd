"""Api: the HTTP door of the relay, loaded when it is first needed, so that a relay without it is as small as ever."""

import asyncio
import importlib
import logging
import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import msgspec

from smarthost import __version__
from smarthost.assembly import Relay
from smarthost.attachments import Attachments
from smarthost.compose.limits import SubmissionLimits
from smarthost.config import Config
from smarthost.policy.admission import Listener
from smarthost.policy.http_terms import HttpTerms
from smarthost.queue.templates import Templates
from smarthost.queue.traffic import Traffic
from smarthost.reception.batches.desk import Batches
from smarthost.reception.http.desks import AccountDesk, BounceDesk, SuspensionDesk, TenantDesk, WebhookDesk
from smarthost.reception.http.front import Page
from smarthost.reception.http.parts import HttpParts, Probe
from smarthost.reception.keys import Keys

# An import that is not at the top of a file: Litestar, uvicorn and the routes take 0.6 s and 20 MB, which a relay
# that nobody asks over HTTP does not pay.
DOOR = "smarthost.reception.http.door"

log = logging.getLogger(__name__)


class HttpDoor(Protocol):
    """The HTTP door (`reception.http.door.HttpDoor`), before it is loaded."""

    async def open(self, listener: Listener, environment: Mapping[str, str]) -> list[str]:
        """Listen; gives the addresses that were bound."""

    async def open_handed(self, pages: Mapping[str, Callable[[str], Page]]) -> None:
        """Serve connections that the status server accepts."""

    def take(self, accepted: socket.socket) -> None:
        """Serve a connection."""

    def follow(self, terms: HttpTerms) -> None:
        """Follow other settings."""

    async def drain(self, patience: float) -> None:
        """Let requests end within some seconds."""


class Api:
    """The API of one relay, and the keys to it, which open the SMTP door too."""

    def __init__(self, relay: Relay, accounts: AccountDesk, healthy: Probe, ready: Probe) -> None:
        """Join the parts; nothing is loaded yet."""
        self._relay = relay
        self._healthy, self._ready, self.accounts = healthy, ready, accounts
        self.keys = Keys(relay.spool.records, relay.clock, relay.bookkeeper.ledger)
        self.keys.ended.append(relay.door.expel)
        relay.credentials.keys = self.keys
        self.templates = Templates(relay.spool.records, relay.clock)
        self._door: HttpDoor | None = None
        self._loading: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        config = relay.config
        self.attachments = Attachments(relay, config.data_directory, config.attachments)
        self._parts: HttpParts | None = None
        self._started = asyncio.Event()
        self._waiting: list[socket.socket] = []
        self._is_over = False
        self.pages: Mapping[str, Callable[[str], Page]] = {}
        self.webhooks: WebhookDesk | None = None
        self.bounces: BounceDesk | None = None
        self.tenants: TenantDesk | None = None
        self.suspensions: SuspensionDesk | None = None
        self.batches: Batches | None = None

    async def start(self) -> None:
        """Read the keys, and serve from now on who has asked already."""
        await self.keys.start()
        self._started.set()

    async def open(self, listener: Listener, environment: Mapping[str, str]) -> list[str]:
        """Listen; gives the addresses that were bound. Raises OSError and ValueError as the SMTP door does."""
        await self._load()
        assert self._door is not None
        return await self._door.open(listener, environment)

    def hand_over(self, accepted: socket.socket) -> None:
        """Take a connection of the status server that asks for the API. Called from its threads."""
        try:
            self._relay.loop.call_soon_threadsafe(self._take, accepted)
        except RuntimeError:  # the loop is closed
            accepted.close()

    def _take(self, accepted: socket.socket) -> None:
        if self._is_over:
            accepted.close()
        elif self._door is not None and self._loading is None:
            self._door.take(accepted)
        else:
            self._waiting.append(accepted)
            if self._loading is None:
                self._loading = self._relay.loop.create_task(self._load_late(), name="http load")

    async def _load_late(self) -> None:
        try:
            await self._started.wait()
            await self._load()
        except Exception:
            log.exception("the HTTP door could not be opened")
        waiting, self._waiting = self._waiting, []
        self._loading = None
        for accepted in waiting:
            if self._door is not None:
                self._door.take(accepted)
            else:
                accepted.close()

    async def _load(self) -> None:
        async with self._turn:
            if self._door is None:
                # A thread of its own: those of the loop may all be waiting for just this.
                with ThreadPoolExecutor(1, thread_name_prefix="http load") as thread:
                    module = await self._relay.loop.run_in_executor(thread, importlib.import_module, DOOR)
                self._parts = self._make_parts()
                door: HttpDoor = module.HttpDoor(self._parts, self._relay.loop)
                await door.open_handed(self.pages)
                self._door = door

    def _make_parts(self) -> HttpParts:
        relay = self._relay
        return HttpParts(
            attaching=self.attachments.make(),
            door=relay.door.parts,
            reception_terms=lambda: relay.door.terms,
            terms=relay.config.http,
            limits=limits_of(relay.config),
            lifetime=lambda: relay.config.retry.lifetime,
            keys=self.keys,
            recall=relay.recall,
            spool=relay.spool,
            operator=relay.operator,
            traffic=Traffic(relay.spool.event_log, relay.clock),
            clock=relay.clock,
            healthy=self._healthy,
            ready=self._ready,
            version=__version__,
            accounts=self.accounts,
            templates=self.templates,
            suppression=relay.suppression,
            webhooks=self.webhooks,
            bounces=self.bounces,
            tenants=self.tenants,
            suspensions=self.suspensions,
            deferred_until=relay.reasons.limited_until,
            batches=self.batches,
        )

    def follow(self, config: Config) -> None:
        """Follow another configuration, as after a reload."""
        self.attachments.follow(config.attachments)
        if self._parts is not None:
            self._parts.limits = limits_of(config)
        if self._door is not None:
            self._door.follow(config.http)

    async def close(self) -> None:
        """Let go of what is open, when the loop is about to end."""
        await self.attachments.close()

    async def drain(self, patience: float) -> None:
        """Take no more requests, and let those that are under way end within some seconds."""
        self._is_over = True
        if self._loading is not None:
            if not self._started.is_set():
                self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)
        if self._door is not None:
            await self._door.drain(patience)


def limits_of(config: Config) -> SubmissionLimits:
    """Give what a message in JSON is held to."""
    return msgspec.structs.replace(config.http_limits, attachment=config.attachments.largest)
