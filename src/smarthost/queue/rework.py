"""Re-encodes content with lines over 998 octets, as a new content in the place of the old (RFC 5322 2.1.1)."""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import BinaryIO

from smarthost.wire.header import Field, parse_fields
from smarthost.wire.mime import reencode

BLOCK = 64 * 1024  # octets that are joined before they are handed on


def reencoded(parts: list[bytes], file: BinaryIO | None) -> tuple[list[Field], Iterator[bytes]]:
    """Give the header fields and the body's blocks of content after re-encoding; reads the content twice.

    The content is in `parts`, or in `file` if there is one.
    """
    lines = reencode(partial(_blocks_of_file, file) if file is not None else partial(iter, parts))
    header: list[bytes] = []
    for line in lines:
        if line == b"\r\n":
            break
        header.append(line)
    return parse_fields(b"".join(header)), joined(lines)


def _blocks_of_file(file: BinaryIO) -> Iterator[bytes]:
    """Give a content file in blocks, from its start; a line may be longer than memory should hold."""
    file.seek(0)
    return iter(partial(file.read, BLOCK), b"")


def joined(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Join lines to blocks of about 64 KiB."""
    gathered: list[bytes] = []
    octets = 0
    for line in lines:
        gathered.append(line)
        octets += len(line)
        if octets >= BLOCK:
            yield b"".join(gathered)
            gathered, octets = [], 0
    if gathered:
        yield b"".join(gathered)
