"""What becomes of attachments that are larger than a message should have: a warning, a refusal, or a link."""

from collections.abc import AsyncGenerator

import msgspec

from smarthost.compose.attaching import too_large_together
from smarthost.compose.download_note import DownloadLink, with_links
from smarthost.compose.letter import Letter
from smarthost.compose.submission import Attachment
from smarthost.network.attachments import AttachmentSources
from smarthost.network.downloads import Downloads, Pulled
from smarthost.network.fetch_url import Pieces
from smarthost.network.held_file import HeldFile
from smarthost.network.source_fault import SourceFault


class Settled(msgspec.Struct, frozen=True):
    """A letter whose large attachments have become links.

    `pulled` are contents that lie on the disk already, by their places in the letter; who has written the message, or
    gives it up, drops them.
    """

    letter: Letter
    pulled: dict[int, Pulled]
    links: tuple[DownloadLink, ...] = ()

    @property
    def held(self) -> dict[int, HeldFile]:
        """The files of the contents that were pulled, as `AttachmentSources.message` takes them."""
        return {place: each.file for place, each in self.pulled.items()}


async def rewrite_large(
    letter: Letter, sources: AttachmentSources, downloads: Downloads, tenant: str
) -> Settled | SourceFault:
    """Put a link in the place of each attachment over the limit; those that the HTML shows stay, whatever their size.

    How large one is can be known only when it has come, so that each from elsewhere is pulled onto the disk.
    """
    most = downloads.settings.above
    links: dict[int, DownloadLink] = {}
    pulled: dict[int, Pulled] = {}
    fault: SourceFault | None = None
    room = sources.together
    try:
        for place, attachment in enumerate(letter.attachments):
            path = f"attachments[{place}]"
            if _is_shown(attachment) or (attachment.content is not None and len(attachment.content) <= most):
                continue
            found = await downloads.pull(_octets(attachment, sources, tenant, path), sources.largest, path)
            if isinstance(found, SourceFault):
                fault = found
                break
            pulled[place] = found
            room -= found.size
            if room < 0:
                fault = SourceFault("attachments", too_large_together(sources.together))
                break
            if found.size > most:
                kept = await downloads.keep(found, attachment.filename, attachment.content_type, tenant)
                if isinstance(kept, OSError):
                    fault = SourceFault(path, f"cannot be stored ({kept.strerror})", passing=True)
                    break
                del pulled[place]
                links[place] = kept
    except BaseException:
        _drop_all(downloads, pulled)
        raise
    if fault is not None:
        _drop_all(downloads, pulled)
        return fault
    left = [place for place in range(len(letter.attachments)) if place not in links]
    moved = {left.index(place): each for place, each in pulled.items()}
    return Settled(with_links(letter, links) if links else letter, moved, tuple(links.values()))


def _is_shown(attachment: Attachment) -> bool:
    return bool(attachment.cid) and attachment.disposition == "inline"


def _drop_all(downloads: Downloads, pulled: dict[int, Pulled]) -> None:
    for each in pulled.values():
        downloads.drop(each)


def _octets(attachment: Attachment, sources: AttachmentSources, tenant: str, path: str) -> Pieces:
    return _once(attachment.content) if attachment.content is not None else sources.open(attachment, tenant, path)


async def _once(content: bytes) -> AsyncGenerator[bytes | SourceFault, None]:
    yield content
