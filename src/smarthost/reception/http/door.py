"""The HTTP door as a whole: its listeners, the front, the routes; opened, drained and closed like the SMTP door."""

import asyncio
import socket
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from smarthost.policy.admission import Listener, Tls
from smarthost.policy.http_terms import HttpTerms
from smarthost.reception.http.accounts import ACCOUNTS
from smarthost.reception.http.batch_submit import BatchSubmit
from smarthost.reception.http.batches import BATCHES
from smarthost.reception.http.bounces import BOUNCES
from smarthost.reception.http.callers import Callers
from smarthost.reception.http.commands import COMMANDS
from smarthost.reception.http.dead_letters import DEAD_LETTERS
from smarthost.reception.http.downloads import DOWNLOADS
from smarthost.reception.http.events import EVENTS
from smarthost.reception.http.front import BATCHES_PATH, MESSAGES, Front, Page
from smarthost.reception.http.health import HEALTH
from smarthost.reception.http.keys_admin import KEYS
from smarthost.reception.http.listing import LISTING
from smarthost.reception.http.metrics import METRICS
from smarthost.reception.http.parts import HttpParts
from smarthost.reception.http.proxy import Proxy
from smarthost.reception.http.proxy_document import PROXY_BATCHES
from smarthost.reception.http.proxy_listing import PROXY_LISTING
from smarthost.reception.http.routes import make_routes
from smarthost.reception.http.serve import HttpServer
from smarthost.reception.http.submit import Submit
from smarthost.reception.http.suppression_export import SUPPRESSION_EXPORT
from smarthost.reception.http.suppressions import SUPPRESSIONS
from smarthost.reception.http.templates import TEMPLATES
from smarthost.reception.http.tenants import TENANTS
from smarthost.reception.http.webhooks import WEBHOOKS
from smarthost.reception.listen import name_of, open_sockets

ROUTES = (
    *HEALTH,
    *KEYS,
    *ACCOUNTS,
    *LISTING,
    *EVENTS,
    *DEAD_LETTERS,
    *WEBHOOKS,
    *BOUNCES,
    *BATCHES,
    *TEMPLATES,
    *SUPPRESSIONS,
    *DOWNLOADS,
    *SUPPRESSION_EXPORT,
    *COMMANDS,
    *PROXY_LISTING,
    *TENANTS,
    *METRICS,
)


class HttpDoor:
    """Every way in by HTTP."""

    def __init__(self, parts: HttpParts, loop: asyncio.AbstractEventLoop) -> None:
        """Be ready to open listeners on a loop."""
        self._parts = parts
        self._callers = Callers(parts.keys, parts.terms)
        self._front = Front(self._callers, make_routes(parts, ROUTES))
        submit = Submit(parts)
        proxy = Proxy(parts, submit)
        self._front.lean["POST", MESSAGES] = submit
        self._front.lean["POST", "/messages/add"] = proxy.add
        for path in PROXY_BATCHES:
            self._front.lean["POST", path] = proxy.add_batch
        self._front.lean["POST", BATCHES_PATH] = BatchSubmit(parts)
        self._server = HttpServer(self._front, loop, parts.reception_terms().submission.max_connections)
        self._socket_files: list[Path] = []
        parts.keys.ended.append(parts.streams.expel)

    async def open(self, listener: Listener, environment: Mapping[str, str]) -> list[str]:
        """Listen; gives the addresses that were bound. Raises OSError and ValueError as the SMTP door does."""
        tls = self._parts.door.tls
        if listener.tls is Tls.STARTTLS:
            raise ValueError(f"{listener.address}: HTTP has no STARTTLS; allowed are implicit and none")
        if listener.tls is Tls.IMPLICIT and tls is None:
            raise ValueError(f"{listener.address}: tls = implicit needs a certificate")
        addresses = []
        for opened in open_sockets(listener.address, environment):
            addresses.append(name_of(opened))
            if listener.address.startswith("unix:"):
                self._socket_files.append(Path(opened.getsockname()))
            context = tls.context if listener.tls is Tls.IMPLICIT and tls is not None else None
            await self._server.open(opened, context)
        return addresses

    async def open_handed(self, pages: Mapping[str, Callable[[str], Page]]) -> None:
        """Serve connections that the status server accepts; its pages are shown on them, too."""
        self._front.pages = {path: partial(page) for path, page in pages.items()}
        await self._server.open_handed()

    def take(self, accepted: socket.socket) -> None:
        """Serve a connection that was accepted, and from which nothing was read. On the loop."""
        self._server.take(accepted)

    def follow(self, terms: HttpTerms) -> None:
        """Follow other settings, as after a reload."""
        self._parts.terms = terms
        self._callers.follow(terms)

    async def drain(self, patience: float) -> None:
        """Take no more requests, and let those that are under way end within some seconds."""
        self._front.is_stopping = True
        self._parts.streams.close()
        await self._server.stop(patience)
        for path in self._socket_files:
            path.unlink(missing_ok=True)
        self._socket_files.clear()
