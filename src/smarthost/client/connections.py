"""Connections: requests on kept connections by the standard library's HTTP, for the client that waits."""

import http.client
import os
import select
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from smarthost.client.call import BLOCK
from smarthost.client.faults import TimedOut, Unreachable, Unreadable, Untrusted
from smarthost.client.settings import Settings
from smarthost.client.trial import Answer, Prepared

MOST = 64 * 1024 * 1024  # octets of an answer that are read
KEPT = 10  # connections that are kept when nobody uses them


class ContentFault(Exception):
    """What the caller gave to be sent cannot be read; its cause says why."""


class Connections:
    """Connections to one relay. Threads may share them; a process that forks has its own."""

    def __init__(self, settings: Settings) -> None:
        """Open none yet."""
        self._settings = settings
        self._lock = threading.Lock()
        self._idle: list[http.client.HTTPConnection] = []
        self._owner = os.getpid()

    def exchange(self, request: Prepared) -> Answer:
        """Make one request and read its answer; raises Unreachable, Unreadable, and what reading the content raises."""
        connection = self._take() or self._make()
        try:
            response = _ask(connection, request)
            content = _read(response)
        except BaseException:
            connection.close()
            raise
        if response.will_close:
            connection.close()
        else:
            self._keep(connection)
        return Answer(response.status, _headers(response), content)

    @contextmanager
    def stream(self, request: Prepared) -> Iterator[tuple[Answer, Iterator[bytes]]]:
        """Make one request whose answer goes on and on; gives its head, and the octets as they come.

        Of an answer that is not 200 the content is read. Raises as `exchange`.
        """
        connection = self._make()
        try:
            response = _ask(connection, request)
            content = b"" if response.status == 200 else _read(response)
            yield Answer(response.status, _headers(response), content), _pieces(response)
        finally:
            connection.close()

    def close(self) -> None:
        """Close what is idle; what is in use is closed with its answer."""
        with self._lock:
            idle, self._idle = self._idle, []
        for each in idle:
            each.close()

    def _take(self) -> http.client.HTTPConnection | None:
        with self._lock:
            if self._owner != os.getpid():
                # The parent's: two processes on one connection would read each other's answers.
                self._owner, self._idle = os.getpid(), []
            while self._idle:
                connection = self._idle.pop()
                if not _has_ended(connection):
                    return connection
                connection.close()
        return None

    def _keep(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            if len(self._idle) < KEPT and self._owner == os.getpid():
                self._idle.append(connection)
                return
        connection.close()

    def _make(self) -> http.client.HTTPConnection:
        place, context, timeout = self._settings.place, self._settings.context, self._settings.timeout
        if context is None:
            return http.client.HTTPConnection(place.host, place.port, timeout=timeout)
        return http.client.HTTPSConnection(place.host, place.port, timeout=timeout, context=context)


def _has_ended(connection: http.client.HTTPConnection) -> bool:
    """Whether the peer has closed an idle connection: there is something to be read where nothing was asked."""
    if connection.sock is None:
        return True
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))


def _ask(connection: http.client.HTTPConnection, request: Prepared) -> http.client.HTTPResponse:
    """Send a request and read the head of its answer."""
    place = f"{connection.host}:{connection.port}"
    if connection.sock is None:
        try:
            connection.connect()
        except ssl.SSLCertVerificationError as error:
            raise Untrusted(f"{place} is not trusted: {error.verify_message}", False) from None
        except TimeoutError:
            raise TimedOut(f"{place} did not take a connection in time", False) from None
        except OSError as error:
            raise Unreachable(f"no connection to {place}: {error.strerror or error}", False) from None
    connection.sock.settimeout(request.timeout)
    try:
        try:
            octets = request.content.octets if request.content is not None else None
            connection.request(
                request.method,
                request.target,
                body=octets if octets is None or isinstance(octets, bytes) else _guarded(octets()),
                headers=dict(request.headers),
            )
        except (BrokenPipeError, ConnectionResetError):
            # A relay that refuses a long content answers, and reads no more of it: the answer may be there.
            pass
        return connection.getresponse()
    except ContentFault as fault:
        raise (fault.__cause__ or fault) from None
    except TimeoutError:
        raise TimedOut(f"{place} did not answer in time", True) from None
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"the connection to {place} broke: {_words(error)}", True) from None


def _guarded(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Give blocks; a fault in making them is not taken for one of the connection."""
    try:
        yield from blocks
    except Exception as error:
        raise ContentFault from error


def _read(response: http.client.HTTPResponse) -> bytes:
    """Read the content of an answer."""
    try:
        content = response.read(MOST + 1)
    except TimeoutError:
        raise TimedOut("the answer did not end in time", True) from None
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"the answer broke off: {_words(error)}", True) from None
    if len(content) > MOST:
        raise Unreadable(f"the answer has more than {MOST} octets")
    if response.length:
        raise Unreachable(f"the answer broke off: {response.length} octets are missing", True)
    return content


def _pieces(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """Give what comes, as it comes."""
    try:
        while piece := response.read1(BLOCK):
            yield piece
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"the stream broke off: {_words(error)}", True) from None


def _headers(response: http.client.HTTPResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.getheaders()}


def _words(error: Exception) -> str:
    return (getattr(error, "strerror", "") or str(error) or type(error).__name__)[:200]
