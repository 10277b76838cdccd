"""Puts links into a letter for attachments that are too large to be sent with it."""

from datetime import UTC, datetime

import msgspec

from smarthost.compose.letter import Letter
from smarthost.compose.template_values import escaped

_UNITS = ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB"))


class DownloadLink(msgspec.Struct, frozen=True, gc=False):
    """Where a file can be had: its name, octets, address, and the Unix time until which it is there."""

    filename: str
    size: int
    url: str
    expires: float


def with_links(letter: Letter, places: dict[int, DownloadLink]) -> Letter:
    """Take attachments out of a letter, by their places, and name at the end of its texts where they can be had."""
    links = [places[place] for place in sorted(places)]
    kept = tuple(each for place, each in enumerate(letter.attachments) if place not in places)
    text, html = letter.text, letter.html
    if text:
        text = text.rstrip("\r\n") + "\n\n" + "".join([f"{_named(link)}\n{link.url}\n" for link in links])
    if html:
        items = "".join([f'<li><a href="{escaped(link.url)}">{escaped(_named(link))}</a></li>\n' for link in links])
        html = _before_end(html, f"<ul>\n{items}</ul>\n")
    return msgspec.structs.replace(letter, text=text, html=html, attachments=kept)


def _named(link: DownloadLink) -> str:
    """Give name, size and last day of a file."""
    unit, word = next(((unit, word) for unit, word in _UNITS if link.size >= unit), (1, "octets"))
    until = datetime.fromtimestamp(link.expires, UTC).strftime("%Y-%m-%d")
    amount = f"{link.size / unit:.1f}".removesuffix(".0")
    return f"{link.filename} ({amount} {word}, until {until})"


def _before_end(html: str, addition: str) -> str:
    """Insert before the end of the body, or at the end where that is not marked."""
    end = html.lower().rfind("</body")
    return html[:end] + addition + html[end:] if end >= 0 else html.rstrip("\r\n") + "\n" + addition
