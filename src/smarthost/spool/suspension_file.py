"""Keeps what a person has suspended in a small file, written whole and synced, so that a restart forgets none of it."""

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from smarthost.policy.suspension import Suspension
from smarthost.spool.content import sync_folder


def read_suspensions(path: Path) -> list[Suspension]:
    """Read the file; [] where there is none. Raises ValueError when it is damaged, and OSError."""
    try:
        octets = path.read_bytes()
    except FileNotFoundError:
        return []
    try:
        return msgspec.json.decode(octets, type=list[Suspension])
    except (msgspec.DecodeError, UnicodeDecodeError) as fault:
        raise ValueError(f"{path}: {fault}") from None


def write_suspensions(path: Path, suspensions: Sequence[Suspension]) -> None:
    """Replace the file, which is there whole, old or new, whatever happens; raises OSError. It blocks."""
    draft = path.with_name(f".{path.name}.new")
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(file, msgspec.json.encode(list(suspensions)))
        os.fsync(file)
    finally:
        os.close(file)
    draft.replace(path)
    sync_folder(path.parent)
