"""Pump: cuts what a client sends into commands and content, in order, and writes once for each round."""

from abc import abstractmethod

from smarthost.mail.reply import LINE_TOO_LONG, TOO_MANY_ERRORS, Reply
from smarthost.reception.connection import INPUT_LIMIT, MISTAKE, Connection, Mode
from smarthost.reception.verbs import IDLE_TALK, VERBS

BATCH = 256  # replies between two looks at the other sessions and at the client's reading
SHORT_LINE = 512  # octets, RFC 5321 4.5.3.1.4
PATH_LINE = 2048  # MAIL and RCPT: RFC 3461 4 adds 128 and 628 octets, RFC 6531 3.4 and others more
AUTH_LINE = 12288  # octets, RFC 4954 4
MOST_SKIPPED = 1024 * 1024  # octets of one overlong line, then the session ends
MOST_IDLE_TALK = 100  # commands that bring no mail, between two messages (Postfix's junk limit)

_LONGEST_SHORT = SHORT_LINE - 2
# Looked up many times a message: an attribute of an enum costs more than a name of the module.
_COMMANDS, _CONTENT, _RARE = Mode.COMMANDS, Mode.CONTENT, Mode.RARE
_CLOSING, _CLOSED, _COMMIT, _HANDSHAKE = Mode.CLOSING, Mode.CLOSED, Mode.COMMIT, Mode.HANDSHAKE
_DATA = b"DATA\r\n"


