"""Asks HTTP servers on the relay's own loop, with bounds on all: connections, time, octets, whom it speaks to."""

import importlib
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from enum import StrEnum
from functools import partial
from typing import Protocol

import msgspec

from smarthost.network.dns import Resolver
from smarthost.network.in_thread import in_thread

MOST_OCTETS = 64 * 1024  # of an answer that are read
# Loaded with the first question: a relay that asks nobody does not pay for aiohttp.
SESSION = "smarthost.network.http_session"


class HttpFaultKind(StrEnum):
    """Why there was no answer."""

    PRIVATE = "private_address"  # the host is not on the Internet, and may not be spoken to
    BAD_URL = "bad_url"
    TIMEOUT = "timeout"
    TLS = "tls"
    UNREACHABLE = "unreachable"
    TOO_LONG = "too_long"


class HttpFault(msgspec.Struct, frozen=True):
    """Why there was no answer; `reason` is the end of a sentence that begins with who was asked."""

    kind: HttpFaultKind
    reason: str


class HttpAnswer(msgspec.Struct, frozen=True):
    """What was answered, redirects included: none is ever followed. Names of `headers` are in lower case.

    Its representation hides the body.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        """Write it without the body."""
        return f"HttpAnswer(status={self.status})"


class HttpRequest(msgspec.Struct, frozen=True):
    """What is asked, within `timeout` seconds in all. Its representation hides all but the method.

    `encoded` says that the URL is asked for as it is written, since a signature covers its octets.
    """

    method: str
    url: str
    headers: Mapping[str, str] = {}
    body: bytes = b""
    timeout: float = 20.0
    most_octets: int = MOST_OCTETS
    encoded: bool = False

    def __repr__(self) -> str:
        """Write it without what may be secret."""
        return f"HttpRequest({self.method})"


class HttpStream:
    """An answer whose body is read block by block; names of `headers` are in lower case."""

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str],
        length: int | None,
        blocks: AsyncGenerator[bytes | HttpFault, None],
    ) -> None:
        """Take what was answered; of the body, which has `length` octets if that is known, nothing was read."""
        self.status, self.headers, self.length = status, headers, length
        self._blocks = blocks

    def blocks(self) -> AsyncGenerator[bytes | HttpFault, None]:
        """Give the body as it comes; a fault is the last thing, where there is one."""
        return self._blocks


class HttpSession(Protocol):
    """What sends the questions (`network.http_session.HttpSession`), before it is loaded."""

    async def ask(self, request: HttpRequest) -> HttpAnswer | HttpFault:
        """Put one question."""

    def open(self, request: HttpRequest) -> AbstractAsyncContextManager[HttpStream | HttpFault]:
        """Put one question whose answer may be large."""

    async def close(self) -> None:
        """End every connection."""


class HttpClient:
    """Asks with at most `connections` at a time, and keeps some open between questions.

    Whom it speaks to is looked at when a socket is made for a resolved address, so that no name, alias or number
    leads to a private one unless `allow_private`.
    """

    def __init__(
        self,
        resolver: Resolver,
        context: Callable[[], ssl.SSLContext],
        *,
        connections: int = 32,
        allow_private: bool = False,
    ) -> None:
        """Open nothing yet; `context` gives the TLS context of each question."""
        self.allow_private = allow_private
        self._resolver, self._context, self._connections = resolver, context, connections
        self._session: HttpSession | None = None

    async def ask(self, request: HttpRequest) -> HttpAnswer | HttpFault:
        """Put one question; what goes wrong is a value."""
        return await (self._session or await self._load()).ask(request)

    @asynccontextmanager
    async def open(self, request: HttpRequest) -> AsyncIterator[HttpStream | HttpFault]:
        """Put one question whose answer may be large; `most_octets` is not looked at. What goes wrong is a value."""
        async with (self._session or await self._load()).open(request) as found:
            yield found

    async def _load(self) -> HttpSession:
        module = await in_thread(partial(importlib.import_module, SESSION), "http client load")
        if self._session is None:  # another question may have been quicker
            self._session = module.HttpSession(
                self._resolver, self._context, self._connections, lambda: self.allow_private
            )
        return self._session

    async def close(self) -> None:
        """End every connection; questions under way hear a fault."""
        if self._session is not None:
            await self._session.close()
