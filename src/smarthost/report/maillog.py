"""Mail log: one line an event, as JSON or as text, with the program's own log lines in the same stream."""

import json
import logging
from collections.abc import Callable
from enum import StrEnum
from functools import lru_cache
from typing import Any

import msgspec

from smarthost.mail.event import Event, Kind
from smarthost.mail.message import format_id
from smarthost.mail.outcome import Stage
from smarthost.report.timestamp import format_time

_ENCODER = msgspec.json.Encoder()
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_TROUBLE = frozenset({Kind.REJECTED, Kind.DELAYED, Kind.FAILED, Kind.EXPIRED})


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


class Seconds(msgspec.Struct, frozen=True, gc=False):
    """Where an attempt's time went, in seconds."""

    queued: float
    connecting: float
    transferring: float


class EventLine(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """An event in the mail log's own words; empty fields are left out. `sender` "" is the null reverse-path."""

    time: str
    event: Kind
    id: str = ""
    envid: str = ""
    sender: str | None = None
    recipient: str = ""
    route: str = ""
    site: str = ""
    host: str = ""
    address: str = ""
    code: int = 0
    status: str = ""
    reply: str = ""
    stage: Stage | None = None
    attempt: int = 0
    tls: str = ""
    size: int = 0
    user: str = ""
    client: str = ""
    listener: str = ""
    signed: tuple[str, ...] = ()
    seconds: Seconds | None = None


class ProgramLine(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A log line of the program itself; `exception` is a traceback or ""."""

    time: str
    event: str
    level: str
    logger: str
    text: str
    exception: str = ""


def to_line(event: Event) -> EventLine:
    """Bring an event into the form that the mail log, `trace` and the control socket show."""
    # By position, in the order of the fields: half the price of keywords, and this runs for every event.
    return EventLine(
        format_time(event.time),
        event.event,
        _id_text(event.message) if event.message else "",
        event.envid,
        event.sender,
        event.recipient,
        event.route,
        event.site,
        event.host,
        event.address,
        event.code,
        event.status,
        event.reply,
        event.stage,
        event.attempt,
        event.tls,
        event.size,
        event.user,
        event.client,
        event.listener,
        event.signed,
        None if event.seconds is None else Seconds(*event.seconds),
    )


def encode_json(line: msgspec.Struct) -> bytes:
    """Write a line as one JSON object and a newline; text that is no UTF-8 has its odd octets replaced by "?"."""
    try:
        return _ENCODER.encode(line) + b"\n"
    except UnicodeEncodeError:
        return json.dumps(_mend(msgspec.to_builtins(line)), separators=(",", ":")).encode() + b"\n"


def encode_text(line: msgspec.Struct) -> bytes:
    """Write a line as "time event key=value ..."; values with anything unusual in them are quoted as in JSON."""
    values: dict[str, Any] = _mend(msgspec.to_builtins(line))
    words = [values.pop("time"), values.pop("event")]
    for key, value in values.items():
        if isinstance(value, dict):
            words += [f"{key}.{inner}={number}" for inner, number in value.items()]
        elif isinstance(value, list):
            words.append(f"{key}={_quote(','.join(value))}")
        else:
            words.append(f"{key}={_quote(value)}")
    return " ".join(words).encode() + b"\n"


class MailLog:
    """Writes events as log lines; call it as a listener of the feed."""

    def __init__(self, write: Callable[[bytes], None], log_format: str = "json", level: str = "info") -> None:
        """Write lines by a function that takes one line; `level` is one of `LogLevel`."""
        self._write = write
        self._encode = encode_text if log_format == LogFormat.TEXT else encode_json
        self._writes_all = _LEVELS[level] <= logging.INFO
        self._writes_trouble = _LEVELS[level] <= logging.WARNING

    def __call__(self, event: Event) -> None:
        """Write an event unless the level leaves it out."""
        if self._writes_all or (self._writes_trouble and event.event in _TROUBLE):
            self._write(self._encode(to_line(event)))


class ProgramLog(logging.Handler):
    """Brings the standard library's log records into the mail log's stream as lines with `event` "log"."""

    def __init__(self, write: Callable[[bytes], None], log_format: str = "json") -> None:
        """Write lines by a function that may be called from any thread."""
        super().__init__()
        self._write = write
        self._encode = encode_text if log_format == LogFormat.TEXT else encode_json
        self._tracebacks = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; a record that cannot be written goes to standard error, as the library does it."""
        try:
            exception = self._tracebacks.formatException(record.exc_info) if record.exc_info else ""
            level = record.levelname.lower()
            at = format_time(record.created)
            line = ProgramLine(at, "log", level, record.name, record.getMessage(), exception)
            self._write(self._encode(line))
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


# A message has several events close together, and writing its id is half of a line's price.
@lru_cache(maxsize=4096)
def _id_text(number: int) -> str:
    return format_id(number)


def _quote(value: Any) -> str:
    text = str(value)
    if text and text.isprintable() and not any(character in ' "\\=' for character in text):
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    # C1 controls and the like are no trouble in JSON, but a terminal would obey them.
    return "".join(mark if mark.isprintable() else f"\\u{ord(mark):04x}" for mark in quoted)


def _mend(value: Any) -> Any:
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {key: _mend(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_mend(inner) for inner in value]
    return value
