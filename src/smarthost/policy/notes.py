"""Notes: what a life has learned and the next one shall know, by kind and place, and what of it has to be on disk."""

from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import TypeVar

import msgspec

from smarthost.policy.ledger import LimitState

PREFIX = "note "  # of the names of their rows, which lie among those of the ledger; no rate's name begins so

_Value = TypeVar("_Value", bound=msgspec.Struct)


class NoteKind(StrEnum):
    """What a note is about, which is also where its value belongs."""

    CAPACITY = "capacity"  # by site
    MEASURE = "measure"  # by site and remedy
    LOGIN = "login"  # by place, as the connector names it


class Notes:
    """All notes. Mutable, pure. A note is written when it changes and not before, so mail that is relayed costs none.

    `ask` is called when rows are to be written; `write` then gives them. `damaged` are the names of rows of a life
    before that cannot be read: they are forgotten, and are removed with the next write.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self.ask: Callable[[], None] = lambda: None
        self.damaged: list[str] = []
        self._rows: dict[str, bytes] = {}  # as they are, or are about to be, on disk
        self._changed: dict[str, bytes] = {}

    def restore(self, rows: Iterable[LimitState]) -> None:
        """Take the rows that a life before has kept; what has been put in this one stands."""
        self._rows = {row.name: row.state for row in rows} | self._rows

    def put(self, kind: NoteKind, place: str, value: msgspec.Struct) -> None:
        """Keep a value, in the place of an earlier one."""
        self._set(f"{PREFIX}{kind} {place}", msgspec.json.encode(value))

    def drop(self, kind: NoteKind, place: str) -> None:
        """Forget a value; nothing is done where there is none."""
        self._set(f"{PREFIX}{kind} {place}", b"")

    def drop_all(self, kind: NoteKind) -> None:
        """Forget all values of a kind."""
        for name in [name for name in self._rows if name.startswith(f"{PREFIX}{kind} ")]:
            self._set(name, b"")

    def all_of(self, kind: NoteKind, value: type[_Value]) -> dict[str, _Value]:
        """Give the values of a kind by their places; those that cannot be read are damaged, and are forgotten."""
        start, found = f"{PREFIX}{kind} ", {}
        for name, octets in list(self._rows.items()):
            if not name.startswith(start):
                continue
            try:
                found[name.removeprefix(start)] = msgspec.json.decode(octets, type=value)
            except (msgspec.DecodeError, ValueError):
                self.damaged.append(name)
                self._set(name, b"")
        return found

    def write(self) -> list[LimitState]:
        """Give the rows that are to be written now; one without a state shall go."""
        changed, self._changed = self._changed, {}
        return [LimitState(*row) for row in changed.items()]

    def _set(self, name: str, state: bytes) -> None:
        if self._rows.get(name) == (state or None):
            return
        if state:
            self._rows[name] = state
        else:
            del self._rows[name]
        if not self._changed:
            self.ask()
        self._changed[name] = state
