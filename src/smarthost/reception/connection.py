"""Connection: one client's transport and what may be said on it: replies, bounds, and every way to the end."""

import asyncio
import logging
import traceback
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from enum import Enum
from typing import Any, Protocol, cast

from smarthost.mail.outcome import Stage
from smarthost.mail.reply import SESSION_TIMEOUT, TOO_MANY_ERRORS, Reply, make_reply
from smarthost.network.round import Round
from smarthost.policy.admission import Listener, Tls
from smarthost.reception.content import Content
from smarthost.reception.dialogue import Dialogue
from smarthost.reception.parts import Parts
from smarthost.reception.peer import client_of
from smarthost.reception.stock import StockVerbs
from smarthost.reception.terms import Terms

SESSION_FAILED = make_reply(421, "4.3.0", "Local error, closing")

INPUT_LIMIT = 64 * 1024  # octets that may wait for their turn before reading stops
TLS_SHUTDOWN_TIMEOUT = 5.0  # seconds; some clients never answer the closing alert
LINGER = 10  # ticks for a client to take the last reply
# One mistake weighs 50 and one refused recipient 1: 20 mistakes, or 1000 recipients (Postfix's overshoot limit).
MISTAKE, MOST_BLAME = 50, 1000

_log = logging.getLogger(__name__)


class Mode(Enum):
    """What a session is doing; input that does not fit the mode waits."""

    HANDSHAKE = "handshake"  # TLS: nothing is read
    COMMANDS = "commands"
    CONTENT = "content"
    COMMIT = "commit"  # the draft is asked for the reply
    RARE = "rare"  # one of aiosmtpd's verbs runs in a task, which may want lines
    CLOSING = "closing"  # the last reply is said; what comes is dropped
    CLOSED = "closed"


class House(Protocol):
    """What a session knows of the door that it came in by.

    `ticks` counts seconds since the start; `paused` is what new commands are answered at a shutdown; `commits` counts
    drafts that were asked to commit and have not answered; `template` holds aiosmtpd's shared attributes.
    """

    ticks: int
    paused: Reply | None
    commits: int
    template: Mapping[str, Any]
    round: Round

    def admit(self, session: "Connection", client: str, trusted: bool) -> Reply | None:
        """Let a connection in, or say why not."""

    def trusts(self, client: str) -> bool:
        """Say whether a peer may relay without AUTH."""

    def left(self, session: "Connection") -> None:
        """Forget a session."""


