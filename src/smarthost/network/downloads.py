"""Files that stand for attachments which were too large to be sent: each has a signed link that expires."""

import asyncio
import hmac
import os
import re
from collections.abc import Callable
from contextlib import aclosing
from enum import Enum, auto
from functools import partial
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

import msgspec

from smarthost.compose.attaching import too_large
from smarthost.compose.download_note import DownloadLink
from smarthost.network.fetch_url import Pieces
from smarthost.network.held_file import HeldFile
from smarthost.network.source_fault import SourceFault
from smarthost.policy.attachments import LargeSettings

_NAME = re.compile(r"[0-9a-f]{32}")
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_UNFINISHED = ".unfinished"
_DESCRIPTION = ".json"


class Description(msgspec.Struct, frozen=True):
    """What is written beside a file: name, type and octets, whose it is, and the Unix time until which it is there."""

    filename: str
    content_type: str
    size: int
    tenant: str
    expires: int


class Pulled(msgspec.Struct, frozen=True):
    """A content that was pulled onto the disk: its name there, its octets, and the file, to be read from its start."""

    name: str
    size: int
    file: HeldFile


class LinkFault(Enum):
    """Why a link leads to nothing."""

    FORGED = auto()  # it is none that was given
    EXPIRED = auto()
    GONE = auto()  # the file is not there any more


class Downloads:
    """A folder of files and what signs their links.

    `settings` and `key`, a secret of at least 32 octets, may be changed: links that were signed by another key are
    good no more. `now` gives Unix seconds, `mint` 32 hexadecimal digits by chance.
    """

    def __init__(
        self, folder: Path, settings: LargeSettings, key: bytes, now: Callable[[], float], mint: Callable[[], str]
    ) -> None:
        """Make the folder and forget what was not finished; raises OSError."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.settings, self.key = settings, key
        self._folder, self._now, self._mint = folder, now, mint
        for file in folder.glob(f"*{_UNFINISHED}"):
            file.unlink(missing_ok=True)

    async def pull(self, pieces: Pieces, largest: int, field: str) -> Pulled | SourceFault:
        """Bring a content onto the disk; it is no download yet, and goes with `drop` unless `keep` makes it one."""
        name = self._mint()
        file = HeldFile(partial(os.open, self._path(name, _UNFINISHED), _CREATE, 0o600))
        size, fault = 0, None
        try:
            async with aclosing(pieces):
                async for piece in pieces:
                    if isinstance(piece, SourceFault):
                        fault = piece
                        break
                    size += len(piece)
                    if size > largest:
                        fault = SourceFault(field, too_large(largest))
                        break
                    await asyncio.to_thread(file.write, piece)
            if fault is None:
                await asyncio.to_thread(file.rewind)
                return Pulled(name, size, file)
        except OSError as error:
            fault = SourceFault(field, f"cannot be stored ({error.strerror})", passing=True)
        except BaseException:
            self.drop(Pulled(name, size, file))
            raise
        self.drop(Pulled(name, size, file))
        return fault

    def drop(self, pulled: Pulled) -> None:
        """Delete what was pulled, as soon as no thread is at it; what was kept stays."""
        asyncio.get_running_loop().run_in_executor(None, self._drop, pulled)

    async def keep(self, pulled: Pulled, filename: str, content_type: str, tenant: str) -> DownloadLink | OSError:
        """Make a download of what was pulled; it is on disk when the link is given."""
        expires = int(self._now() + self.settings.lifetime)
        described = Description(filename, content_type, pulled.size, tenant, expires)
        try:
            await asyncio.to_thread(self._keep, pulled, described)
        except OSError as error:
            return error
        return DownloadLink(filename, pulled.size, self.link(pulled.name, expires), float(expires))

    def link(self, name: str, expires: int) -> str:
        """Give the address of a file; who has it needs nothing else, until it expires."""
        signature = quote(self._sign(name, expires))
        return f"{self.settings.public_url.rstrip('/')}/api/v1/downloads/{name}?expires={expires}&signature={signature}"

    async def open(self, name: str, expires: str, signature: str) -> tuple[Description, HeldFile] | LinkFault:
        """Give what a link leads to, its file to be let go of, or why there is nothing.

        Of a link with a wrong signature nothing is said, not even whether there is such a file.
        """
        if _NAME.fullmatch(name) is None or not (expires.isascii() and expires.isdigit() and len(expires) < 12):
            return LinkFault.FORGED
        if not hmac.compare_digest(self._sign(name, int(expires)).encode(), signature.encode("utf-8", "replace")):
            return LinkFault.FORGED
        if int(expires) <= self._now():
            return LinkFault.EXPIRED
        file = HeldFile(partial(os.open, self._path(name), _READ))
        try:
            octets = await asyncio.to_thread(self._path(name, _DESCRIPTION).read_bytes)
            await asyncio.to_thread(file.size)
            return msgspec.json.decode(octets, type=Description), file
        except (OSError, msgspec.DecodeError):
            file.let_go()
            return LinkFault.GONE
        except BaseException:
            file.let_go()
            raise

    def _path(self, name: str, suffix: str = "") -> Path:
        return self._folder / f"{name}{suffix}"

    def _sign(self, name: str, expires: int) -> str:
        return hmac.digest(self.key, f"{name}.{expires}".encode(), sha256).hex()

    def _drop(self, pulled: Pulled) -> None:
        pulled.file.close()
        self._path(pulled.name, _UNFINISHED).unlink(missing_ok=True)

    def _keep(self, pulled: Pulled, described: Description) -> None:
        """Sync the file, describe it, and give it its name last: a file that has a name is whole and described."""
        pulled.file.sync()
        pulled.file.close()
        description = HeldFile(partial(os.open, self._path(pulled.name, _DESCRIPTION), _CREATE, 0o600))
        try:
            description.write(msgspec.json.encode(described))
            description.sync()
        finally:
            description.close()
        self._path(pulled.name, _UNFINISHED).rename(self._path(pulled.name))
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def sweep_downloads(folder: Path, now: float) -> int:
    """For a thread: delete what has expired, and say how many files that were; a folder that is not there has none."""
    count = 0
    for described in folder.glob(f"*{_DESCRIPTION}"):
        try:
            if msgspec.json.decode(described.read_bytes(), type=Description).expires <= now:
                described.with_suffix("").unlink(missing_ok=True)
                described.unlink()
                count += 1
        except (OSError, msgspec.DecodeError):
            continue
    return count
