"""Mail log: one line an event, as JSON or as text, with the program's own log lines in the same stream."""

import json
import logging
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from smarthost.mail.event import Event, Kind, mend
from smarthost.mail.message import format_id
from smarthost.report.timestamp import format_time

_ENCODER = msgspec.json.Encoder()
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_TROUBLE = frozenset(
    {
        Kind.REJECTED,
        Kind.DELAYED,
        Kind.FAILED,
        Kind.EXPIRED,
        Kind.SUSPENDED,
        Kind.SLOWED,
        Kind.SWITCHED,
        Kind.SUPPRESSED,
        Kind.BOUNCED,
        Kind.COMPLAINED,
    }
)


class LogFormat(StrEnum):
    """How a log line is written."""

    JSON = "json"
    TEXT = "text"


class LogLevel(StrEnum):
    """The least important lines that are written; trouble of a message is `warning`, all else about it `info`."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


_HEAD = 3  # fields of an event that people see in another form: time, event, message
_OTHERS = [(field.name, field.type, field.default) for field in msgspec.structs.fields(Event)[_HEAD:]]
# An event in the mail log's own words; empty fields are left out. `sender` "" is the null reverse-path.
EventLine = msgspec.defstruct(
    "EventLine",
    [("time", str), ("event", Kind), ("id", str, ""), *_OTHERS],
    frozen=True,
    omit_defaults=True,
    gc=False,
)


class ProgramLine(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A log line of the program itself; `exception` is a traceback or ""."""

    time: str
    event: str
    level: str
    logger: str
    text: str
    exception: str = ""


Line = Event | ProgramLine


def to_line(event: Event) -> msgspec.Struct:
    """Bring an event into the form that the mail log, `trace` and the control socket show."""
    at, kind, number, *others = msgspec.structs.astuple(event)
    return EventLine(format_time(at), kind, format_id(number) if number else "", *others)


def encode_json(lines: Sequence[Line]) -> bytes:
    """Write lines as a JSON object and a newline each; text that is no UTF-8 has its odd octets replaced by "?"."""
    shown = [to_line(line) if isinstance(line, Event) else line for line in lines]
    try:
        return _ENCODER.encode_lines(shown)
    except UnicodeEncodeError:
        return _ENCODER.encode_lines([mend(msgspec.to_builtins(line)) for line in shown])


def encode_text(lines: Sequence[Line]) -> bytes:
    """Write lines as "time event key=value ..."; values with anything unusual in them are quoted as in JSON."""
    return "".join([_text(to_line(line) if isinstance(line, Event) else line) for line in lines]).encode()


def encoder(log_format: LogFormat) -> Callable[[Sequence[Line]], bytes]:
    """Give the function that writes lines in a format."""
    return encode_text if log_format is LogFormat.TEXT else encode_json


def listen_from(level: str, write: Callable[[Event], None]) -> Callable[[Event], None]:
    """Give the listener of the feed that writes events from a level on, one of `LogLevel`.

    It is `write` itself where nothing is left out: one call fewer for each event.
    """
    if _LEVELS[level] <= logging.INFO:
        return write
    written = _TROUBLE if _LEVELS[level] <= logging.WARNING else frozenset[Kind]()

    def listen(event: Event) -> None:
        if event.event in written:
            write(event)

    return listen


class ProgramLog(logging.Handler):
    """Brings the standard library's log records into the mail log's stream as lines with `event` "log"."""

    def __init__(self, write: Callable[[ProgramLine], None]) -> None:
        """Write lines by a function that may be called from any thread."""
        super().__init__()
        self._write = write
        self._tracebacks = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; a record that cannot be written goes to standard error, as the library does it."""
        try:
            exception = self._tracebacks.formatException(record.exc_info) if record.exc_info else ""
            level = record.levelname.lower()
            at = format_time(record.created)
            self._write(ProgramLine(at, "log", level, record.name, record.getMessage(), exception))
        except Exception:
            self.handleError(record)


def install_program_log(handler: logging.Handler, level: str) -> Callable[[], None]:
    """Send the log records of the process to a handler; what is returned, when called, undoes it.

    Libraries are heard from warnings on (all of them at `debug`): aiosmtpd says something about every session.
    """
    root, ours = logging.getLogger(), logging.getLogger("smarthost")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    root.handlers[:] = [handler]
    ours.setLevel(_LEVELS[level])
    root.setLevel(_LEVELS[level] if level == LogLevel.DEBUG else max(_LEVELS[level], logging.WARNING))

    def undo() -> None:
        root.handlers[:] = handlers
        root.setLevel(levels[0])
        ours.setLevel(levels[1])

    return undo


def _text(line: msgspec.Struct) -> str:
    values: dict[str, Any] = mend(msgspec.to_builtins(line))
    words = [values.pop("time"), values.pop("event")]
    for key, value in values.items():
        if isinstance(value, dict):
            words += [f"{key}.{inner}={number}" for inner, number in value.items()]
        elif isinstance(value, list):
            words.append(f"{key}={_quote(','.join(value))}")
        else:
            words.append(f"{key}={_quote(value)}")
    return " ".join(words) + "\n"


def _quote(value: Any) -> str:
    text = str(value)
    if text and text.isprintable() and not any(character in ' "\\=' for character in text):
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    # C1 controls and the like are no trouble in JSON, but a terminal would obey them.
    return "".join(mark if mark.isprintable() else f"\\u{ord(mark):04x}" for mark in quoted)
