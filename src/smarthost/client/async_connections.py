"""Connections of the client that does not wait: the same requests by aiohttp."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import aiohttp

from smarthost.client.call import BLOCK
from smarthost.client.faults import TimedOut, Unreachable, Unreadable, Untrusted
from smarthost.client.settings import Settings
from smarthost.client.trial import Answer, Prepared

MOST = 64 * 1024 * 1024  # octets of an answer that are read


class _Blocks:
    """Gives blocks that are read from a file, say, in a thread. `fault` is what went wrong with that."""

    def __init__(self, make: Callable[[], Iterator[bytes]]) -> None:
        self._make = make
        self.fault: Exception | None = None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            blocks = self._make()
            while block := await asyncio.to_thread(next, blocks, b""):
                yield block
        except Exception as error:
            self.fault = error
            raise


class AsyncConnections:
    """Connections to one relay, of one event loop."""

    def __init__(self, settings: Settings) -> None:
        """Open none yet: a loop is needed for that."""
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None

    async def exchange(self, request: Prepared) -> Answer:
        """Make one request and read its answer; raises Unreachable, Unreadable, and what reading the content raises."""
        octets = request.content.octets if request.content is not None else None
        content = octets if octets is None or isinstance(octets, bytes) else _Blocks(octets)
        try:
            async with self._ask(request, content) as response:
                return Answer(response.status, _headers(response), await _read(response))
        except (aiohttp.ClientError, OSError) as error:
            if isinstance(content, _Blocks) and content.fault is not None:
                # The library wraps it as if the connection had broken.
                raise content.fault from None
            raise self._fault(error) from None

    @asynccontextmanager
    async def stream(self, request: Prepared) -> AsyncIterator[tuple[Answer, AsyncIterator[bytes]]]:
        """Make one request whose answer goes on and on; gives its head, and the octets as they come.

        Of an answer that is not 200 the content is read. Raises as `exchange`.
        """
        try:
            response = await self._ask(request, None)
            content = b"" if response.status == 200 else await _read(response)
        except (aiohttp.ClientError, OSError) as error:
            raise self._fault(error) from None
        try:
            yield Answer(response.status, _headers(response), content), self._pieces(response)
        finally:
            response.close()

    async def close(self) -> None:
        """Close all connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _ask(self, request: Prepared, content: bytes | _Blocks | None) -> "aiohttp.client._RequestContextManager":
        if self._session is None:
            context = self._settings.context
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=True if context is None else context),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
            # By itself it would make a DELETE twice whose answer was lost, and report the second one's 404.
            self._session._retry_connection = False
        return self._session.request(
            request.method,
            self._settings.place.origin + request.target,
            data=content,
            headers=request.headers,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._settings.timeout, sock_read=request.timeout),
        )

    async def _pieces(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        try:
            async for piece in response.content.iter_any():
                yield piece
        except (aiohttp.ClientError, OSError) as error:
            raise self._fault(error) from None

    def _fault(self, error: aiohttp.ClientError | OSError) -> Unreachable:
        """Say what aiohttp's exceptions mean."""
        place = f"{self._settings.place.host}:{self._settings.place.port}"
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            words = getattr(error.certificate_error, "verify_message", "") or "its certificate is not good"
            return Untrusted(f"{place} is not trusted: {words}", False)
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return TimedOut(f"{place} did not take a connection in time", False)
        if isinstance(error, TimeoutError):
            return TimedOut(f"{place} did not answer in time", True)
        if isinstance(error, aiohttp.ClientConnectorError):
            return Unreachable(f"no connection to {place}: {error.strerror or error.os_error}", False)
        cause = error.__cause__ or error
        return Unreachable(f"the connection to {place} broke: {(str(cause) or type(cause).__name__)[:200]}", True)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    pieces = []
    size = 0
    async for piece in response.content.iter_chunked(BLOCK):
        pieces.append(piece)
        size += len(piece)
        if size > MOST:
            raise Unreadable(f"the answer has more than {MOST} octets")
    return b"".join(pieces)


def _headers(response: aiohttp.ClientResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}
