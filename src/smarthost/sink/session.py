"""One connection to the sink: commands in, replies out, one write a readable event."""

import asyncio
from collections.abc import Callable
from typing import ClassVar, cast

from smarthost.mail import reply as replies
from smarthost.mail.reply import Reply, make_reply
from smarthost.sink.behaviour import GARBAGE_OCTETS, HUGE_OCTETS, Act, Behaviour
from smarthost.sink.content import ContentCollector
from smarthost.sink.counts import count_up
from smarthost.sink.desk import Desk, TakenMail
from smarthost.sink.login import Login
from smarthost.wire.command import MailCommand, parse_mail, parse_rcpt

_LONGEST_LINE = 16 * 1024  # octets; an AUTH line may have 12,288 (RFC 4954 4.5.3)
_GO_AHEAD = b"354 End data with <CR><LF>.<CR><LF>\r\n"
_TLS_READY = make_reply(220, "2.0.0", "Ready to start TLS")
_INJECTED = make_reply(554, "5.5.1", "There is text behind STARTTLS")
_NOT_OFFERED = make_reply(502, "5.5.1", "Not offered")
_LOGGED_IN = make_reply(235, "2.7.0", "Authenticated")


class Session(asyncio.Protocol):
    """Answers one client, who gets for each recipient what its address asks for.

    While it `_waits` (a slow reply, a TLS handshake) nothing is read; once it is `_mute` what comes is thrown away.
    """

    def __init__(self, desk: Desk, sessions: set["Session"], clock: Callable[[], float]) -> None:
        """Join `sessions` for as long as the connection lasts."""
        self._desk = desk
        self._sessions = sessions
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._input = b""
        self._output: list[bytes] = []
        self._waits = self._mute = self._closes = False
        self._timer: asyncio.TimerHandle | None = None
        self._upgrade: asyncio.Task[None] | None = None
        self._tls = self._client = self._identity = ""
        self._login: Login | None = None
        self._transactions = 0
        self._reset()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the client, or send it away when there are too many."""
        # uvloop's transports are no subclasses of asyncio's, so this cannot be an isinstance.
        self._transport = cast(asyncio.Transport, transport)
        self._client = str((transport.get_extra_info("peername") or ("",))[0])
        self._note_tls()
        self._sessions.add(self)
        counts, settings = self._desk.counts, self._desk.settings
        counts.connections += 1
        counts.connections_open += 1
        counts.connections_most = max(counts.connections_most, counts.connections_open)
        if settings.max_connections and counts.connections_open > settings.max_connections:
            counts.connections_refused += 1
            self._closes = True
            self._reply(replies.TOO_MANY_CONNECTIONS)
        else:
            self._say(b"220 %b ESMTP sink\r\n" % settings.hostname.encode())
        self._pump()

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave; a message whose end of data has not come is forgotten."""
        if self in self._sessions:
            self._sessions.discard(self)
            self._desk.counts.connections_open -= 1
        if self._timer is not None:
            self._timer.cancel()

    def abort(self) -> None:
        """Cut the connection at once."""
        if self._upgrade is not None and self._upgrade.cancel():
            self.connection_lost(None)
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take octets; answer all commands that are complete with one write."""
        if self._mute or self._closes:
            return
        self._input = self._input + data if self._input else data
        if not self._waits:
            self._pump()

    def _pump(self) -> None:
        assert self._transport is not None
        while self._input and not (self._waits or self._closes or self._mute):
            if self._chunk is not None:
                if not self._read_chunk(self._chunk):
                    break
            elif self._content is not None:
                self._read_content(self._content)
            elif not self._read_line():
                break
        if self._output:
            self._transport.write(b"".join(self._output))
            self._output.clear()
        if self._closes and not self._waits:
            self._transport.close()

    def _read_line(self) -> bool:
        """Answer one line; False when none is complete."""
        end = self._input.find(b"\n")
        if end < 0 or end > _LONGEST_LINE:
            if len(self._input) > _LONGEST_LINE:
                self._closes = True
                self._reply(replies.LINE_TOO_LONG)
            return False
        line = self._input[:end].rstrip(b"\r")
        self._input = self._input[end + 1 :]
        if self._login is not None:
            self._continue_login(self._login, line)
            return True
        verb, _, argument = line.partition(b" ")
        answer = self._ANSWERS.get(verb.upper())
        if answer is None:
            self._desk.counts.bad_commands += 1
            self._reply(replies.UNKNOWN_COMMAND)
        else:
            answer(self, argument.strip().decode("utf-8", "surrogateescape"))
        return True

    def _reply(self, reply: Reply) -> None:
        self._say(self._desk.encode(reply))

    def _say(self, octets: bytes) -> None:
        """Put a reply behind the others, or hold it and all that follows where a recipient is slow."""
        if not self._delay:
            self._output.append(octets)
            return
        assert self._transport is not None
        self._waits = True
        self._transport.pause_reading()
        self._timer = self._loop.call_later(self._delay, self._say_late, octets)

    def _say_late(self, octets: bytes) -> None:
        assert self._transport is not None
        self._waits = False
        self._output.append(octets)
        if not self._transport.is_closing():
            self._transport.resume_reading()
            self._pump()

    def _reset(self) -> None:
        """Forget the transaction."""
        self._mail: MailCommand | None = None
        self._mail_text = ""
        self._recipients: list[str] = []
        self._rcpt_texts: list[str] = []
        self._acts: list[Behaviour] = []
        self._content: ContentCollector | None = None
        self._chunk: tuple[int, bool] | None = None  # octets, and whether they are the last
        self._chunks: list[bytes] = []
        self._delay = 0.0

    def _drop(self, act: Act) -> None:
        count_up(self._desk.counts.dropped, act)
        self._closes = True

    def _ehlo(self, argument: str) -> None:
        self._reset()
        self._say(self._desk.ehlo(bool(self._tls)))

    def _helo(self, argument: str) -> None:
        self._reset()
        self._say(b"250 %b\r\n" % self._desk.settings.hostname.encode())

    def _mail_from(self, argument: str) -> None:
        offers, settings = self._desk.settings.offers, self._desk.settings
        if settings.require_auth and not self._identity:
            return self._reply(replies.AUTH_REQUIRED)
        if self._mail is not None:
            return self._reply(replies.BAD_SEQUENCE)
        mail = parse_mail(argument)
        if isinstance(mail, Reply):
            return self._reply(mail)
        has_body = not offers.eight_bit_mime and " BODY=" in argument.upper()
        has_dsn = not offers.dsn and bool(mail.ret or mail.envid)
        if has_body or has_dsn or (mail.smtputf8 and not offers.smtputf8) or (mail.size and offers.size is None):
            return self._reply(replies.BAD_PARAMETER)
        if mail.size > (offers.size or settings.largest):
            return self._reply(replies.MESSAGE_TOO_BIG)
        if mail.reverse_path.startswith("drop-mail"):
            self._output.clear()
            return self._drop(Act.DROP_MAIL)
        self._mail, self._mail_text = mail, argument
        counts = self._desk.counts
        counts.transactions += 1
        self._transactions += 1
        counts.transactions_most = max(counts.transactions_most, self._transactions)
        return self._reply(replies.MAIL_OK)

    def _rcpt_to(self, argument: str) -> None:
        offers, settings = self._desk.settings.offers, self._desk.settings
        if self._mail is None:
            return self._reply(replies.BAD_SEQUENCE)
        rcpt = parse_rcpt(argument, smtputf8=self._mail.smtputf8)
        if isinstance(rcpt, Reply):
            return self._refuse(rcpt)
        if not offers.dsn and (rcpt.notify or rcpt.orcpt):
            return self._refuse(replies.BAD_PARAMETER)
        if settings.max_recipients and len(self._recipients) >= settings.max_recipients:
            return self._refuse(replies.TOO_MANY_RECIPIENTS)
        behaviour = self._desk.behaviour_of(rcpt.address)
        if behaviour.act is Act.REFUSE and behaviour.reply is not None:
            return self._refuse(behaviour.reply)
        if behaviour.act is Act.DROP_MAIL:
            self._output.clear()
            return self._drop(behaviour.act)
        if behaviour.act is Act.HANG:
            self._mute = True
            self._input = b""
            return count_up(self._desk.counts.dropped, behaviour.act)
        if behaviour.act is not Act.ACCEPT:
            self._acts.append(behaviour)
        self._delay = max(self._delay, behaviour.delay)
        self._recipients.append(rcpt.address)
        self._rcpt_texts.append(argument)
        self._desk.counts.recipients_accepted += 1
        if behaviour.act is Act.GARBAGE:
            return self._say(GARBAGE_OCTETS)
        if behaviour.act is Act.HUGE:
            return self._say(HUGE_OCTETS)
        return self._reply(replies.RCPT_OK)

    def _refuse(self, reply: Reply) -> None:
        count_up(self._desk.counts.recipients_refused, reply.code)
        self._closes = reply.code == 421
        self._reply(reply)

    def _data(self, argument: str) -> None:
        if self._mail is None:
            return self._reply(replies.BAD_SEQUENCE)
        if not self._recipients:
            return self._reply(replies.NO_VALID_RECIPIENTS)
        if any(behaviour.act is Act.DROP_DATA for behaviour in self._acts):
            return self._drop(Act.DROP_DATA)
        self._content = ContentCollector(self._desk.settings.largest)
        return self._say(_GO_AHEAD)

    def _bdat(self, argument: str) -> None:
        size, _, last = argument.upper().partition(" ")
        if not self._desk.settings.offers.chunking:
            return self._reply(_NOT_OFFERED)
        if not (size.isascii() and size.isdigit()) or len(size) > 18 or last.strip() not in ("", "LAST"):
            self._closes = True  # where the next command begins, nobody knows
            return self._reply(replies.BAD_PARAMETER)
        if any(behaviour.act is Act.DROP_DATA for behaviour in self._acts):
            return self._drop(Act.DROP_DATA)
        self._chunk = int(size), bool(last)
        if not self._chunk[0]:
            self._read_chunk(self._chunk)
        return None

    def _read_chunk(self, chunk: tuple[int, bool]) -> bool:
        """Take a chunk that is complete, whatever is said of it (RFC 3030 2); False while it is not."""
        size, is_last = chunk
        if len(self._input) < size:
            return False
        octets, self._input = self._input[:size], self._input[size:]
        self._chunk = None
        if self._mail is None or not self._recipients:
            self._reply(replies.BAD_SEQUENCE if self._mail is None else replies.NO_VALID_RECIPIENTS)
            return True
        self._chunks.append(octets)
        if is_last:
            self._end_content(b"".join(self._chunks))
        else:
            self._reply(replies.OK)
        return True

    def _read_content(self, content: ContentCollector) -> None:
        rest = content.feed(self._input)
        self._input = rest or b""
        if rest is not None:
            self._end_content(content.content(), is_too_big=content.is_too_big)

    def _end_content(self, content: bytes, *, is_too_big: bool = False) -> None:
        if any(behaviour.act is Act.DROP_DOT for behaviour in self._acts):
            self._drop(Act.DROP_DOT)
            return
        reply = next((one.reply for one in self._acts if one.act is Act.REFUSE_CONTENT and one.reply), None)
        if is_too_big or len(content) > self._desk.settings.largest:
            reply = replies.MESSAGE_TOO_BIG
        reply = reply or self._take(content)
        if reply.code >= 400:
            count_up(self._desk.counts.messages_refused, reply.code)
            self._closes = reply.code == 421
        self._reply(reply)
        self._reset()

    def _take(self, content: bytes) -> Reply:
        assert self._mail is not None
        mail = TakenMail(
            self._desk.counts.messages + 1,
            self._clock(),
            self._client,
            self._mail.reverse_path,
            tuple(self._recipients),
            content,
            self._mail_text,
            tuple(self._rcpt_texts),
            self._tls,
            self._identity,
        )
        return self._desk.take(mail)

    def _rset(self, argument: str) -> None:
        self._reset()
        self._reply(replies.OK)

    def _noop(self, argument: str) -> None:
        self._reply(replies.OK)

    def _quit(self, argument: str) -> None:
        self._closes = True
        self._reply(replies.BYE)

    def _auth(self, argument: str) -> None:
        settings = self._desk.settings
        mechanism, _, initial = argument.partition(" ")
        is_offered = settings.username and (self._tls or not settings.auth_needs_tls)
        if not is_offered or mechanism.upper() not in settings.mechanisms:
            return self._reply(_NOT_OFFERED)
        if self._identity or self._mail is not None:
            return self._reply(replies.BAD_SEQUENCE)
        login = Login(mechanism.upper(), settings.username, settings.password, settings.tokens)
        return self._continue_login(login, initial.encode("utf-8", "surrogateescape") or None)

    def _continue_login(self, login: Login, text: bytes | None) -> None:
        verdict = login.respond(text)
        self._login = None
        if not isinstance(verdict, bool):
            self._login = login
            self._say(b"334 %b\r\n" % verdict)
        elif verdict:
            self._identity = self._desk.settings.username
            self._desk.counts.logins += 1
            self._reply(_LOGGED_IN)
        else:
            self._reply(replies.BAD_CREDENTIALS)

    def _starttls(self, argument: str) -> None:
        if self._desk.tls is None or self._tls:
            return self._reply(_NOT_OFFERED)
        if self._input:
            self._closes = True
            return self._reply(_INJECTED)
        assert self._transport is not None
        self._waits = True
        self._transport.pause_reading()
        self._reply(_TLS_READY)
        self._upgrade = self._loop.create_task(self._shake_hands(self._transport))
        return None

    async def _shake_hands(self, plain: asyncio.Transport) -> None:
        assert self._desk.tls is not None
        try:
            transport = await self._loop.start_tls(plain, self, self._desk.tls, server_side=True)
        except OSError as fault:
            # The loop does not tell a protocol of the loss while it shakes hands.
            return self.connection_lost(fault)
        if transport is None:
            return self.connection_lost(None)
        self._transport = transport
        self._reset()
        self._identity = ""
        self._note_tls()
        self._waits = False
        return self._pump()

    def _note_tls(self) -> None:
        assert self._transport is not None
        secured = self._transport.get_extra_info("ssl_object")
        if secured is not None:
            self._tls = secured.version() or "TLS"
            self._desk.counts.tls_sessions += 1

    _ANSWERS: ClassVar[dict[bytes, Callable[["Session", str], None]]] = {
        b"EHLO": _ehlo,
        b"HELO": _helo,
        b"MAIL": _mail_from,
        b"RCPT": _rcpt_to,
        b"DATA": _data,
        b"BDAT": _bdat,
        b"RSET": _rset,
        b"NOOP": _noop,
        b"QUIT": _quit,
        b"AUTH": _auth,
        b"STARTTLS": _starttls,
    }
