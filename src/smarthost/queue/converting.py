"""Makes another form of a message for hosts that cannot take the one that was accepted, and signs it anew."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import msgspec

from smarthost.crypto.dkim import BodyHash, sign
from smarthost.crypto.dkim_keys import Keyring
from smarthost.mail.address import domain_of
from smarthost.mail.message import Message
from smarthost.policy.conversion import Form
from smarthost.queue.edit import join_fields
from smarthost.queue.rework import BLOCK, joined
from smarthost.spool.store import Content, ContentFile, Spool
from smarthost.wire.downgrade import Obstacle, to_ascii_header, to_seven_bit
from smarthost.wire.header import Field, field_value, first_address, parse_fields


class Original(msgspec.Struct, frozen=True):
    """What is converted: a message with its content, and whose keys sign it. `number` is an id for a content file."""

    message: Message
    content: Content
    keyring: Keyring
    number: int


class Converted(msgspec.Struct, frozen=True):
    """The content in its other form, and its file if it has one, which goes when nobody needs it any more."""

    content: Content
    file: ContentFile | None = None


def convert(original: Original, form: Form, spool: Spool) -> Converted | Obstacle:
    """Worker thread: convert a content and sign it; raises OSError.

    A small content stays in memory. A large one goes into a file without an owner, which a crash leaves behind for the
    next start to sweep. The outcome depends on nothing but the content and the keys: its signatures have the time of
    the arrival, so that it is the same whenever, and however often, it is made.
    """
    content = original.content
    if content.file:
        blocks: Callable[[], Iterable[bytes]] = partial(_blocks_of_file, spool, content.file)
    else:
        head = _without_signatures(content.head, len(original.message.signatures))
        blocks = partial(iter, (head,))
    found = to_seven_bit(blocks) if form is Form.SEVEN_BIT else to_ascii_header(blocks)
    if isinstance(found, Obstacle):
        return found
    header: list[bytes] = []
    for block in found:
        if block == b"\r\n":
            break
        header.append(block)
    fields = parse_fields(b"".join(header))
    body = joined(found)
    return _to_file(original, fields, body, spool) if content.file else _in_memory(original, fields, body)


def _in_memory(original: Original, fields: list[Field], body: Iterable[bytes]) -> Converted:
    digest, octets = BodyHash(), b"".join(body)
    digest.update(octets)
    whole = b"".join((_signatures(original, fields, digest), join_fields(fields), octets))
    return Converted(Content(whole, "", len(whole)))


def _to_file(original: Original, fields: list[Field], body: Iterable[bytes], spool: Spool) -> Converted:
    digest, file = BodyHash(), spool.new_file(original.number)
    try:
        file.write(join_fields(fields))
        for block in body:
            digest.update(block)
            file.write(block)
        file.seal()
    except BaseException:
        file.discard()
        raise
    signatures = _signatures(original, fields, digest)
    return Converted(Content(signatures, file.name, len(signatures) + file.size), file)


def _signatures(original: Original, fields: list[Field], body: BodyHash) -> bytes:
    """Sign with the keys of the From domain, as the message was when it came in."""
    author = next((first_address(field_value(raw)) for name, raw in fields if name == b"from"), "")
    keys = original.keyring.for_domain(domain_of(author))
    return sign(keys, fields, body.digest(), int(original.message.arrival.at)) if keys else b""


def _without_signatures(content: bytes, count: int) -> bytes:
    """Give a content without the signatures of ours that it begins with."""
    start = 0
    for _ in range(count):
        if content[start : start + 15].lower() != b"dkim-signature:":
            break
        end = content.find(b"\r\n", start)
        while end >= 0 and content[end + 2 : end + 3] in (b" ", b"\t"):
            end = content.find(b"\r\n", end + 2)
        start = end + 2
    return content[start:]


def _blocks_of_file(spool: Spool, name: str) -> Iterator[bytes]:
    with spool.open_file(name) as file:
        yield from iter(partial(file.read, BLOCK), b"")
