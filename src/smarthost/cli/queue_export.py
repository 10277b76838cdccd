"""Writes exported messages: content and envelope into files, or the content of one to standard output."""

import argparse
import base64
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from smarthost.cli.exits import CommandFailed, misused
from smarthost.cli.queue_read import export_messages
from smarthost.cli.settings import find_data_directory

Row = dict[str, Any]


def export(chosen: argparse.Namespace, wanted: dict[str, Any]) -> int:
    """Export what a filter chooses; gives the exit code: 65 when some content was missing."""
    if not chosen.out and not chosen.json and len(chosen.ids) != 1:
        raise misused("queue export wants --out DIR, --json, or exactly one ID for standard output")
    rows = export_messages(find_data_directory(chosen), wanted)
    if chosen.out:
        return _to_folder(rows, Path(chosen.out), chosen.json)
    if chosen.json:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
        return os.EX_OK
    return _to_standard_output(rows)


def _to_standard_output(rows: Iterable[Row]) -> int:
    found = False
    for row in rows:
        found = True
        if row.get("problem"):
            raise CommandFailed(row["problem"], os.EX_DATAERR)
        sys.stdout.buffer.write(base64.b64decode(row.get("content", "")))
    if not found:
        raise CommandFailed("there is no such message in the queue", os.EX_NOINPUT)
    return os.EX_OK


def _to_folder(rows: Iterable[Row], folder: Path, as_json: bool) -> int:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        written, missing = _write_files(rows, folder)
    except OSError as error:
        raise CommandFailed(f"{error.filename or folder}: {error.strerror or error}", os.EX_CANTCREAT) from None
    for sentence in missing:
        print(f"smarthost: {sentence}", file=sys.stderr)
    counts = {"messages": written, "missing": len(missing)}
    print(json.dumps(counts) if as_json else f"{written} messages are in {folder}")
    return os.EX_DATAERR if missing else os.EX_OK


def _write_files(rows: Iterable[Row], folder: Path) -> tuple[int, list[str]]:
    """Write ID.json as soon as a message begins and ID.eml as its blocks come; mail is private, so mode 0600."""
    written = 0
    missing: list[str] = []
    content: BinaryIO | None = None
    try:
        for row in rows:
            name = row["id"]
            if "sender" in row:
                with _create(folder / f"{name}.json") as envelope:
                    envelope.write(json.dumps(row, ensure_ascii=False, indent=2).encode() + b"\n")
            if "content" in row:
                content = content or _create(folder / f"{name}.eml")
                content.write(base64.b64decode(row["content"]))
            if row.get("end"):
                if content is not None:
                    content.close()
                content = None
                if row.get("problem"):
                    missing.append(f"{name}: {row['problem']}")
                else:
                    written += 1
    finally:
        if content is not None:
            content.close()
    return written, missing


def _create(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
