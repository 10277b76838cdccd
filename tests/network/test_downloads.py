"""Attachments over a limit become links that are signed and expire; the others are sent as they are."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from itertools import count
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from smarthost.compose.letter import Letter, check_submission
from smarthost.compose.limits import SubmissionLimits
from smarthost.compose.mime import Stamp, compose
from smarthost.compose.submission import Submission, convert_submission
from smarthost.network.attachments import AttachmentSources
from smarthost.network.downloads import Downloads, LinkFault, sweep_downloads
from smarthost.network.large_attachments import Settled, rewrite_large
from smarthost.network.source_fault import SourceFault
from smarthost.policy.attachments import AttachmentSettings, LargeAction, LargeSettings

DAY = 86400.0
START = 1763800000.0


class Clock:
    """A clock that is set by hand."""

    now = START

    def __call__(self) -> float:
        """Give the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Give a clock."""
    return Clock()


@pytest.fixture
async def sources(tmp_path: Path) -> AsyncIterator[AttachmentSources]:
    """Give sources that read files of 500 and 5,000 octets, and ask nobody."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "small").write_bytes(b"s" * 500)
    (tmp_path / "files" / "large").write_bytes(b"l" * 5000)
    settings = AttachmentSettings(roots=(str(tmp_path / "files"),), largest=6000, together=11_000)
    yield AttachmentSources(settings, None)  # type: ignore[arg-type]


@pytest.fixture
def downloads(tmp_path: Path, clock: Clock) -> Downloads:
    """Give a folder for what is over 1,000 octets."""
    return folder_of(tmp_path, clock)


def folder_of(tmp_path: Path, clock: Clock) -> Downloads:
    """Make, or open again, the folder of downloads."""
    names = count(os.getpid())
    settings = LargeSettings(1000, LargeAction.REWRITE, 30 * DAY, "https://relay.example/")
    return Downloads(tmp_path / "downloads", settings, b"k" * 32, clock, lambda: f"{next(names):032x}")


def letter_with(*attachments: object, **fields: object) -> Letter:
    """Make a letter with attachments."""
    whole = {"from": "a@example.org", "to": "b@example.net", "text": "t", "html": "<body>h</body>", **fields}
    submission = convert_submission({**whole, "attachments": list(attachments)})
    assert isinstance(submission, Submission), submission
    letter = check_submission(submission, SubmissionLimits())
    assert isinstance(letter, Letter), letter
    return letter


SMALL = {"filename": "small.bin", "storage_path": "small"}
LARGE = {"filename": "large & é.bin", "storage_path": "large"}


async def settled(letter: Letter, sources: AttachmentSources, downloads: Downloads) -> Settled:
    """Rewrite a letter that has no fault."""
    found = await rewrite_large(letter, sources, downloads, "default")
    assert isinstance(found, Settled), found
    return found


async def octets_of(found: Settled, sources: AttachmentSources) -> bytes:
    """Give the message of what was settled."""
    composed = compose(found.letter, Stamp(START, "relay.example", "0" * 32))
    async with aclosing(sources.message(composed, found.letter, "default", found.held)) as pieces:
        return b"".join([piece async for piece in pieces if isinstance(piece, bytes)])


def asked(url: str) -> tuple[str, str, str]:
    """Give name, expiry and signature of a link."""
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    return parts.path.rpartition("/")[2], query["expires"][0], query["signature"][0]


async def test_a_large_attachment_becomes_a_link(sources: AttachmentSources, downloads: Downloads) -> None:
    """Both texts name it, with its size and last day; the small one is attached, and pulled once."""
    found = await settled(letter_with(LARGE, SMALL, {"filename": "c", "content": b"c" * 2000}), sources, downloads)
    assert [each.filename for each in found.letter.attachments] == ["small.bin"]
    assert [link.filename for link in found.links.values()] == ["large & é.bin", "c"]
    link = next(iter(found.links.values()))
    assert found.letter.text.startswith(f"t\n\nlarge & é.bin (4.9 KiB, until 2025-12-22)\n{link.url}\nc (2 KiB, ")
    assert "large &amp; é.bin (4.9 KiB" in found.letter.html and found.letter.html.endswith("</ul>\n</body>")
    octets = await octets_of(found, sources)
    assert b"c3Nzc3Nz" in octets and b"bGxsbGxs" not in octets
    opened = await downloads.open(*asked(link.url))
    assert not isinstance(opened, LinkFault)
    description, file = opened
    assert (description.filename, description.size, description.tenant) == ("large & é.bin", 5000, "default")
    assert file.read(10_000) == b"l" * 5000
    file.close()


