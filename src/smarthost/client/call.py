"""Call: one request and how its answer is read, without a socket; both clients make their calls of these."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from smarthost.client.faults import Unreadable

T = TypeVar("T")

BLOCK = 65536  # octets of a content that are sent at a time
JSON, RAW = "application/json", "message/rfc822"


class Content(msgspec.Struct, frozen=True):
    """What a request carries. `octets` is the whole, or a function that gives it block by block, each time anew."""

    octets: bytes | Callable[[], Iterator[bytes]]
    media_type: str = JSON
    size: int | None = None  # of what comes in blocks, where it is known before


class Call(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """One request. `path` is below /api/v1; `read` makes the answer of the content of a 2xx.

    What `repeats` may be made again whatever became of it; what has `key` may be, too, for the relay knows by the key
    that it was done: None is a request that has no such key, "" one for which a key is made. Answers with a status of
    `expected` are read as if they were 2xx. `patience` is for how many seconds the relay may be silent, where it is
    more than the client's timeout.
    """

    method: str
    path: str
    read: Callable[[bytes], T]
    query: tuple[tuple[str, str], ...] = ()
    content: Content | None = None
    key: str | None = None
    repeats: bool = False
    expected: frozenset[int] = frozenset()
    patience: float = 0.0

    @property
    def target(self) -> str:
        """Path and query."""
        return f"{self.path}?{urlencode(self.query, quote_via=quote)}" if self.query else self.path


class Page(msgspec.Struct, Generic[T], frozen=True):
    """A part of a list; `cursor` is where the next part begins, "" at the end of the list."""

    items: Sequence[T]
    following: Call["Page[T]"] | None = None
    cursor: str = ""


def get(path: str, read: Callable[[bytes], T], **query: object) -> Call[T]:
    """Ask for something; what is empty in a query is left out."""
    return Call(method="GET", path=path, read=read, query=queried(query), repeats=True)


def post(path: str, read: Callable[[bytes], T], value: object = None, key: str | None = None) -> Call[T]:
    """Have something done."""
    return Call(method="POST", path=path, read=read, content=None if value is None else as_json(value), key=key)


def as_json(value: object) -> Content:
    """Write a value as JSON, once: what a caller changes in it afterwards is not sent."""
    return Content(msgspec.json.encode(value))


def from_file(path: Path, media_type: str) -> Content:
    """Send a file, read block by block. Raises OSError where there is none."""

    def blocks() -> Iterator[bytes]:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                yield block

    return Content(blocks, media_type, path.stat().st_size)


def joined(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Join small pieces to blocks."""
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= BLOCK:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


def reader(form: type[T]) -> Callable[[bytes], T]:
    """Give the function that reads an answer of a type. Fields that it does not know are passed over."""
    decoder = msgspec.json.Decoder(form)

    def read(octets: bytes) -> T:
        try:
            return decoder.decode(octets)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Unreadable(f"the answer is no {form.__name__}: {error}") from None

    return read


def no_answer(_: bytes) -> None:
    """Read an answer that says nothing."""


def segment(text: str) -> str:
    """Write one part of a path. Raises ValueError for "", which would lead elsewhere."""
    if text in ("", ".", ".."):
        raise ValueError(f"an id is needed, and not {text!r}")
    return quote(text, safe="@")


def queried(wanted: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Write a query; "" and None are left out, and what is a list comes as often as it has members."""
    written: list[tuple[str, str]] = []
    for name, value in wanted.items():
        members = value if isinstance(value, list | tuple) else [value]
        written.extend((name, _word(each)) for each in members if each is not None and each != "")
    return tuple(written)


def _word(value: object) -> str:
    if isinstance(value, datetime):
        return moment(value).isoformat()
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def moment(when: datetime) -> datetime:
    """Give a time with a zone; one without is taken as Python takes it, for the machine's own."""
    return when.astimezone(UTC)
