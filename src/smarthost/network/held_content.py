"""Contents of attachments that are on the disk while their message is made: each a part of a file without a name."""

import asyncio
import os
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

import msgspec

from smarthost.network.attachment_cache import read_cached
from smarthost.network.fetch_url import Pieces
from smarthost.network.held_file import HeldFile

_BLOCK = 256 * 1024


class HeldContent(msgspec.Struct, frozen=True):
    """The content of one attachment: its octets, and what gives them, from their start, each time it is called."""

    size: int
    read: Callable[[], Pieces]


Held = Mapping[int, HeldContent]
"""Contents by the places of their attachments."""

NOTHING_HELD: Held = MappingProxyType({})


class HeldContents:
    """One file in which contents stand one behind the other. It has no name, so that nothing of it outlives a crash."""

    def __init__(self, folder: Path) -> None:
        """Make the file below a folder with the first octet."""
        self.file = HeldFile(partial(_make, folder))
        self.size = 0

    async def write(self, block: bytes) -> None:
        """Append octets; raises OSError."""
        await asyncio.to_thread(self.file.write, block)
        self.size += len(block)

    def part(self, offset: int, size: int) -> HeldContent:
        """Give a part of the file."""
        return HeldContent(size, lambda: self._read(offset, size))

    async def _read(self, offset: int, size: int) -> Pieces:
        end = offset + size
        while offset < end:
            block = await asyncio.to_thread(self.file.read_at, offset, min(_BLOCK, end - offset))
            if not block:
                raise OSError("a content on the disk is shorter than it was")
            offset += len(block)
            yield block

    def let_go(self) -> None:
        """Have the file vanish."""
        self.file.let_go()


def held_file(size: int, file: HeldFile) -> HeldContent:
    """Give a whole file as a content, which can be read once."""
    return HeldContent(size, partial(read_cached, file))


def _make(folder: Path) -> int:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        return os.dup(file.fileno())