class Pump(Connection):
    """A connection whose input is cut and handed on."""

    @abstractmethod
    def obey(self, verb: bytes, argument: bytes) -> None:
        """Do a verb that is more than words."""

    @abstractmethod
    def take_content(self, chunk: bytes) -> None:
        """Take octets of content."""

    def data_received(self, data: bytes) -> None:
        """Keep what came until its turn in the round."""
        self._round.hear(self._hear, data)

    def _hear(self, data: bytes) -> None:
        """Take what came and do what it says."""
        mode, house = self._mode, self._house
        if mode is not _CLOSING:
            self._touched = house.ticks
        if self._input or self._is_pumping:
            self._input += data
        elif mode is _CONTENT:
            self._take_block(data)
            return
        elif (
            mode is not _COMMANDS
            or self._is_write_paused
            or self._is_skipping
            or self._is_read_paused
            or house.paused is not None
        ):
            self._input = data
        elif self._take_alone(data):
            return
        else:
            self._input = data
        self.pump()

    def _take_alone(self, data: bytes) -> bool:
        """Do as the pump does with one whole command, as it comes from who does not pipeline; False for all else."""
        act = self._heard.get(data)
        try:
            if act is not None:
                self._say_reply(data[:4], act(self.dialogue))
            elif data == _DATA:
                self.obey(b"DATA", b"")
            elif len(data) > _LONGEST_SHORT or data[-1:] != b"\n" or data.find(b"\n") < len(data) - 1:
                return False
            else:
                self._has_more = False
                self._take_command(data[:-2] if data.endswith(b"\r\n") else data[:-1])
        except Exception as error:
            self.crash(error)
        self._flush()
        return True

    def _take_block(self, data: bytes) -> None:
        """Do as the pump does with content, and go on with the pump only where it has more to do."""
        self._is_pumping = True
        try:
            self.take_content(data)
        except Exception as error:
            self.crash(error)
        finally:
            self._is_pumping = False
        mode = self._mode
        if (
            (mode is not _CONTENT and mode is not _COMMIT)
            or self._input
            or self._output
            or self._is_slow
            or self._is_read_paused
            or self._is_eof
        ):
            self.pump()

    def pump(self) -> None:
        """Do what the input allows, then write all replies at once. Harmless at any time."""
        if self._is_pumping:
            return
        self._is_pumping = True
        try:
            while self._step():
                pass
        except Exception as error:
            self.crash(error)
        finally:
            self._is_pumping = False
        self._flush()
        if self._is_eof:
            self._close_at_eof()
        if self._is_slow or self._is_read_paused or len(self._input) > INPUT_LIMIT:
            self._regulate()

    def _step(self) -> bool:
        """Do what the mode says with the input; False when nothing more can be done now."""
        mode = self._mode
        if mode is _COMMANDS:
            if self._house.paused is not None:
                self.end(self._house.paused)
                return False
            if self._is_write_paused or not self._input:
                return False
            return self._skip_line() if self._is_skipping else self._take_commands()
        if mode is _CONTENT:
            chunk, self._input = self._input, b""
            if chunk:
                self.take_content(chunk)
            return self._mode is not _CONTENT
        if mode is _RARE:
            return self._hand_line()
        if mode is _CLOSING or mode is _CLOSED:
            self._input = b""
        elif mode is _HANDSHAKE and self._input:
            # Said in the clear, behind STARTTLS, and heard before reading stopped: never to be taken as said under TLS.
            self.abort()
        return False

    def _take_commands(self) -> bool:
        data, output, heard = self._input, self._output, self._heard
        start, length = 0, len(data)
        while self._mode is _COMMANDS and len(output) < BATCH:
            end = data.find(b"\n", start) + 1
            if not end:
                break
            line = data[start:end]
            start = end
            act = heard.get(line)
            if act is not None:
                self._say_reply(line[:4], act(self.dialogue))
                continue
            line = line[:-2] if line.endswith(b"\r\n") else line[:-1]
            self._has_more = start < length
            if len(line) > _LONGEST_SHORT and len(line) > _limit_of(line) - 2:
                self.answer(LINE_TOO_LONG)
            else:
                self._take_command(line)
        if self._mode is _CLOSING or self._mode is _CLOSED:
            return True
        self._input = rest = data[start:]
        if self._mode is not _COMMANDS:
            return True
        if len(output) >= BATCH:
            self._pump_soon()
        elif len(rest) > SHORT_LINE and len(rest) > _limit_of(rest):
            self._is_skipping = True
            return True
        return False

    def _take_command(self, line: bytes) -> None:
        verb, _, argument = line.partition(b" ")
        act = VERBS.get(verb)
        if act is None:
            verb = verb.upper()
            act = VERBS.get(verb)
            if act is None:
                self.obey(verb, argument)
                return
        if verb in IDLE_TALK and self.is_idle_talk():
            return
        self._say_reply(verb, act(self.dialogue, argument))

    def _say_reply(self, verb: bytes, reply: bytes | Reply) -> None:
        if isinstance(reply, bytes):
            self._output.append(reply)
        else:
            self.answer(reply, 1 if verb == b"RCPT" and reply.code != 503 else MISTAKE)

    def is_idle_talk(self) -> bool:
        """Count a command that brings no mail; True when there were too many and the session has been ended."""
        self._idle_talk += 1
        if self._idle_talk <= MOST_IDLE_TALK:
            return False
        self.end(TOO_MANY_ERRORS)
        return True

    def _skip_line(self) -> bool:
        """Drop a line that is too long, without keeping it; the reply comes at its end."""
        end = self._input.find(b"\n")
        if end < 0:
            self._skipped += len(self._input)
            self._input = b""
            if self._skipped > MOST_SKIPPED:
                self.end(TOO_MANY_ERRORS)
            return False
        self._input = self._input[end + 1 :]
        self._is_skipping = False
        self._skipped = 0
        self.answer(LINE_TOO_LONG)
        return True

    def _pump_soon(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._pump_again)

    def _pump_again(self) -> None:
        self._is_scheduled = False
        self.pump()

    def _hand_line(self) -> bool:
        if self._line is None:
            return False
        end = self._input.find(b"\n")
        if (end if end >= 0 else len(self._input)) > AUTH_LINE - 2:
            # The exchange is over; the line is skipped like any other that is too long.
            self._drop_work()
            self._mode = _COMMANDS
            self._is_skipping = True
            return True
        if end < 0:
            return False
        line, self._input = self._input[:end], self._input[end + 1 :]
        waiting, self._line = self._line, None
        waiting.set_result(line.rstrip(b"\r"))
        return False


def _limit_of(line: bytes) -> int:
    verb = line[:4].upper()
    if verb == b"AUTH":
        return AUTH_LINE
    return PATH_LINE if verb in (b"MAIL", b"RCPT") else SHORT_LINE
