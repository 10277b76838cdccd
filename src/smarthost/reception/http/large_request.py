"""Large requests: messages in JSON whose attachments go to the disk while they come; what is left is read as ever."""

import hashlib
import secrets
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import msgspec

from smarthost.compose.attaching import too_large, too_large_together
from smarthost.compose.fault import FieldFault
from smarthost.compose.limits import SubmissionLimits
from smarthost.compose.long_contents import LongContents, Span
from smarthost.compose.submission import NOT_RADIX64, Submission
from smarthost.network.held_content import NOTHING_HELD, Held, HeldContents
from smarthost.reception.http.bodies import read_blocks, read_whole
from smarthost.reception.http.bodies import too_large as too_large_request
from smarthost.reception.http.front import Asked
from smarthost.reception.http.problem import disk_full, wrong_fields

LARGE = 256 * 1024  # octets of a request that are read into memory as they are
_BLOCK = 256 * 1024  # octets that are written at a time
_NONE: Mapping[bytes, Span] = MappingProxyType({})


class JsonRequest(msgspec.Struct, frozen=True):
    """The JSON of a request; contents that were taken out of it are `spans` of `contents`. Who has it lets them go.

    `digest` tells its whole content from others, "" where nobody asked.
    """

    octets: bytes
    digest: str = ""
    contents: HeldContents | None = None
    spans: Mapping[bytes, Span] = _NONE

    def let_go(self) -> None:
        """Delete what is on the disk."""
        if self.contents is not None:
            self.contents.let_go()

    def settle(self, submission: Submission, limits: SubmissionLimits) -> tuple[Submission, Held]:
        """Give the message, and the contents that are on the disk by their places; raises Refused (422)."""
        if self.contents is None or not self.spans:
            return submission, NOTHING_HELD
        spans = dict(self.spans)
        attachments, held, faults = list(submission.attachments), {}, []
        total = sum(len(each.content or b"") for each in attachments if each.content not in spans)
        for place, each in enumerate(attachments):
            span = spans.pop(each.content, None) if each.content is not None else None
            if span is None:
                continue
            total += span.size
            if not span.is_good:
                faults.append(FieldFault(f"attachments[{place}].content", NOT_RADIX64))
            elif span.size > limits.attachment:
                faults.append(FieldFault(f"attachments[{place}].content", too_large(limits.attachment)))
            attachments[place] = msgspec.structs.replace(each, content=b"")
            held[place] = self.contents.part(span.offset, span.size)
        if spans:
            faults.append(FieldFault("", 'a field named "content" is too long, and is not of an attachment'))
        elif total > limits.attachments:
            faults.append(FieldFault("attachments", too_large_together(limits.attachments)))
        if faults:
            raise wrong_fields(faults)
        return msgspec.structs.replace(submission, attachments=attachments), held


async def read_json(asked: Asked, most: int, folder: Path, room: int, with_digest: bool) -> JsonRequest:
    """Read a message in JSON; of a large one, contents of up to `room` octets go below a folder. Raises Refused.

    `most` octets may be in memory: what goes to the disk is not counted.
    """
    announced = asked.headers.get(b"content-length", b"")
    if announced.isdigit() and int(announced) <= LARGE:
        octets = await read_whole(asked, most)
        return JsonRequest(octets, hashlib.sha256(octets).hexdigest() if with_digest else "")
    digest = hashlib.sha256()
    scan, contents = LongContents(secrets.token_bytes(18), room), HeldContents(folder)
    waiting: list[bytes] = []
    size = 0
    try:
        async for block in read_blocks(asked, most + room * 3 // 2):  # base64, its line ends and their escapes
            if with_digest:
                digest.update(block)
            if taken := scan.feed(block):
                waiting.append(taken)
                size += len(taken)
            if len(scan.kept) > most:
                raise too_large_request(most)
            if size > _BLOCK:
                await contents.write(b"".join(waiting))
                waiting, size = [], 0
        if waiting:
            await contents.write(b"".join(waiting))
    except OSError:
        contents.let_go()
        raise disk_full() from None
    except BaseException:
        contents.let_go()
        raise
    return JsonRequest(bytes(scan.kept), digest.hexdigest() if with_digest else "", contents, scan.spans)
