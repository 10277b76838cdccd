"""Keeps a refresh token in its file, which nobody but its owner can read, not even for a moment."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path


def read_refresh_token(path: Path) -> str:
    """Give the token in a file, without the space around it; raises OSError or UnicodeDecodeError."""
    return path.read_text(encoding="utf-8").strip()


def write_refresh_token(path: Path, token: str) -> None:
    """Replace the file by one with another token, mode 0600, on disk when this returns; raises OSError.

    Run by root, it keeps the owner of the file that was there, or takes its folder's: the relay must read it later.
    """
    path = path.resolve()
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600 from the start
    beside = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if os.geteuid() == 0:
                owner = (path if path.exists() else path.parent).stat()
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            file.write(token.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            beside.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
