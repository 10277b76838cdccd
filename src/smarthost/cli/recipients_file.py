"""Recipients file: the recipients of a batch with their variables, read from CSV or from JSON lines."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from smarthost.cli.exits import CommandFailed
from smarthost.client import BatchRecipient, Variable

Convert = Callable[[str, str], Any]
"""Reads the text of a cell as what its variable is; ValueError says what is needed."""

DATA_ERROR = 65  # EX_DATAERR
_DELIMITERS = ",;\t"
_EMAIL = "email"
_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def read_recipients(file: Path, is_json: bool, given: Mapping[str, Any], convert: Convert) -> Iterator[BatchRecipient]:
    """Give the recipients of a file; `given` are variables of those that have none of their own of that name.

    CSV has a line of names, one of them `email`, and the others are variables; JSON lines have an object each, with
    `email` and `variables`, or with the variables beside it. Raises CommandFailed (65) with file and line.
    """
    try:
        with file.open("rb") as octets, TextIOWrapper(octets, "utf-8-sig", newline="") as text:
            rows = _json_rows(file, text) if is_json else _csv_rows(file, text, convert)
            for line, row in rows:
                email = row.pop(_EMAIL, None)
                if not isinstance(email, str) or not email.strip():
                    raise _wrong(file, line, "there is no email")
                yield BatchRecipient(email.strip(), {**given, **row})
    except OSError as error:
        raise CommandFailed(f"{file} cannot be read: {error.strerror or error}", 66) from None
    except UnicodeDecodeError:
        raise CommandFailed(f"{file} is not UTF-8", DATA_ERROR) from None


def converter(variables: Mapping[str, Variable]) -> Convert:
    """Give the function that reads text as the types that a template names; what it does not name is text."""

    def convert(name: str, text: str) -> Any:
        kind = variables[name].type if name in variables else "string"
        if kind == "string":
            return text
        text = text.strip()
        if not text:
            return None
        try:
            return _read_as(kind, text)
        except (ValueError, KeyError):
            raise ValueError(f"{name}: {text[:40]!r} is no {kind}") from None

    return convert


def _read_as(kind: str, text: str) -> Any:
    if kind == "boolean":
        return _WORDS[text.lower()]
    if kind == "integer":
        return int(text)
    value = json.loads(text)
    wanted = {"number": int | float, "array": list, "object": dict}[kind]
    if not isinstance(value, wanted) or isinstance(value, bool):
        raise ValueError
    return value


def _csv_rows(file: Path, text: TextIOWrapper, convert: Convert) -> Iterator[tuple[int, dict[str, Any]]]:
    first = text.readline()
    text.seek(0)
    rows = csv.reader(text, delimiter=max(_DELIMITERS, key=first.count), strict=True)
    try:
        names = [name.strip() for name in next(rows, [])]
        names = [_EMAIL if name.lower() == _EMAIL else name for name in names]
        if names.count(_EMAIL) != 1 or len(set(names)) != len(names) or "" in names:
            raise _wrong(file, 1, "a line of names is needed, each there once, one of them email")
        for cells in rows:
            line = rows.line_num
            if not cells:
                continue
            if len(cells) != len(names):
                raise _wrong(file, line, f"there are {len(cells)} columns; line 1 has {len(names)}")
            try:
                values = {
                    name: cell if name == _EMAIL else convert(name, cell)
                    for name, cell in zip(names, cells, strict=True)
                }
            except ValueError as error:
                raise _wrong(file, line, str(error)) from None
            yield line, {name: value for name, value in values.items() if value is not None}
    except csv.Error as error:
        raise _wrong(file, rows.line_num, f"this is no CSV: {error}") from None


def _json_rows(file: Path, text: TextIOWrapper) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, written in enumerate(text, 1):
        if not written.strip():
            continue
        try:
            row = json.loads(written)
        except ValueError as error:
            raise _wrong(file, line, f"this is no JSON: {error}") from None
        if not isinstance(row, dict):
            raise _wrong(file, line, "an object with email is needed")
        variables = row.get("variables")
        if isinstance(variables, dict) and set(row) <= {_EMAIL, "variables"}:
            row = {**variables, _EMAIL: row.get(_EMAIL)}
        yield line, row


def _wrong(file: Path, line: int, what: str) -> CommandFailed:
    return CommandFailed(f"{file}:{line}: {what}; nothing was sent", DATA_ERROR)