class Connection(StockVerbs):
    """One connection: an input buffer, an output list, and a mode that says who gets the next octets."""

    def __init__(
        self, house: House, terms: Terms, parts: Parts, listener: Listener, loop: asyncio.AbstractEventLoop
    ) -> None:
        """Wait for the connection. aiosmtpd's constructor is not run: see `StockVerbs`."""
        self._house = house
        self._terms, self._parts, self._listener = terms, parts, listener
        self._heard = terms.heard
        self._loop = loop
        self._round = house.round
        self._channel: asyncio.Transport | None = None
        self._mode = Mode.HANDSHAKE
        self._input = b""
        self._output: list[bytes] = []
        self._content: Content | None = None
        self._task: asyncio.Task[None] | None = None
        self._line: asyncio.Future[bytes] | None = None
        self._touched = house.ticks
        self._content_ended_at = 0.0
        self._blame = self._idle_talk = self._skipped = 0
        self._has_more = False
        self._is_pumping = self._is_scheduled = self._is_skipping = False
        self._is_write_paused = self._is_read_paused = self._is_slow = self._is_eof = False

    def stock_template(self) -> Mapping[str, Any]:
        """Give aiosmtpd's shared attributes."""
        return self._house.template

    @abstractmethod
    def pump(self) -> None:
        """Do what the input allows, then write all replies at once. Harmless at any time."""

    # What the event loop calls.

    def arrive(self, client: str) -> Reply | None:
        """Ask the house to let a peer in, by its IP address or "" for a local socket; gives the refusal."""
        trusted = self._house.trusts(client)
        self.dialogue = Dialogue(self._terms, self._parts, self._listener, client, trusted)
        refusal = self._house.admit(self, client, trusted)
        return None if refusal is None else self.dialogue.reject(Stage.CONNECT, refusal)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the peer, or refuse it; under implicit TLS it has arrived before its handshake."""
        # uvloop's transports are not asyncio's by class.
        self._channel = channel = cast(asyncio.Transport, transport)
        if self._listener.tls is Tls.IMPLICIT:
            self._task = None
            self.note_tls(channel)
        else:
            refusal = self.arrive(client_of(channel.get_extra_info("peername")))
            if refusal is not None:
                self._mode = Mode.CLOSED
                channel.write(refusal.encode())
                channel.close()
                return
        self._mode = Mode.COMMANDS
        self._touched = self._house.ticks
        channel.write(self._terms.greeting)

    def note_tls(self, channel: asyncio.Transport) -> None:
        """Begin the dialogue anew, under TLS."""
        tunnel = channel.get_extra_info("ssl_object")
        version, cipher = tunnel.version() or "", tunnel.cipher()
        self.dialogue = self.dialogue.secured(f"{version} {cipher[0]}" if cipher else version)
        self._parts.counters.tls_sessions[("in", version)] += 1

    def await_handshake(self, handshake: Coroutine[Any, Any, object]) -> None:
        """Run the handshake of implicit TLS; the loop calls `connection_made` when it is done."""
        self._task = self._loop.create_task(self._shake_hands(handshake))

    async def _shake_hands(self, handshake: Coroutine[Any, Any, object]) -> None:
        try:
            await handshake
        except OSError:
            pass
        finally:
            if self._channel is None:
                self.connection_lost(None)

    def eof_received(self) -> bool:
        """Go on without input while something is still to be answered (half-close); TLS cannot do that."""
        self._round.run()
        if self.dialogue.tls or self._mode is Mode.HANDSHAKE:
            return False
        self._is_eof = True
        self._close_at_eof()
        return self._mode not in (Mode.CLOSING, Mode.CLOSED)

    def connection_lost(self, error: Exception | None) -> None:
        """Forget what was not finished; a commit goes on. May be called twice."""
        self._round.run()
        self._channel = None
        self._drop_work()
        self._mode = Mode.CLOSED
        self._house.left(self)

    def pause_writing(self) -> None:
        """The client does not read: take no more commands."""
        self._is_write_paused = True

    def resume_writing(self) -> None:
        """The client reads again."""
        self._is_write_paused = False
        self.pump()

    def check_idle(self, ticks: int) -> None:
        """Called each second: end a session that has said nothing for too long, and one that does not go."""
        quiet = ticks - self._touched
        mode = self._mode
        if mode is Mode.CLOSING or mode is Mode.CLOSED:
            if quiet >= LINGER and self._channel is not None:
                self._channel.abort()
        elif quiet >= self._terms.idle_timeout and not self._keeps_client_waiting():
            self.end(SESSION_TIMEOUT)

    def _keeps_client_waiting(self) -> bool:
        mode = self._mode
        return (
            mode is Mode.COMMIT or mode is Mode.HANDSHAKE or self._is_slow or (mode is Mode.RARE and self._line is None)
        )

    # Replies, and the end.

    def answer(self, reply: Reply, weight: int = MISTAKE) -> None:
        """Add a reply; a refusal is counted against the client, and too many of them end the session."""
        if reply.code == 421:
            self.end(reply)
            return
        self._output.append(reply.encode())
        self.blame(reply.code, weight)

    def blame(self, code: int, weight: int = MISTAKE) -> None:
        """Count a refusal; but not what was pipelined behind a MAIL that was refused (RFC 2920 3.1)."""
        if code < 400 or (code == 503 and self.dialogue.mail_refused):
            return
        self._blame += weight
        if self._blame >= MOST_BLAME and self._mode is not Mode.CLOSING:
            self.end(TOO_MANY_ERRORS)

    def say(self, reply: bytes, code: int) -> None:
        """Send a reply now, outside the pump's turn."""
        self._output.append(reply)
        self._flush()
        self.blame(code)

    def end(self, reply: Reply) -> None:
        """Send a last reply and close, without a reset that could overtake it.

        The kernel answers unread input with a reset, and that makes the peer forget what it has not read. So what still
        comes is read and dropped until the client closes too or `LINGER` is over.
        """
        self._output.append(reply.encode())
        self._drop_work()
        self._input = b""
        self._mode = Mode.CLOSING
        self._touched = self._house.ticks
        self._write_out()
        channel = self._channel
        if channel is None:
            return
        self._regulate()
        if self._is_eof or self.dialogue.tls:
            self.shut()
        elif not channel.is_closing():
            try:
                channel.write_eof()
            except OSError:  # the client has gone without a word
                channel.abort()

    def expel(self, reply: Reply) -> None:
        """End the session of somebody who may not be here any more; a commit that is under way is answered first."""
        self.dialogue.user = None
        if self._mode is not Mode.COMMIT:
            self.end(reply)

    def shut(self) -> None:
        """Write what waits and close."""
        self._drop_work()
        self._write_out()
        self._mode = Mode.CLOSED
        self._touched = self._house.ticks
        if self._channel is not None:
            self._channel.close()

    @property
    def is_over(self) -> bool:
        """Whether the last reply has been said."""
        return self._mode is Mode.CLOSING or self._mode is Mode.CLOSED

    def hurry(self) -> None:
        """End as soon as nothing of the client's is unanswered: the house is closing."""
        if self._mode is Mode.HANDSHAKE:
            self.abort()
        elif self._mode is Mode.RARE and self._house.paused is not None:
            self.end(self._house.paused)
        else:
            self.pump()

    def abort(self) -> None:
        """Cut the connection."""
        self._drop_work()
        self._mode = Mode.CLOSED
        if self._channel is not None:
            self._channel.abort()

    def crash(self, error: Exception) -> None:
        """End the session after an error of our own. Neither the client nor the log gets the error's text: it may quote
        what the client said.
        """
        where = "".join(traceback.format_tb(error.__traceback__))
        _log.error("session of %s failed: %s\n%s", self.dialogue.client, type(error).__name__, where)
        self._parts.counters.internal_errors["reception"] += 1
        if self.is_over:
            self.abort()
        else:
            self.end(SESSION_FAILED)

    def _regulate(self) -> None:
        """Stop or start reading, by what waits."""
        if self._channel is None or self._mode is Mode.HANDSHAKE:
            return
        should_pause = (self._is_slow or len(self._input) > INPUT_LIMIT) and self._mode is not Mode.CLOSING
        if should_pause != self._is_read_paused and not self._channel.is_closing():
            self._is_read_paused = should_pause
            if should_pause:
                self._channel.pause_reading()
            else:
                self._channel.resume_reading()

    def _flush(self) -> None:
        """Have the replies written at the end of the round."""
        if self._output:
            self._round.speak(self._write_out)

    def _write_out(self) -> None:
        output = self._output
        if output:
            self._output = []
            if self._channel is not None:
                # A single reply is not copied by that.
                self._channel.write(b"".join(output))

    def _close_at_eof(self) -> None:
        if self._keeps_client_waiting() or self._is_scheduled or self._is_write_paused:
            return
        if self._mode is not Mode.CLOSED:
            self.shut()

    def _drop_work(self) -> None:
        if self._content is not None:
            self._content.abandon()
            self._content = None
        self._is_slow = False
        task, self._task = self._task, None
        if task is None:
            return
        line, self._line = self._line, None
        if line is not None:
            line.cancel()
        if task is not asyncio.current_task(self._loop):
            task.cancel()

    # What waits runs in a task of its own.

    def run_aside(self, mode: Mode, work: Callable[[], Awaitable[None]]) -> None:
        """Run something that waits in a task; the pump goes on when it is done."""
        self._mode = mode
        self._task = self._loop.create_task(self._aside(mode, work))

    async def _aside(self, mode: Mode, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception as error:
            self.crash(error)
        if self._mode is mode:
            self._task = None
            self._mode = Mode.COMMANDS
            self._touched = self._house.ticks
        self.pump()

    async def next_line(self) -> bytes:
        """Give the client's next line to the verb that runs aside."""
        line: asyncio.Future[bytes] = self._loop.create_future()
        self._line = line
        self.pump()
        return await line
