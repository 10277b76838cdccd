"""Door: opens listeners, counts who is in, says who may come in, and lets the last ones finish."""

import asyncio
import socket
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from smarthost.mail.key import Key
from smarthost.mail.reply import SHUTTING_DOWN, TOO_MANY_CONNECTIONS, TOO_MANY_FAILURES, Reply, make_reply
from smarthost.network.round import Round
from smarthost.policy.admission import Listener, Role, Tls
from smarthost.reception.connection import Connection
from smarthost.reception.gate import Gate
from smarthost.reception.listen import BACKLOG, name_of, open_sockets
from smarthost.reception.parts import Parts
from smarthost.reception.peer import block_of, is_loopback
from smarthost.reception.smtp import SmtpSession
from smarthost.reception.terms import Terms

TICK = 1.0  # seconds between two looks for idle sessions
DRAIN_LOOK = 0.02  # seconds between two looks at who is left, at a shutdown
KEY_ENDED = make_reply(421, "4.7.0", "The API key is not valid any more")
HOUSE_FULL = make_reply(421, "4.3.2", "Too many connections, try again later")


class Annex(msgspec.Struct, frozen=True):
    """What sessions of listeners with another role follow and work with; at most `max_connections` at once."""

    terms: Terms
    parts: Parts
    max_connections: int


