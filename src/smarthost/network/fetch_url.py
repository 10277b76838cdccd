"""Fetches what a URL names, block by block: redirects are followed, private addresses refused, faults are values."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from urllib.parse import urljoin, urlsplit

from smarthost.compose.attaching import too_large
from smarthost.network.http_client import HttpClient, HttpFault, HttpFaultKind, HttpRequest, HttpStream
from smarthost.network.source_fault import SourceFault
from smarthost.policy.attachments import UrlSettings

Piece = bytes | SourceFault
"""A block of a content, or why there is no more of it; then it is the last."""
Pieces = AsyncGenerator[Piece, None]
"""A content block by block; who stops before its end closes it."""

_MOVED = frozenset({301, 302, 303, 307, 308})
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_LASTING = frozenset({HttpFaultKind.PRIVATE, HttpFaultKind.BAD_URL, HttpFaultKind.TLS})


async def fetch_url(client: HttpClient, url: str, settings: UrlSettings, largest: int, field: str) -> Pieces:
    """Fetch at most `largest` octets; what did not even begin for a passing reason is tried again.

    The client refuses every address that may not be spoken to when it makes the socket, at each redirect anew.
    """
    for attempt in range(1, settings.attempts + 1):
        if attempt > 1:
            await asyncio.sleep(settings.pause * 2 ** (attempt - 2))
        has_begun = False
        async with aclosing(_try(client, url, settings, largest, field)) as pieces:
            async for piece in pieces:
                if isinstance(piece, SourceFault) and piece.passing and not has_begun and attempt < settings.attempts:
                    break
                has_begun = True
                yield piece
            else:
                return
        if has_begun:
            return


async def _try(client: HttpClient, url: str, settings: UrlSettings, largest: int, field: str) -> Pieces:
    """Fetch once, over redirects."""
    for _ in range(settings.redirects + 1):
        async with client.open(HttpRequest("GET", url, timeout=settings.timeout)) as answer:
            if isinstance(answer, HttpFault) or answer.status not in _MOVED:
                async with aclosing(read_answer(answer, largest, field, host_of(url))) as pieces:
                    async for piece in pieces:
                        yield piece
                return
            location = answer.headers.get("location", "")
        target = _target_of(url, location)
        if target is None:
            yield SourceFault(field, f"{host_of(url)} redirects to nowhere, or from https to http")
            return
        url = target
    yield SourceFault(field, f"{host_of(url)} redirects more than {settings.redirects} times")


def _target_of(url: str, location: str) -> str | None:
    """Give where a redirect leads; None if that is nowhere, to itself, or out of TLS."""
    try:
        target = urljoin(url, location)
        schemes = urlsplit(url).scheme, urlsplit(target).scheme
    except ValueError:
        return None
    leads = target != url and schemes[1] in ("http", "https") and schemes != ("https", "http")
    return target if leads else None


async def read_answer(answer: HttpStream | HttpFault, largest: int, field: str, host: str) -> Pieces:
    """Give the body of an answer that is a whole content, or why it is none. `host` is who was asked."""
    if isinstance(answer, HttpFault):
        yield SourceFault(field, f"{host} {answer.reason}", answer.kind not in _LASTING)
        return
    if answer.status != 200:
        yield SourceFault(field, f"{host} answered with status {answer.status}", answer.status in _PASSING)
        return
    if answer.headers.get("content-encoding", "identity").lower() != "identity":
        yield SourceFault(field, f"{host} sent it compressed, which was not asked for")
        return
    if (answer.length or 0) > largest:
        yield SourceFault(field, too_large(largest))
        return
    size = 0
    async with aclosing(answer.blocks()) as blocks:
        async for block in blocks:
            if isinstance(block, HttpFault):
                yield SourceFault(field, f"{host} {block.reason}", block.kind not in _LASTING)
                return
            size += len(block)
            if size > largest:
                yield SourceFault(field, too_large(largest))
                return
            yield block


def host_of(url: str) -> str:
    """Give the host of a URL for a message: what stands behind it may be secret."""
    try:
        return urlsplit(url).hostname or "the address"
    except ValueError:
        return "the address"
