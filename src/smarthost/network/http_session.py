"""Sends questions over HTTP by aiohttp and translates what goes wrong; loaded with the first question."""

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from smarthost.network.dns import Resolver
from smarthost.network.dns_query import DnsFault
from smarthost.network.http_client import HttpAnswer, HttpFault, HttpFaultKind, HttpRequest, HttpStream
from smarthost.network.in_thread import in_thread
from smarthost.policy.public_address import is_public

_LOCAL = "localhost"
_BLOCK = 64 * 1024


class _PrivateAddress(OSError):
    """An address that may not be spoken to."""


class _Names(AbstractResolver):
    """Finds addresses by the relay's own resolver; the system is asked, in a thread, for what that does not know."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found: list[str] = []
        if host != _LOCAL:
            answer = await self._resolver.addresses(host)
            if not isinstance(answer, DnsFault):
                found = [*answer.v4, *answer.v6]
        if not found:
            ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
            found = list(dict.fromkeys(str(each[4][0]) for each in await in_thread(ask)))
        return [_result(host, port, address) for address in found if family in (socket.AF_UNSPEC, _family(address))]

    async def close(self) -> None:
        """Close nothing: the resolver is the relay's."""


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _result(host: str, port: int, address: str) -> ResolveResult:
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return ResolveResult(hostname=host, host=address, port=port, family=_family(address), proto=0, flags=flags)


class HttpSession:
    """Asks with at most `connections` at a time, for an `HttpClient`; `allow_private` is asked for each socket."""

    def __init__(
        self,
        resolver: Resolver,
        context: Callable[[], ssl.SSLContext],
        connections: int,
        allow_private: Callable[[], bool],
    ) -> None:
        """Open nothing yet; `context` gives the TLS context of each question."""
        self._resolver, self._context, self._connections = resolver, context, connections
        self._allow_private = allow_private
        # Waiting for others' questions is no part of one's own time.
        self._room = asyncio.Semaphore(connections)
        self._made: aiohttp.ClientSession | None = None

    async def ask(self, request: HttpRequest) -> HttpAnswer | HttpFault:
        """Put one question; what goes wrong is a value."""
        try:
            async with self._room, self._send(request) as response:
                body = await response.content.read(request.most_octets + 1)
                while len(body) <= request.most_octets and (more := await response.content.readany()):
                    body += more
                if len(body) > request.most_octets:
                    response.close()
                    return HttpFault(HttpFaultKind.TOO_LONG, "gave an answer that is too long")
                return HttpAnswer(response.status, headers_of(response), body)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return fault_of(error)

    @asynccontextmanager
    async def open(self, request: HttpRequest) -> AsyncIterator[HttpStream | HttpFault]:
        """Put one question whose answer may be large; `most_octets` is not looked at. What goes wrong is a value."""
        async with self._room:
            try:
                response = await self._send(request)
            except (aiohttp.ClientError, OSError, ValueError) as error:
                yield fault_of(error)
                return
            try:
                yield HttpStream(response.status, headers_of(response), response.content_length, _blocks(response))
            finally:
                response.close()

    def _send(self, request: HttpRequest) -> Any:
        return self._session.request(
            request.method,
            URL(request.url, encoded=True) if request.encoded else request.url,
            headers={"Accept-Encoding": "identity", "User-Agent": "smarthost", **request.headers},
            data=request.body or None,
            timeout=aiohttp.ClientTimeout(total=request.timeout),
            allow_redirects=False,
            ssl=self._context(),
        )

    @property
    def _session(self) -> aiohttp.ClientSession:
        if self._made is None:
            connector = aiohttp.TCPConnector(
                limit=self._connections,
                resolver=_Names(self._resolver),
                socket_factory=self._make_socket,
                ttl_dns_cache=30,
                keepalive_timeout=20.0,
            )
            self._made = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            )
        return self._made

    def _make_socket(self, info: Any) -> socket.socket:
        """Make a socket for an address, which is where whoever is asked is known for certain."""
        family, kind, protocol, _, address = info
        if not self._allow_private() and not is_public(str(address[0])):
            raise _PrivateAddress("has a private address, which is not allowed")
        return socket.socket(family, kind, protocol)

    async def close(self) -> None:
        """End every connection; questions under way hear a fault."""
        if self._made is not None:
            await self._made.close()


async def _blocks(response: aiohttp.ClientResponse) -> AsyncGenerator[bytes | HttpFault, None]:
    try:
        async for block in response.content.iter_chunked(_BLOCK):
            yield block
    except (aiohttp.ClientError, OSError, ValueError) as error:
        yield fault_of(error)


def headers_of(response: aiohttp.ClientResponse) -> dict[str, str]:
    """Give the headers of an answer by their names in lower case."""
    return {name.lower(): value for name, value in response.headers.items()}


def fault_of(error: Exception) -> HttpFault:
    """Translate what the library raises; texts never carry the URL, which may be secret."""
    causes = [error, getattr(error, "os_error", None), *getattr(getattr(error, "os_error", None), "exceptions", ())]
    if any(isinstance(each, _PrivateAddress) for each in causes):
        return HttpFault(HttpFaultKind.PRIVATE, "has a private address, which is not allowed")
    if isinstance(error, TimeoutError):
        return HttpFault(HttpFaultKind.TIMEOUT, "did not answer in time")
    if isinstance(error, aiohttp.InvalidURL | ValueError) and not isinstance(error, aiohttp.ClientSSLError):
        return HttpFault(HttpFaultKind.BAD_URL, "has no address that can be asked")
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return HttpFault(HttpFaultKind.TLS, "has no valid certificate")
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return HttpFault(HttpFaultKind.TLS, "cannot be spoken to: the TLS handshake failed")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return HttpFault(HttpFaultKind.UNREACHABLE, "has a name that cannot be resolved")
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError):
        return HttpFault(HttpFaultKind.UNREACHABLE, "closed the connection")
    system = getattr(error, "os_error", error)
    what = getattr(system, "strerror", None) or type(error).__name__
    return HttpFault(HttpFaultKind.UNREACHABLE, f"cannot be reached ({what})")