class Door:
    """All SMTP listeners of the process, and the sessions that came in by them.

    `terms` may be replaced at any time and holds for sessions that come after; `paused` is None, or the reply to
    every new connection and command; `sessions` are those that are open; `ticks` counts seconds; `commits` counts
    drafts that were asked to commit and have not answered, whose session may be gone; `annexes` are for listeners
    with other roles, and may be replaced as `terms` may.
    """

    def __init__(self, terms: Terms, parts: Parts, loop: asyncio.AbstractEventLoop) -> None:
        """Be ready to open listeners on a loop."""
        self.terms = terms
        self.parts = parts
        self.annexes: dict[Role, Annex] = {}
        self.paused: Reply | None = None
        self.sessions: set[Connection] = set()
        self.ticks = 0
        self.commits = 0
        self.template: Mapping[str, Any] = SmtpSession.make_template(terms.hostname, loop)
        self.round = Round(loop)
        self._loop = loop
        self._servers: list[asyncio.AbstractServer | Gate] = []
        self._socket_files: list[Path] = []
        self._crowds: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def open(self, listener: Listener, environment: Mapping[str, str]) -> list[str]:
        """Listen; gives the addresses that were bound, with their ports.

        `environment` is the process's, for systemd's sockets. Raises OSError when an address cannot be had, and
        ValueError with a sentence when the listener cannot be served as it is configured.
        """
        if listener.proxy_protocol:
            raise ValueError(f"{listener.address}: proxy_protocol is not supported yet")
        if listener.role is not Role.SUBMISSION and listener.role not in self.annexes:
            raise ValueError(f"{listener.address}: role = {listener.role} needs [bounces] domain")
        if listener.tls is not Tls.NONE and self.parts.tls is None:
            raise ValueError(f"{listener.address}: tls = {listener.tls} needs a certificate")
        addresses = []
        for opened in open_sockets(listener.address, environment):
            addresses.append(name_of(opened))
            if listener.address.startswith("unix:"):
                self._socket_files.append(Path(opened.getsockname()))
            self._servers.append(await self._serve(listener, opened))
        if self._timer is None:
            self._timer = self._loop.call_later(TICK, self._tick_on)
        return addresses

    async def _serve(self, listener: Listener, opened: socket.socket) -> asyncio.AbstractServer | Gate:
        factory = partial(self._make_session, listener)
        if listener.tls is Tls.IMPLICIT and self.parts.tls is not None:
            return Gate(self._loop, opened, factory, self.parts.tls.context, self.terms.handshake_timeout)
        if opened.family == socket.AF_UNIX:
            return await self._loop.create_unix_server(factory, sock=opened, backlog=BACKLOG)
        return await self._loop.create_server(factory, sock=opened, backlog=BACKLOG)

    def _make_session(self, listener: Listener) -> SmtpSession:
        annex = self.annexes.get(listener.role)
        if annex is not None:
            return SmtpSession(self, annex.terms, annex.parts, listener, self._loop)
        return SmtpSession(self, self.terms, self.parts, listener, self._loop)

    def admit(self, session: Connection, client: str, trusted: bool) -> Reply | None:
        """Let a connection in and count it, or give the reply that refuses it."""
        if self.paused is not None:
            return self.paused
        submission = self.terms.submission
        if len(self.sessions) >= submission.max_connections:
            return HOUSE_FULL
        listener = session.dialogue.listener
        annex = self.annexes.get(listener.role)
        if annex is not None and self.parts.counters.open_sessions[listener.address] >= annex.max_connections:
            return HOUSE_FULL
        block = block_of(client)
        crowd = self._crowds.get(block, 0)
        if not trusted and crowd >= submission.max_connections_per_ip:
            return TOO_MANY_CONNECTIONS
        # A trusted loopback address is many clients at once: one that fails shall not shut out the others.
        if self.parts.credentials.failures.is_blocked(client) and not (trusted and is_loopback(client)):
            return TOO_MANY_FAILURES
        self._crowds[block] = crowd + 1
        self.sessions.add(session)
        self.parts.counters.sessions[listener.address] += 1
        self.parts.counters.open_sessions[listener.address] += 1
        return None

    def trusts(self, client: str) -> bool:
        """Say whether a peer may relay without AUTH; a local socket's peer ("") is trusted as loopback is."""
        networks = self.terms.networks
        return client in networks if client else "127.0.0.1" in networks or "::1" in networks

    def left(self, session: Connection) -> None:
        """Forget a session; the second time nothing happens."""
        if session not in self.sessions:
            return
        self.sessions.discard(session)
        dialogue = session.dialogue
        block = block_of(dialogue.client)
        crowd = self._crowds[block] - 1
        if crowd:
            self._crowds[block] = crowd
        else:
            del self._crowds[block]
        self.parts.counters.open_sessions[dialogue.listener.address] -= 1

    def expel(self, key: Key) -> None:
        """End the sessions that logged in by a key."""
        for session in tuple(self.sessions):
            user = session.dialogue.user
            if user is not None and user.key == key.id:
                session.expel(KEY_ENDED)

    def tick(self) -> None:
        """Let a second pass: sessions that were idle for too long are ended."""
        self.ticks += 1
        for session in tuple(self.sessions):
            session.check_idle(self.ticks)

    def _tick_on(self) -> None:
        self._timer = self._loop.call_later(TICK, self._tick_on)
        self.tick()

    def close(self) -> None:
        """Stop listening; sessions that are open go on."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        for path in self._socket_files:
            path.unlink(missing_ok=True)
        self._socket_files.clear()

    async def drain(self, deadline: float) -> int:
        """Stop listening, end every session when its content is answered, and wait for at most `deadline` seconds.

        Gives how many sessions had to be cut off. A draft that was asked to commit goes on even then.
        """
        self.close()
        if self.paused is None:
            self.paused = SHUTTING_DOWN
        for session in tuple(self.sessions):
            session.hurry()
        until = self._loop.time() + deadline
        while (self.commits or not all(session.is_over for session in self.sessions)) and self._loop.time() < until:
            await asyncio.sleep(DRAIN_LOOK)
        unfinished = sum(not session.is_over for session in self.sessions)
        # Who was answered need not be waited for: a client may not notice its end before it wants to speak again.
        for session in tuple(self.sessions):
            session.shut()
        if self.sessions:
            await asyncio.sleep(DRAIN_LOOK)
        for session in tuple(self.sessions):
            session.abort()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return unfinished
