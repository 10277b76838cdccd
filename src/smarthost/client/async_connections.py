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


class ContentFault(Exception):
    """What the caller gave to be sent cannot be read; its cause says why."""


class AsyncConnections:
    """Connections to one relay, of one event loop."""

    def __init__(self, settings: Settings) -> None:
        """Open none yet: a loop is needed for that."""
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None

    async def exchange(self, request: Prepared) -> Answer:
        """Make one request and read its answer; raises Unreachable, Unreadable, and what reading the content raises."""
        try:
            async with self._ask(request, self._settings.timeout) as response:
                return Answer(response.status, _headers(response), await _read(response))
        except ContentFault as fault:
            raise (fault.__cause__ or fault) from None
        except (aiohttp.ClientError, OSError) as error:
            raise self._fault(error) from None

    @asynccontextmanager
    async def stream(self, request: Prepared, silence: float) -> AsyncIterator[tuple[Answer, AsyncIterator[bytes]]]:
        """Make one request whose answer goes on and on; gives its head, and the octets as they come.

        Of an answer that is not 200 the content is read. Raises as `exchange`.
        """
        try:
            response = await self._ask(request, silence)
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

    def _ask(self, request: Prepared, silence: float) -> "aiohttp.client._RequestContextManager":
        if self._session is None:
            context = self._settings.context
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=True if context is None else context),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
            # By itself it would make a DELETE twice whose answer was lost, and report the second one's 404.
            self._session._retry_connection = False
        octets = request.content.octets if request.content is not None else None
        return self._session.request(
            request.method,
            self._settings.place.origin + request.target,
            data=octets if octets is None or isinstance(octets, bytes) else _blocks(octets),
            headers=request.headers,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._settings.timeout, sock_read=silence),
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
        return Unreachable(f"the connection to {place} broke: {(str(error) or type(error).__name__)[:200]}", True)


async def _blocks(make: Callable[[], Iterator[bytes]]) -> AsyncIterator[bytes]:
    """Give blocks that are read from a file, say, in a thread."""
    try:
        blocks = make()
        while block := await asyncio.to_thread(next, blocks, b""):
            yield block
    except Exception as error:
        raise ContentFault from error


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
