"""Attaching: a letter with its attachments as a message, block by block, and what is to be said of the large ones."""

from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import msgspec

from smarthost.compose.letter import Letter
from smarthost.compose.mime import Stamp, compose
from smarthost.network.attachments import AttachmentSources
from smarthost.network.downloads import Downloads, Pulled
from smarthost.network.fetch_url import Pieces
from smarthost.network.held_content import NOTHING_HELD, Held
from smarthost.network.large_attachments import rewrite_large
from smarthost.network.source_fault import SourceFault
from smarthost.policy.attachments import LargeAction, LargeSettings

Warn = Callable[[str, str], object]
"""Is told the field of a request, and what its sender should know of it."""

_MIB = 1024 * 1024


class Attaching(msgspec.Struct):
    """How attachments get into messages. Mutable: a reload replaces what it has.

    `downloads` is where large ones lie that links lead to, None if there never was one; `folder` is for what has to be
    on the disk while a message is made.
    """

    sources: AttachmentSources
    large: LargeSettings
    downloads: Downloads | None
    folder: Path

    async def message(self, letter: Letter, stamp: Stamp, tenant: str, warn: Warn, held: Held = NOTHING_HELD) -> Pieces:
        """Give a letter's message in blocks; a fault is the last one, and the message is then to be abandoned.

        `held` are contents that are on the disk already. Who stops before the end closes the iterator.
        """
        pulled: tuple[Pulled, ...] = ()
        try:
            if self.large.above and self.large.action is LargeAction.REWRITE and self.downloads is not None:
                settled = await rewrite_large(letter, self.sources, self.downloads, tenant, held)
                if isinstance(settled, SourceFault):
                    yield settled
                    return
                letter, held, pulled = settled.letter, settled.held, settled.pulled
                for place, link in settled.links.items():
                    warn(f"attachments[{place}]", f"has {in_mib(link.size)}; a link was sent in its place")
            composed = compose(letter, stamp)

            def measured(place: int, octets: int) -> None:
                self.measured(place, octets, warn)

            async with aclosing(self.sources.message(composed, letter, tenant, held, measured)) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            if self.downloads is not None:
                for each in pulled:
                    self.downloads.drop(each)

    def measured(self, place: int, octets: int, warn: Warn) -> None:
        """Warn of an attachment that is larger than mail should carry, where that is what is to be done."""
        large = self.large
        if large.action is LargeAction.WARN and 0 < large.above < octets:
            told = f"has {in_mib(octets)}; over {in_mib(large.above)} it may be refused on its way"
            warn(f"attachments[{place}]", told)


def in_mib(octets: int) -> str:
    """Give a size for people."""
    return f"{octets / _MIB:.1f} MiB".replace(".0 ", " ")
