"""SmtpSession: what verbs do beyond words: DATA, STARTTLS, QUIT, and those that aiosmtpd answers."""

from functools import partial

from smarthost.mail.outcome import Stage
from smarthost.mail.reply import BAD_SYNTAX, BYE, UNKNOWN_COMMAND, Reply, make_reply
from smarthost.reception.connection import TLS_SHUTDOWN_TIMEOUT, Mode
from smarthost.reception.pump import Pump
from smarthost.reception.verbs import data

NO_TLS_HERE = make_reply(502, "5.5.1", "STARTTLS is not offered here")
TLS_ALREADY = make_reply(503, "5.5.1", "TLS is in use already")
SPOKE_BEFORE_TLS = make_reply(554, "5.5.1", "Nothing may follow STARTTLS before the handshake")
NOT_HTTP = make_reply(554, "5.5.1", "This is SMTP, not HTTP")

BACKLOG_LIMIT = 1024 * 1024  # octets that may wait for the disk before reading stops

# Without an enhanced status: RFC 2034 4 speaks of 2yz, 4yz and 5yz.
_GO_AHEAD = b"354 End data with <CR><LF>.<CR><LF>\r\n"
_READY_FOR_TLS = b"220 2.0.0 Ready to start TLS\r\n"
_BYE = BYE.encode()
# Looked up many times a message: an attribute of an enum costs more than a name of the module.
_COMMANDS, _CONTENT, _COMMIT = Mode.COMMANDS, Mode.CONTENT, Mode.COMMIT
# A web page can make a browser post mail to a trusted local port: what speaks HTTP is not listened to.
_HTTP = frozenset({b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"CONNECT", b"PATCH", b"DELETE"})


class SmtpSession(Pump):
    """A session on one connection."""

    def obey(self, verb: bytes, argument: bytes) -> None:
        """Do a verb that is more than words; what we do not know, aiosmtpd may."""
        if verb == b"DATA":
            self._begin_content(argument)
        elif verb == b"QUIT":
            self._output.append(_BYE)
            self.shut()
        elif verb == b"STARTTLS":
            self._start_tls(argument)
        elif verb in _HTTP:
            self.end(NOT_HTTP)
        elif not self.is_idle_talk():
            self._obey_stock(verb, argument)

    def _obey_stock(self, verb: bytes, argument: bytes) -> None:
        name = verb.decode("ascii", "replace")
        method = getattr(self, f"smtp_{name}", None) if name.isalpha() else None
        if method is None:
            self.answer(UNKNOWN_COMMAND)
            return
        self.adopt_stock()
        text = argument.decode("utf-8", "replace").strip()
        self.run_aside(Mode.RARE, partial(method, text or None))

    # Content.

    def _begin_content(self, argument: bytes) -> None:
        content = data(self.dialogue, argument)
        if isinstance(content, Reply):
            self.answer(content)
        elif content.draft.refused is not None:
            content.abandon()
            self._refuse(Stage.DATA, content.draft.refused)
        else:
            self._content = content
            self._mode = _CONTENT
            self._output.append(_GO_AHEAD)

    def take_content(self, chunk: bytes) -> None:
        """Hand octets to the draft; at the end of data ask it for the reply."""
        content = self._content
        assert content is not None
        draft = content.draft
        if not content.feed(chunk):
            if draft.backlog > BACKLOG_LIMIT:
                self._is_slow = True
                draft.on_drained = self._drained
            return
        self._content = None
        self._input = content.rest
        draft.on_drained = None
        self._is_slow = False  # the end may come, as TLS hands on what it had, after reading was stopped
        refusal = content.refusal()
        if refusal is not None:
            self._mode = _COMMANDS
            self._refuse(Stage.CONTENT, refusal)
            return
        self._mode = _COMMIT
        self._house.commits += 1
        self._content_ended_at = self.dialogue.parts.clock()
        try:
            draft.commit(self._committed)
        except Exception:
            if self._mode is _COMMIT:
                self._house.commits -= 1
            raise

    def _drained(self) -> None:
        if self._is_slow and self._content is not None:
            self._content.draft.on_drained = None
            self._is_slow = False
            self._touched = self._house.ticks
            self.pump()

    def _committed(self, reply: Reply) -> None:
        """Take the draft's reply, maybe after the client has gone."""
        house, dialogue = self._house, self.dialogue
        house.commits -= 1
        is_positive = reply.is_positive
        if is_positive:
            # Mistakes and idle talk are forgiven.
            self._blame = self._idle_talk = 0
            dialogue.reset()
            parts = dialogue.parts
            parts.counters.accept_seconds.observe(max(0.0, parts.clock() - self._content_ended_at))
        if self._mode is _COMMIT:
            self._mode = _COMMANDS
            self._touched = house.ticks
            if is_positive:
                self._output.append(reply.encode())
            else:
                self._refuse(Stage.CONTENT, reply)
            if self._input or self._is_pumping or self._is_eof or self._is_read_paused or house.paused is not None:
                self.pump()
            else:
                self._flush()
        elif not is_positive:
            dialogue.reject(Stage.CONTENT, reply)

    def _refuse(self, stage: Stage, reply: Reply) -> None:
        """Refuse the message of this transaction, and end the transaction."""
        self.dialogue.reject(stage, reply)
        self.dialogue.reset()
        self.answer(reply)

    # TLS.

    def _start_tls(self, argument: bytes) -> None:
        dialogue = self.dialogue
        if argument.strip():
            self.answer(BAD_SYNTAX)
        elif dialogue.tls:
            self.answer(TLS_ALREADY)
        elif not dialogue.offers_starttls:
            self.answer(NO_TLS_HERE)
        elif self._has_more or self._is_eof:
            # Somebody on the way may have put commands behind it, to be taken as said under TLS (CVE-2011-0411).
            self.end(SPOKE_BEFORE_TLS)
        else:
            self._output.append(_READY_FOR_TLS)
            self._hold_reading()
            self.run_aside(Mode.HANDSHAKE, self._secure)

    def _hold_reading(self) -> None:
        # At once, so that nothing said in the clear can still come in before the handshake has the connection.
        assert self._channel is not None
        self._channel.pause_reading()

    async def _secure(self) -> None:
        """Shake hands; then everything said before is forgotten (RFC 3207 4.2)."""
        self._write_out()
        channel, tls = self._channel, self.dialogue.parts.tls
        assert channel is not None and tls is not None
        try:
            secure = await self._loop.start_tls(
                channel,
                self,
                tls.context,
                server_side=True,
                ssl_handshake_timeout=self._terms.handshake_timeout,
                ssl_shutdown_timeout=TLS_SHUTDOWN_TIMEOUT,
            )
        except OSError:
            # ssl.SSLError is one too. The loop has closed the connection, but may not have told.
            channel.abort()
            self.connection_lost(None)
            return
        if self._channel is None or secure is None:
            self.connection_lost(None)
            return
        self._channel = secure
        self._is_read_paused = False
        self.note_tls(secure)
