"""Reads files below configured folders, and nothing else that a path could lead to."""

import asyncio
import os
import stat
from functools import partial
from pathlib import PurePosixPath

from smarthost.compose.attaching import too_large
from smarthost.compose.fault import excerpt
from smarthost.network.fetch_url import Pieces
from smarthost.network.held_file import HeldFile
from smarthost.network.source_fault import SourceFault

_BLOCK = 256 * 1024
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Not waiting is for pipes, which would else hold the thread until somebody writes.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class _Refused(Exception):
    """A path that is not opened; carries why."""


async def read_stored(roots: tuple[str, ...], path: str, largest: int, field: str) -> Pieces:
    """Give a file block by block: an absolute path below a root, or one that is relative to the roots, in their order.

    No symbolic link below a root is followed: each folder is opened from the one before, so that what is opened
    is what was looked at.
    """
    file = HeldFile(partial(_open, roots, path))
    try:
        room = largest - await asyncio.to_thread(file.size)
        if room >= 0:
            room = largest
        while room >= 0 and (block := await asyncio.to_thread(file.read, _BLOCK)):
            room -= len(block)
            if room >= 0:
                yield block
        if room < 0:
            yield SourceFault(field, too_large(largest))
    except _Refused as refused:
        yield SourceFault(field, str(refused))
    except OSError as error:
        yield SourceFault(field, f"{excerpt(path)} cannot be read ({error.strerror})", passing=True)
    finally:
        file.let_go()


def _open(roots: tuple[str, ...], path: str) -> int:
    """Open a file below one of the roots; raises _Refused."""
    if not roots:
        raise _Refused("no folder is configured that attachments may be read from")
    wanted = PurePosixPath(path)
    said = f"{excerpt(path)} is not below a folder that attachments may be read from"
    if ".." in wanted.parts or "\0" in path:
        raise _Refused(said)
    for root in roots:
        if wanted.is_absolute() and not wanted.is_relative_to(root):
            continue
        names = (wanted.relative_to(root) if wanted.is_absolute() else wanted).parts
        if not names:
            continue
        try:
            return _open_below(root, names)
        except FileNotFoundError:
            said = f"{excerpt(path)} is not there"
        except OSError as error:
            said = f"{excerpt(path)} cannot be read ({error.strerror})"
    raise _Refused(said)


def _open_below(root: str, names: tuple[str, ...]) -> int:
    """Go down folder by folder; raises OSError for a symbolic link, and for what is no file."""
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in names[:-1]:
            inner = os.open(name, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = inner
        file = os.open(names[-1], _FILE, dir_fd=folder)
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(0, "not a file")
    return file
