"""Finds the configuration, reads it as TOML, lays the environment over it, and knows on which line each key stands."""

import re
import tomllib
from bisect import bisect_right
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

DEFAULT_PATH = Path("/etc/smarthost/smarthost.toml")
PATH_VARIABLE = "SMARTHOST_CONFIG"
KEY_PREFIX = "SMARTHOST__"

# A key's place: table names, keys, and indices in arrays, as ("listener", 0, "tls").
KeyPath = tuple[str | int, ...]


class EnvironmentText(str):
    """A value from the environment: text that may still be read as a number, a truth value, an array or a table."""

    __slots__ = ()


class Problem(msgspec.Struct, frozen=True, order=True):
    """One thing that is wrong. `line` is 0 where no line can be named; `where` is the file or the variable."""

    line: int
    where: str
    key: str
    text: str

    def __str__(self) -> str:
        """Write it as "FILE:LINE: key.path: what is wrong, and what is allowed"."""
        place = f"{self.where}:{self.line}" if self.line else self.where
        return ": ".join(filter(None, (place, self.key, self.text)))


class ConfigError(Exception):
    """The configuration cannot be used; `problems` says all that was found, at least one."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        """Keep the problems in the order of their lines."""
        super().__init__(f"{len(problems)} problems in the configuration")
        self.problems = tuple(sorted(problems))

    def render(self) -> str:
        """Write the problems, one a line."""
        return "\n".join(map(str, self.problems))


class Source(msgspec.Struct):
    """What was read: the values, and where each came from. `path` is None when there is no file."""

    path: Path | None
    values: dict[str, Any]
    lines: dict[KeyPath, int]
    variables: dict[KeyPath, str]

    def locate(self, path: KeyPath, text: str) -> Problem:
        """Make a problem of the key at a path, on the line of the nearest thing around it that has one."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.variables:
                return Problem(0, self.variables[path[:end]], show_path(path), text)
            if path[:end] in self.lines:
                return Problem(self.lines[path[:end]], str(self.path), show_path(path), text)
        return Problem(0, str(self.path or "configuration"), show_path(path), text)


def show_path(path: KeyPath) -> str:
    """Write a path as "listener[0].tls"."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def read_source(path: Path | None, environ: Mapping[str, str]) -> Source:
    """Read `path`, else the file that SMARTHOST_CONFIG names, else the default file if there is one.

    Raises ConfigError when a named file cannot be read, when it is not TOML, or when a variable fits no place.
    """
    named = path or (Path(environ[PATH_VARIABLE]) if environ.get(PATH_VARIABLE) else None)
    if named is None and not DEFAULT_PATH.exists():
        source = Source(None, {}, {}, {})
    else:
        source = _read_file(named or DEFAULT_PATH)
    _overlay(source, environ)
    return source


def _read_file(path: Path) -> Source:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError((Problem(0, str(path), "", f"cannot be read: {error.strerror}"),)) from None
    except UnicodeDecodeError as error:
        raise ConfigError((Problem(0, str(path), "", f"is not UTF-8 text: {error.reason}"),)) from None
    return parse_source(text, path)


def parse_source(text: str, path: Path) -> Source:
    """Read text as TOML, as if it stood in a file; raises ConfigError when it is not TOML."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", str(error))
        line = int(found[2]) if found and found[2] else text.count("\n") + 1
        what = f"{found[1]} (column {found[3] or 1})" if found else str(error)
        raise ConfigError((Problem(line, str(path), "", f"is not TOML: {what}"),)) from None
    return Source(path, values, find_lines(text), {})


def _overlay(source: Source, environ: Mapping[str, str]) -> None:
    problems = []
    for variable in sorted(name for name in environ if name.startswith(KEY_PREFIX)):
        parts = variable[len(KEY_PREFIX) :].lower().split("__")
        path = tuple(int(part) if part.isascii() and part.isdigit() else part for part in parts)
        if not _put(source.values, path, environ[variable]):
            allowed = f"{KEY_PREFIX}SECTION__KEY, or {KEY_PREFIX}SECTION__0__KEY in an array of tables"
            problems.append(Problem(0, variable, "", f"fits no place in the configuration; write {allowed}"))
        source.variables[path] = variable
    if problems:
        raise ConfigError(tuple(problems))


