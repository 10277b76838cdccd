"""Reads tables of the configuration key by key, and collects everything that is wrong instead of stopping at once."""

import difflib
import re
import stat
import tomllib
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from smarthost.config_source import EnvironmentText, KeyPath, Problem, Source

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)

_SIZE = re.compile(r"(\d+)\s*([KMGT]i?B|B)?")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d|w)")
_SIZE_UNITS: dict[str, int] = {
    "B": 1,
    **{f"{letter}B": 1000**power for power, letter in enumerate("KMGT", 1)},
    **{f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", 1)},
}
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


class Findings:
    """What is wrong, and what is merely worth saying, about one configuration. Mutable while it is read."""

    def __init__(self, source: Source, needs_tokens: bool = True) -> None:
        """Start without any; `needs_tokens` says whether refresh tokens must be there already."""
        self.source = source
        self.needs_tokens = needs_tokens
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []

    def refuse(self, path: KeyPath, text: str) -> None:
        """Say what is wrong with the value at a path, and what is allowed."""
        self.problems.append(self.source.locate(path, text))

    def warn(self, path: KeyPath, text: str) -> None:
        """Say what a person may not have meant."""
        self.warnings.append(self.source.locate(path, text))


class Table:
    """One table being read. Each key that is asked for is known; `finish` refuses the others."""

    def __init__(self, values: dict[str, Any], path: KeyPath, findings: Findings) -> None:
        """Read from `values`, which stand at a path."""
        self.values = values
        self.path = path
        self.findings = findings
        self._known: set[str] = set()

    def has(self, key: str) -> bool:
        """Whether the key is given."""
        return key in self.values

    def refuse(self, key: str, text: str) -> None:
        """Say what is wrong with a key."""
        self.findings.refuse((*self.path, key), text)

    def warn(self, key: str, text: str) -> None:
        """Say what a person may not have meant with a key."""
        self.findings.warn((*self.path, key), text)

    def know(self, *keys: str) -> None:
        """Accept keys that are read elsewhere."""
        self._known.update(keys)

    def take(self, key: str, read: Callable[[object], T], default: T) -> T:
        """Give the value of a key as `read` makes it, or the default when it is not given or wrong."""
        self._known.add(key)
        if key not in self.values:
            return default
        return self._attempt((*self.path, key), read, self.values[key], default)

    def take_list(
        self, key: str, read: Callable[[object], T], default: Sequence[T] = (), *, or_one: bool = False
    ) -> tuple[T, ...]:
        """Give the values of an array, each as `read` makes it; with `or_one` a value alone is an array of one."""
        self._known.add(key)
        if key not in self.values:
            return tuple(default)
        values = from_environment(self.values[key])
        if not isinstance(values, list) and (or_one or isinstance(values, EnvironmentText)):
            values = [values] if values else []
        if not isinstance(values, list):
            self.refuse(key, f"is {show(values)}, but must be an array: [...]")
            return tuple(default)
        problems = len(self.findings.problems)
        read_values = [self._attempt((*self.path, key, index), read, value, None) for index, value in enumerate(values)]
        if len(self.findings.problems) > problems:
            return tuple(default)
        return tuple(value for value in read_values if value is not None)

    def table(self, key: str) -> "Table":
        """Give the table at a key; an empty one when it is not given."""
        self._known.add(key)
        value = from_environment(self.values.get(key, {}))
        if not isinstance(value, dict):
            self.refuse(key, f"is {show(value)}, but must be a table: [{key}] or {{ ... }}")
            value = {}
        return Table(value, (*self.path, key), self.findings)

    def tables(self, key: str) -> list["Table"]:
        """Give the tables of an array of tables."""
        self._known.add(key)
        values = from_environment(self.values.get(key, []))
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            self.refuse(key, f"must be an array of tables: [[{key}]]")
            return []
        return [Table(value, (*self.path, key, index), self.findings) for index, value in enumerate(values)]

    def is_for_all(self, key: str) -> bool:
        """Whether a value stands in a configuration file that every user of the machine can read."""
        file = self.findings.source.path
        value = self.values.get(key)
        return value is not None and file is not None and not isinstance(value, EnvironmentText) and is_open(file)

    def secret(self, key: str) -> str:
        """Give a secret, written under its key or in the file that `KEY_file` names; "" when it is not given."""
        secret = self.take(key, read_secret, "")
        file = self.take(f"{key}_file", read_path, None)
        if file is None:
            return secret
        if self.has(key):
            self.refuse(f"{key}_file", f"and {key} are both given; give one of them")
            return ""
        return self.secret_file(f"{key}_file").rstrip("\r\n")

    def secret_file(self, key: str) -> str:
        """Give what is in the secret file that a key names; "" when it is not given or cannot be used."""
        file = self.take(key, read_path, None)
        if file is None:
            return ""
        try:
            secret = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            self.refuse(key, f"is {str(file)!r}, which cannot be read: {reason}")
            return ""
        if not secret.strip("\r\n"):
            self.refuse(key, f"is {str(file)!r}, which is empty, but must hold the secret")
        elif is_open(file):
            self.warn(key, f"is {str(file)!r}, which every user of this machine can read; chmod o-r it")
        return secret

    def finish(self) -> None:
        """Refuse every key that nobody asked for, with the name that was probably meant."""
        for key in self.values:
            if key not in self._known:
                near = difflib.get_close_matches(key, self._known, 1)
                allowed = f"did you mean {near[0]!r}?" if near else f"allowed are {', '.join(sorted(self._known))}"
                self.refuse(key, f"is not known; {allowed}")

    def _attempt(self, path: KeyPath, read: Callable[[object], T], value: object, default: T) -> T:
        try:
            return read(value)
        except ValueError as error:
            self.findings.refuse(path, str(error))
            return default


def is_open(file: Path) -> bool:
    """Whether every user can read a file; what is below /run is a supervisor's, with a view of its own for each."""
    return bool(file.stat().st_mode & stat.S_IROTH) and not file.is_relative_to("/run")


def show(value: object) -> str:
    """Write a value as TOML would, roughly, and short."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an array"
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:56]}..."


def from_environment(value: Any) -> Any:
    """Read text of the environment as TOML where it is an array or a table; give all else back as it is."""
    if not isinstance(value, EnvironmentText) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return value  # "[smtp.example.net]:587" is no array


def read_text(value: object) -> str:
    """Read text; raises ValueError."""
    if not isinstance(value, str):
        raise ValueError(f'is {show(value)}, but must be text: "..."')
    if any(ord(character) < 32 for character in value):
        raise ValueError("must not have control characters in it")
    return str(value)


def read_name(value: object) -> str:
    """Read text that is not empty; raises ValueError."""
    text = read_text(value)
    if not text:
        raise ValueError("must not be empty")
    return text


def read_secret(value: object) -> str:
    """Read a secret, which no message may show; raises ValueError."""
    if not isinstance(value, str) or not value:
        raise ValueError("must be text that is not empty")
    return str(value)


def read_bool(value: object) -> bool:
    """Read a truth value; raises ValueError."""
    if isinstance(value, EnvironmentText) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise ValueError(f"is {show(value)}, but must be true or false")
    return value


def read_count(value: object) -> int:
    """Read a whole number of 1 or more; raises ValueError."""
    if isinstance(value, EnvironmentText) and value.isascii() and value.isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"is {show(value)}, but must be a whole number of 1 or more")
    return value


def read_size(value: object) -> int:
    """Read "35MiB", "512KB" or a number of octets; raises ValueError."""
    found = _SIZE.fullmatch(str(value).strip()) if isinstance(value, str | int) else None
    if found is None or isinstance(value, bool):
        raise ValueError(f'is {show(value)}, but must be a size: "35MiB", "512KB" or a number of octets')
    return int(found[1]) * _SIZE_UNITS[found[2] or "B"]


def read_positive_size(value: object) -> int:
    """Read a size of at least one octet; raises ValueError."""
    size = read_size(value)
    if not size:
        raise ValueError("is 0, but must be a size of 1 octet or more")
    return size


def read_duration(value: object) -> float:
    """Read "8s", "5m", "2h" or "5d" as seconds; raises ValueError."""
    found = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f'is {show(value)}, but must be a number with a unit: "8s", "5m", "2h", "5d"')
    return float(found[1]) * _DURATION_UNITS[found[2]]


def read_positive_duration(value: object) -> float:
    """Read a duration over 0 as seconds; raises ValueError."""
    duration = read_duration(value)
    if not duration:
        raise ValueError(f'is {show(value)}, but must be over 0: "8s", "5m", "2h", "5d"')
    return duration


def read_path(value: object) -> Path | None:
    """Read a file's path; None for ""; raises ValueError."""
    text = read_text(value)
    return Path(text).expanduser() if text else None


def read_existing_file(value: object) -> Path | None:
    """Read the path of a file that is there; None for ""; raises ValueError."""
    path = read_path(value)
    if path is not None and not path.is_file():
        raise ValueError(f"is {show(value)}, but there is no such file")
    return path


def read_choice(choices: type[E]) -> Callable[[object], E]:
    """Give a reader of one of an enum's words."""

    def read(value: object) -> E:
        try:
            return choices(str(value))
        except ValueError:
            raise ValueError(f"is {show(value)}, but must be one of: {', '.join(choices)}") from None

    return read
