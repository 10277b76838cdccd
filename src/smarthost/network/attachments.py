"""Gives a composed message block by block, its attachments pulled from wherever they are: never one whole in memory."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing

from smarthost.compose.attaching import too_large_together
from smarthost.compose.bodies import Radix64Lines
from smarthost.compose.letter import Letter
from smarthost.compose.mime import Composed
from smarthost.compose.submission import Attachment
from smarthost.network.attachment_cache import AttachmentCache, read_cached
from smarthost.network.fetch_url import Pieces, fetch_url
from smarthost.network.held_content import NOTHING_HELD, Held, HeldContent
from smarthost.network.http_client import HttpClient
from smarthost.network.s3 import S3Reader
from smarthost.network.source_fault import SourceFault
from smarthost.network.stored_file import read_stored
from smarthost.policy.attachments import AttachmentSettings

_BLOCK = 57 * 2048  # octets of a content in memory that are encoded at a time; whole lines of base64


class AttachmentSources:
    """Where attachments come from: the request itself, URLs, a store, folders, and the cache in front of them."""

    def __init__(
        self,
        settings: AttachmentSettings,
        client: HttpClient,
        s3: S3Reader | None = None,
        cache: AttachmentCache | None = None,
        largest: int | None = None,
    ) -> None:
        """Take the ways there are; `client` is for URLs, and refuses what may not be spoken to.

        `largest` are the octets that one attachment may have, if not those of the settings.
        """
        self._settings, self._client, self._s3, self._cache = settings, client, s3, cache
        self.largest = settings.largest if largest is None else largest

    @property
    def together(self) -> int:
        """The octets that all attachments of a message may have."""
        return self._settings.together

    async def message(
        self,
        composed: Composed,
        letter: Letter,
        tenant: str,
        held: Held = NOTHING_HELD,
        measured: Callable[[int, int], object] = lambda place, octets: None,
    ) -> Pieces:
        """Give the octets of a message in order; a fault is the last piece, and the message is then to be abandoned.

        `held` are contents that are on the disk already; `measured` is told the place and the octets of each attachment
        that has come. Who stops before the end closes the iterator, so that what is open is let go.
        """
        room = self._settings.together
        for piece in composed.pieces:
            if isinstance(piece, bytes):
                yield piece
                continue
            place, before = piece.attachment, room
            source = self.octets(letter.attachments[place], tenant, f"attachments[{place}]", held.get(place))
            lines = Radix64Lines()
            async with aclosing(source) as blocks:
                async for each in blocks:
                    if isinstance(each, SourceFault):
                        yield each
                        return
                    room -= len(each)
                    if room < 0:
                        yield SourceFault("attachments", too_large_together(self._settings.together))
                        return
                    yield lines.feed(each)
            yield lines.end()
            measured(place, before - room)

    def octets(self, attachment: Attachment, tenant: str, path: str, held: HeldContent | None = None) -> Pieces:
        """Give the octets of one attachment from wherever it is; `path` names it in faults."""
        if held is not None:
            return held.read()
        if attachment.content is not None:
            return _in_blocks(attachment.content)
        return self.open(attachment, tenant, path)

    async def open(self, attachment: Attachment, tenant: str, path: str) -> Pieces:
        """Give the octets of one attachment from the cache, or from its source; `path` names it in faults."""
        cache, md5 = self._cache, attachment.content_md5
        if cache is None or not md5:
            source = self._from_source(attachment, path)
        elif (file := await cache.open(tenant, md5)) is not None:
            source = read_cached(file)
        else:
            source = cache.keep(tenant, self._from_source(attachment, path))
        async with aclosing(source) as pieces:
            async for piece in pieces:
                yield piece

    def _from_source(self, attachment: Attachment, path: str) -> Pieces:
        largest = self.largest
        if attachment.url is not None:
            return fetch_url(self._client, attachment.url, self._settings.url, largest, f"{path}.url")
        if attachment.storage_path is not None:
            return read_stored(self._settings.roots, attachment.storage_path, largest, f"{path}.storage_path")
        if attachment.s3 is None:
            return _nothing(path, "has no content")
        if self._s3 is None:
            return _nothing(f"{path}.s3", "no store is configured that attachments may be read from")
        return self._s3.read(attachment.s3, largest, f"{path}.s3")


async def _nothing(field: str, why: str) -> Pieces:
    yield SourceFault(field, why)


async def _in_blocks(content: bytes) -> Pieces:
    """Give a content that is in memory already; the loop has its turn after each block."""
    for at in range(0, len(content), _BLOCK):
        yield content[at : at + _BLOCK]
        await asyncio.sleep(0)
