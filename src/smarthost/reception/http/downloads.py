"""Downloads: files that messages have a link to; who has the link needs no key, until it expires."""

from typing import Annotated
from urllib.parse import quote

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, QueryParameter
from litestar.response import Stream

from smarthost.network.attachment_cache import read_cached
from smarthost.network.downloads import Description, LinkFault
from smarthost.reception.http.asking import Asking, parts_of
from smarthost.reception.http.problem import Refused, not_found
from smarthost.reception.http.routes import NEEDS

_PLAIN = frozenset(" !#$&'()+,-.=@[]^_`{}~")  # beside letters and digits, in a file name between quotes
# What is sent was made by others, and shall never run as a page of this host's.
_HARMLESS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, no-store",
}

Expires = Annotated[str, QueryParameter(description="the Unix time until which the link is good", max_length=20)]
Signature = Annotated[str, QueryParameter(description="what the relay has signed it with", max_length=200)]


@get("/api/v1/downloads/{name:str}", opt={NEEDS: None}, security=[{}], media_type="application/octet-stream")
async def download(request: Asking, name: FromPath[str], expires: Expires = "", signature: Signature = "") -> Stream:
    """Give a file to who has a link to it: 403 for one that was changed, 410 for one that has expired."""
    downloads = parts_of(request).attaching.downloads
    if downloads is None or not (expires and signature):
        raise not_found("download")
    found = await downloads.open(name, expires, signature)
    if found is LinkFault.FORGED:
        raise Refused(403, "this is no link that was given")
    if found is LinkFault.EXPIRED:
        raise Refused(410, "the link has expired, and the file is gone")
    if isinstance(found, LinkFault):
        raise not_found("download")
    described, file = found
    headers = {
        "Content-Length": str(described.size),
        "Content-Disposition": disposition_of(described),
        **_HARMLESS,
    }
    return Stream(read_cached(file), media_type=described.content_type, headers=headers)  # type: ignore[arg-type]


def disposition_of(described: Description) -> str:
    """Give a file's Content-Disposition: its name in ASCII, and as it is where that is another (RFC 6266 4.3)."""
    name = described.filename or "download"
    plain = "".join([each if each.isascii() and (each.isalnum() or each in _PLAIN) else "_" for each in name])
    whole = f'attachment; filename="{plain}"'
    return whole if plain == name else f"{whole}; filename*=UTF-8''{quote(name, safe='')}"


DOWNLOADS: tuple[HTTPRouteHandler, ...] = (download,)
