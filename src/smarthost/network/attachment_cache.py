"""A cache on disk for contents that requests name by their MD5; each tenant has its own."""

import asyncio
import hashlib
import os
import re
import tempfile
from collections.abc import Callable
from contextlib import aclosing
from functools import partial
from pathlib import Path

from smarthost.network.fetch_url import Piece, Pieces
from smarthost.network.held_file import HeldFile
from smarthost.network.source_fault import SourceFault
from smarthost.policy.attachments import CacheSettings

_BLOCK = 256 * 1024
_NAME = re.compile(r"[a-z0-9-]{1,64}\.[0-9a-f]{32}")
_UNFINISHED = "unfinished-"


class AttachmentCache:
    """Contents by tenant and MD5, bounded in size and age. A fault of the disk means that nothing is cached.

    An MD5 is no secret and can be forged, which is why a content is found only by the tenant who brought it, and is
    kept under the MD5 that it has, whatever it was named. `settings` may be changed.
    """

    def __init__(self, folder: Path, settings: CacheSettings, now: Callable[[], float]) -> None:
        """Keep contents in a folder, which is made; `now` gives Unix seconds. Raises OSError."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.settings = settings
        self._folder, self._now = folder, now
        for file in folder.glob(f"{_UNFINISHED}*"):
            file.unlink(missing_ok=True)

    async def open(self, tenant: str, md5: str) -> HeldFile | None:
        """Give a content's file, None if there is none; who asks lets it go."""
        path = self._path(tenant, md5)
        if path is None:
            return None
        file = HeldFile(partial(self._open, path))
        try:
            await asyncio.to_thread(file.size)
        except OSError:
            return None
        except BaseException:
            file.let_go()
            raise
        return file

    async def keep(self, tenant: str, pieces: Pieces) -> Pieces:
        """Pass a content on, and keep it once it is whole; a fault on the way passes, and nothing is kept."""
        unfinished: _Unfinished | None = _Unfinished(self._folder)
        try:
            async with aclosing(pieces):
                async for piece in pieces:
                    if unfinished is not None and not await unfinished.takes(piece):
                        unfinished.let_go()
                        unfinished = None
                    yield piece
            if unfinished is not None:
                await asyncio.to_thread(self._finish, tenant, unfinished)
        finally:
            if unfinished is not None:
                unfinished.let_go()

    def _path(self, tenant: str, md5: str) -> Path | None:
        name = f"{tenant}.{md5}"
        return self._folder / name if _NAME.fullmatch(name) else None

    def _open(self, path: Path) -> int:
        """Open a content, and note that it was used; raises OSError, for one that is too old, too."""
        now = self._now()
        if path.stat().st_mtime < now - self.settings.age:
            path.unlink()
            raise FileNotFoundError(path)
        os.utime(path, (now, now))
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)

    def _finish(self, tenant: str, unfinished: "_Unfinished") -> None:
        """Give a content its name, and make room for it."""
        path = self._path(tenant, unfinished.md5)
        if path is None or unfinished.size > self.settings.octets:
            return
        now = self._now()
        if unfinished.become(path, now):
            self._make_room(now)

    def _make_room(self, now: float) -> None:
        """Delete what is too old, and what was used longest ago while there is too much."""
        kept = []
        for file in self._folder.iterdir():
            try:
                found = file.stat()
                if not _NAME.fullmatch(file.name):
                    continue
                if found.st_mtime < now - self.settings.age:
                    file.unlink()
                else:
                    kept.append((found.st_mtime, found.st_size, file))
            except OSError:
                continue
        total = sum(size for _, size, _ in kept)
        for _, size, file in sorted(kept):
            if total <= self.settings.octets:
                return
            file.unlink(missing_ok=True)
            total -= size


class _Unfinished:
    """A content while it comes, in a file that has no name of its own yet."""

    def __init__(self, folder: Path) -> None:
        self.size = 0
        self._folder = folder
        self._path: Path | None = None
        self._file = HeldFile(self._begin)
        self._digest = hashlib.md5(usedforsecurity=False)

    @property
    def md5(self) -> str:
        return self._digest.hexdigest()

    async def takes(self, piece: Piece) -> bool:
        """Add a block; false for a fault, and if the disk does not take it."""
        return not isinstance(piece, SourceFault) and await asyncio.to_thread(self._add, piece)

    def _begin(self) -> int:
        descriptor, name = tempfile.mkstemp(prefix=_UNFINISHED, dir=self._folder)
        self._path = Path(name)
        return descriptor

    def _add(self, block: bytes) -> bool:
        self._digest.update(block)
        self.size += len(block)
        try:
            self._file.write(block)
        except OSError:
            return False
        return True

    def become(self, path: Path, now: float) -> bool:
        """Take a name; false if the disk does not let it. It is synced first: after a crash there is all or nothing."""
        try:
            self._file.sync()
            self._file.close()
            if self._path is None:
                return False
            os.utime(self._path, (now, now))
            self._path.rename(path)
        except OSError:
            return False
        return True

    def let_go(self) -> None:
        """Delete what has no name, as soon as no thread is at it."""
        asyncio.get_running_loop().run_in_executor(None, self._discard)

    def _discard(self) -> None:
        self._file.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)


async def read_cached(file: HeldFile) -> Pieces:
    """Give a content on the disk block by block, and let it go."""
    try:
        while block := await asyncio.to_thread(file.read, _BLOCK):
            yield block
    finally:
        file.let_go()