async def test_what_the_html_shows_stays(sources: AttachmentSources, downloads: Downloads) -> None:
    """An inline image is no download, whatever its size; a letter with nothing large is as it was."""
    shown = {"filename": "i.png", "content": b"i" * 3000, "cid": "i"}
    letter = letter_with(shown, html="<img src=cid:i>")
    assert (await settled(letter, sources, downloads)) == Settled(letter, {})


@pytest.mark.parametrize("wrong", ["name", "expires", "signature", "later"])
async def test_a_link_is_good_only_as_it_is(
    sources: AttachmentSources, downloads: Downloads, clock: Clock, wrong: str
) -> None:
    """Another name, another day, another signature or a day too late lead to nothing."""
    found = await settled(letter_with(LARGE), sources, downloads)
    name, expires, signature = asked(next(iter(found.links.values())).url)
    match wrong:
        case "name":
            name = "../" + name
        case "expires":
            expires = str(int(expires) + 1)
        case "signature":
            signature = "é" + signature[1:]
        case "later":
            clock.now = START + 30 * DAY
    fault = LinkFault.EXPIRED if wrong == "later" else LinkFault.FORGED
    assert await downloads.open(name, expires, signature) is fault


async def test_what_has_expired_is_deleted(
    tmp_path: Path, sources: AttachmentSources, downloads: Downloads, clock: Clock
) -> None:
    """The sweep takes file and description, and nothing that is still good."""
    await settled(letter_with(LARGE), sources, downloads)
    folder = tmp_path / "downloads"
    assert sweep_downloads(folder, clock()) == 0 and len(os.listdir(folder)) == 2
    clock.now = START + 30 * DAY
    assert sweep_downloads(folder, clock()) == 1 and not os.listdir(folder)


async def test_links_outlive_a_restart(
    tmp_path: Path, sources: AttachmentSources, downloads: Downloads, clock: Clock
) -> None:
    """What is half there goes at the start, what has a link stays."""
    found = await settled(letter_with(LARGE), sources, downloads)
    (tmp_path / "downloads" / "x.unfinished").write_bytes(b"x")
    again = folder_of(tmp_path, clock)
    assert len(os.listdir(tmp_path / "downloads")) == 2
    opened = await again.open(*asked(next(iter(found.links.values())).url))
    assert not isinstance(opened, LinkFault)
    opened[1].close()


@pytest.mark.parametrize(
    ("attachments", "field", "says"),
    [
        ([SMALL, {"filename": "x", "storage_path": "none"}], "attachments[1].storage_path", "is not there"),
        ([LARGE, LARGE, LARGE], "attachments", "in all"),
        ([{"filename": "x", "content": b"x" * 7000}], "attachments[0]", "larger than 6000 octets"),
    ],
)
async def test_a_fault_leaves_nothing_pulled(
    tmp_path: Path, sources: AttachmentSources, downloads: Downloads, attachments: list[object], field: str, says: str
) -> None:
    """What was pulled before goes with it; a download that was made already stays until it expires."""
    found = await rewrite_large(letter_with(*attachments), sources, downloads, "default")
    assert isinstance(found, SourceFault) and found.field == field and says in found.message
    for _ in range(500):
        if not list((tmp_path / "downloads").glob("*.unfinished")):
            break
        await asyncio.sleep(0.01)
    assert not list((tmp_path / "downloads").glob("*.unfinished"))


async def test_a_disk_that_takes_nothing_is_a_passing_fault(
    tmp_path: Path, sources: AttachmentSources, downloads: Downloads
) -> None:
    """The message may go when there is room again."""
    (tmp_path / "downloads").rmdir()
    found = await rewrite_large(letter_with(LARGE), sources, downloads, "default")
    assert isinstance(found, SourceFault) and found.passing and "cannot be stored" in found.message