def _put(tables: Any, path: KeyPath, text: str) -> bool:
    """Set the value at a path, making tables on the way; false when the path leads through a value."""
    for part, following in zip(path, (*path[1:], None), strict=True):
        if isinstance(part, int) != isinstance(tables, list) or part == "":
            return False
        if isinstance(part, int) and part == len(tables):
            tables.append({})
        elif isinstance(part, int) and part > len(tables):
            return False
        if following is None:
            tables[part] = EnvironmentText(text)
            return True
        if isinstance(part, str):
            tables.setdefault(part, [] if isinstance(following, int) else {})
        tables = tables[part]
        if not isinstance(tables, dict | list):
            return False
    return False


def find_lines(text: str) -> dict[KeyPath, int]:
    """Give the line, from 1, of every table, key and array element of a text that is valid TOML."""
    return _Lines(text).find()


_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY = re.compile(r'"(?:\\.|[^"\\])*"|\'[^\']*\'|[A-Za-z0-9_-]+')
_TEXT = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?!")|\'\'\'.*?\'\'\'(?!\')|"(?:\\.|[^"\\])*"|\'[^\']*\'|[^,\]}#\n]+', re.DOTALL
)


class _Lines:
    """A walk over valid TOML that looks at nothing but where things stand."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._line_ends = [found.start() for found in re.finditer("\n", text)]
        self._elements: dict[KeyPath, int] = {}  # the index of the newest element of an array of tables
        self.found: dict[KeyPath, int] = {}

    def find(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        while self._skip_blank() < len(self._text):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
        return self.found

    def _header(self) -> KeyPath:
        brackets = 2 if self._text.startswith("[[", self._at) else 1
        line = self._line()
        self._at += brackets
        *parents, name = self._dotted()
        self._at += brackets
        path = self._resolve(parents, line)
        if brackets == 2:
            self._note((*path, name), line)
            index = self._elements.get((*path, name), -1) + 1
            self._elements[(*path, name)] = index
            path = (*path, name, index)
        else:
            path = self._resolve([*parents, name], line)
        self._note(path, line)
        return path

    def _resolve(self, names: list[str], line: int) -> KeyPath:
        path: KeyPath = ()
        for name in names:
            path = (*path, name)
            self._note(path, line)
            if path in self._elements:
                path = (*path, self._elements[path])
        return path

    def _pair(self, table: KeyPath) -> None:
        line = self._line()
        path = table
        for name in self._dotted():
            path = (*path, name)
            self._note(path, line)
        self._at += 1  # the =
        self._skip_blank()
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        opening = self._text[self._at]
        if opening not in "[{":
            found = _TEXT.match(self._text, self._at)
            self._at = found.end() if found else len(self._text)
            return
        self._at += 1
        index = 0
        while self._skip_blank() < len(self._text) and self._text[self._at] not in "]}":
            if self._text[self._at] == ",":
                self._at += 1
            elif opening == "{":
                self._pair(path)
            else:
                self._note((*path, index), self._line())
                self._value((*path, index))
                index += 1
        self._at += 1

    def _dotted(self) -> list[str]:
        names = []
        while found := _KEY.match(self._text, self._skip_blank()):
            self._at = found.end()
            name = found[0]
            names.append(tomllib.loads(f"k = {name}")["k"] if name[0] in "\"'" else name)
            if self._text[self._skip_blank()] != ".":
                break
            self._at += 1
        return names

    def _skip_blank(self) -> int:
        found = _BLANK.match(self._text, self._at)
        self._at = found.end() if found else self._at
        return self._at

    def _line(self) -> int:
        return bisect_right(self._line_ends, self._at) + 1

    def _note(self, path: KeyPath, line: int) -> None:
        self.found.setdefault(path, line)
