"""Gate: accepts connections of implicit TLS one by one, so that they are counted and refused before their handshake."""

import asyncio
import socket
import ssl
from collections.abc import Callable

from smarthost.reception.connection import TLS_SHUTDOWN_TIMEOUT, Connection
from smarthost.reception.peer import client_of

AT_ONCE = 64  # connections accepted between two looks at the sessions
PAUSE = 1.0  # seconds without accepting when the process has no file descriptor left


class Gate:
    """A listening socket whose connections begin with a TLS handshake.

    The loops' own servers know nothing of a connection before its handshake is done, and uvloop cannot hold back what a
    client sends right behind `connection_made`: either would leave hanging handshakes uncounted.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listening: socket.socket,
        make_session: Callable[[], Connection],
        context: ssl.SSLContext,
        handshake_timeout: float,
    ) -> None:
        """Accept from now on; the timeout is in seconds."""
        self._loop = loop
        self._listening = listening
        self._make_session = make_session
        self._context = context
        self._handshake_timeout = handshake_timeout
        self._again: asyncio.TimerHandle | None = None
        self._watch()

    def close(self) -> None:
        """Stop accepting."""
        if self._again is not None:
            self._again.cancel()
        self._loop.remove_reader(self._listening.fileno())
        self._listening.close()

    def _watch(self) -> None:
        self._loop.add_reader(self._listening.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                accepted, peer = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                self._loop.remove_reader(self._listening.fileno())
                self._again = self._loop.call_later(PAUSE, self._watch)
                return
            accepted.setblocking(False)
            self._let_in(accepted, peer)

    def _let_in(self, accepted: socket.socket, peer: object) -> None:
        session = self._make_session()
        if session.arrive(client_of(peer)) is not None:
            accepted.close()
            return
        session.await_handshake(
            self._loop.connect_accepted_socket(
                lambda: session,
                accepted,
                ssl=self._context,
                ssl_handshake_timeout=self._handshake_timeout,
                ssl_shutdown_timeout=TLS_SHUTDOWN_TIMEOUT,
            )
        )
