"""What becomes of attachments that are larger than a message should have: a warning, a refusal, or a link."""

import msgspec

from smarthost.compose.attaching import too_large_together
from smarthost.compose.download_note import DownloadLink, with_links
from smarthost.compose.letter import Letter
from smarthost.compose.submission import Attachment
from smarthost.network.attachments import AttachmentSources
from smarthost.network.downloads import Downloads, Pulled
from smarthost.network.held_content import NOTHING_HELD, Held, HeldContent, held_file
from smarthost.network.source_fault import SourceFault


class Settled(msgspec.Struct, frozen=True):
    """A letter whose large attachments have become links, which are here by the places that the attachments had.

    `held` are contents that lie on the disk already, by their places in the letter as it is now; of those, `pulled` are
    dropped by who has written the message, or gives it up.
    """

    letter: Letter
    held: dict[int, HeldContent]
    pulled: tuple[Pulled, ...] = ()
    links: dict[int, DownloadLink] = {}


async def rewrite_large(
    letter: Letter, sources: AttachmentSources, downloads: Downloads, tenant: str, held: Held = NOTHING_HELD
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
            path, size = f"attachments[{place}]", _size(attachment, held.get(place))
            if _is_shown(attachment) or (size is not None and size <= most):
                continue
            octets = sources.octets(attachment, tenant, path, held.get(place))
            found = await downloads.pull(octets, sources.largest, path)
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
    on_disk = {**held, **{place: held_file(each.size, each.file) for place, each in pulled.items()}}
    moved = {now: on_disk[place] for now, place in enumerate(left) if place in on_disk}
    return Settled(with_links(letter, links) if links else letter, moved, tuple(pulled.values()), links)


def _is_shown(attachment: Attachment) -> bool:
    return bool(attachment.cid) and attachment.disposition == "inline"


def _drop_all(downloads: Downloads, pulled: dict[int, Pulled]) -> None:
    for each in pulled.values():
        downloads.drop(each)


def _size(attachment: Attachment, held: HeldContent | None) -> int | None:
    if held is not None:
        return held.size
    return None if attachment.content is None else len(attachment.content)
