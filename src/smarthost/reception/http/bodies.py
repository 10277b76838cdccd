"""Reads the content of requests, whole or block by block, and never more of it than is allowed."""

from collections.abc import AsyncIterator

from smarthost.reception.http.front import Asked, Gone
from smarthost.reception.http.problem import Refused


async def read_blocks(asked: Asked, most: int) -> AsyncIterator[bytes]:
    """Give the content as it comes; raises Refused (413) beyond `most` octets, and Gone when the client goes away."""
    announced = asked.headers.get(b"content-length", b"0")
    if announced.isdigit() and int(announced) > most:
        raise too_large(most)
    size = 0
    more = True
    while more:
        event = await asked.receive()
        if event["type"] != "http.request":
            raise Gone
        block = event.get("body", b"")
        more = event.get("more_body", False)
        size += len(block)
        if size > most:
            raise too_large(most)
        if block:
            yield block


async def read_whole(asked: Asked, most: int) -> bytes:
    """Give the whole content; raises as `read_blocks`."""
    blocks = [block async for block in read_blocks(asked, most)]
    return blocks[0] if len(blocks) == 1 else b"".join(blocks)


def too_large(most: int) -> Refused:
    """Say that a request is larger than it may be; the connection ends, since its rest is not read."""
    return Refused(413, f"the content has more than {most} octets", headers={"Connection": "close"})
