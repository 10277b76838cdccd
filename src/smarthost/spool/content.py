"""Content files: large contents beside the database, one file a message, named by its id."""

import errno
import os
import threading
import zlib
from pathlib import Path
from typing import BinaryIO

from smarthost.mail.message import format_id, parse_id
from smarthost.spool.reserve import Reserve

FOLDER = "content"
_BLOCK = 1024 * 1024


class DiskFile:
    """A content file while it is written, from worker threads, one at a time; see `store.ContentFile`."""

    def __init__(self, folder: "ContentFolder", message: int) -> None:
        """Create the file; raises OSError."""
        self.name = format_id(message)
        self.size = 0
        self.crc = 0
        self._folder = folder
        self._path = folder.path / self.name
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write(self, block: bytes) -> None:
        """Append octets; raises OSError, with ENOSPC while only the reserve is left."""
        if not self._folder.reserve.held:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.name)
        view = memoryview(block)
        while view:
            view = view[os.write(self._descriptor, view) :]
        self.crc = zlib.crc32(block, self.crc)
        self.size += len(block)

    def seal(self) -> None:
        """Sync the file, then its folder, which holds its name; raises OSError."""
        os.fsync(self._descriptor)
        self._close()
        sync_folder(self._folder.path)
        self._folder.sealed(self)

    def reopen(self) -> BinaryIO:
        """Give what was written for reading, and free the name for a new file of the same message; raises OSError."""
        self._close()
        written = self._path.open("rb")
        self._path.unlink()
        return written

    def discard(self) -> None:
        """Delete the file."""
        self._close()
        self._folder.delete(self.name)

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class ContentFolder:
    """The folder of content files; knows which messages have one. Its methods may be called from any thread."""

    def __init__(self, path: Path, reserve: Reserve) -> None:
        """Look at the folder, which exists."""
        self.path = path
        self.reserve = reserve
        self.messages = {number for name in os.listdir(path) if (number := parse_id(name)) is not None}
        self._sealed: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()

    def new(self, message: int) -> DiskFile:
        """Start a message's file; raises OSError."""
        return DiskFile(self, message)

    def sealed(self, file: DiskFile) -> None:
        """Note that a file is on disk, with what its row will say of it."""
        with self._lock:
            self._sealed[file.name] = file.size, file.crc

    def take_sealed(self, file: str, message: int) -> tuple[int, int]:
        """Give a sealed file's size and CRC-32 to the row that will own it; raises ValueError if it is not that."""
        with self._lock:
            finding = self._sealed.pop(file, None)
            if finding is None or file != format_id(message):
                raise ValueError(f"content file {file!r} of message {format_id(message)} was not sealed")
            self.messages.add(message)
        return finding

    def delete(self, file: str) -> None:
        """Delete a file; one that is gone is no error, and one that cannot be deleted is swept at the next start."""
        with self._lock:
            self._sealed.pop(file, None)
            self.messages.discard(parse_id(file) or 0)
        try:
            os.unlink(self.path / file)
        except OSError:
            pass

    def delete_of(self, message: int) -> None:
        """Delete the file of a message."""
        self.delete(format_id(message))

    def read(self, file: str, offset: int, count: int) -> bytes:
        """Read octets; raises OSError."""
        descriptor = os.open(self.path / file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(descriptor, count, offset)
        finally:
            os.close(descriptor)

    def measure(self, file: str) -> tuple[int, int]:
        """Read a whole file; gives its size and CRC-32. Raises OSError."""
        size = crc = 0
        with (self.path / file).open("rb", buffering=0) as opened:
            while block := opened.read(_BLOCK):
                size += len(block)
                crc = zlib.crc32(block, crc)
        return size, crc


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable; raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
