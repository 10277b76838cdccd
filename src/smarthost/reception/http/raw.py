"""Raw messages: message/rfc822 as it comes, with an envelope from the request or from the message's own fields."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from smarthost.mail.address import split_mailbox, to_a_label
from smarthost.mail.envelope import Body, Envelope, Priority, Recipient
from smarthost.mail.reply import BARE_NEWLINE, HEADER_TOO_BIG, NUL_IN_CONTENT
from smarthost.policy.admission import BareNewlines, Submission
from smarthost.reception.http.bodies import read_blocks
from smarthost.reception.http.front import Asked
from smarthost.reception.http.handing import drained
from smarthost.reception.http.problem import Refused, refusal_of
from smarthost.reception.parts import Draft
from smarthost.wire.data import DataFault
from smarthost.wire.header import Field, field_value, split_fields
from smarthost.wire.header_address import every_address
from smarthost.wire.newlines import LineEnds

HEADER_LIMIT = 256 * 1024  # octets in which the header section has to end
_RECEIVING = frozenset({b"to", b"cc", b"bcc"})

Query = Mapping[str, Sequence[str]]


class RawMessage:
    """One message that comes in. `begin` reads its header section, `write` hands it and the rest to a draft."""

    def __init__(self, asked: Asked, submission: Submission, seen: Callable[[bytes], object]) -> None:
        """Read nothing yet; `seen` is called with every block as it came."""
        self._headers = asked.headers
        self._blocks: AsyncIterator[bytes] = read_blocks(asked, submission.max_message_size)
        self._lines = LineEnds(submission.bare_newlines is BareNewlines.REJECT)
        self._seen = seen
        self._begun = b""
        self._is_whole = False
        self._fields: list[Field] = []

    async def begin(self) -> None:
        """Read up to the end of the header section; raises Refused."""
        end = -1
        while end < 0 and not self._is_whole:
            self._begun += await self._next()
            end, self._fields = split_fields(self._begun, whole=self._is_whole)
            if end < 0 and len(self._begun) > HEADER_LIMIT:
                raise refusal_of(HEADER_TOO_BIG)
        if not self._begun:
            raise Refused(422, "the message is empty")

    @property
    def subject(self) -> str:
        """The subject as it stands there."""
        raw = next((raw for name, raw in self._fields if name == b"subject"), b":")
        return field_value(raw).decode("utf-8", "replace")[:998]

    @property
    def idempotency_key(self) -> str | None:
        """The key in X-Smarthost-Idempotency-Key, as mail that comes by SMTP has it; None without."""
        raw = next((raw for name, raw in self._fields if name == b"x-smarthost-idempotency-key"), None)
        return None if raw is None else field_value(raw).decode("utf-8", "replace")

    def names_return_path(self, query: Query) -> bool:
        """Whether the request names a reverse-path, which is else that of the fields."""
        return self._named(query, "from", b"x-envelope-from") is not None

    def envelope(self, query: Query, priority: Priority, most: int) -> Envelope:
        """Give the envelope: of the query (from, to), else of X-Envelope-From and X-Envelope-To, else of the fields.

        Raises Refused (422) where there is no recipient, or one that is no address.
        """
        reverse_path = self._named(query, "from", b"x-envelope-from")
        if reverse_path is None:
            own = [each for name, raw in self._fields if name == b"from" for each in every_address(field_value(raw))]
            senders = [raw for name, raw in self._fields if name == b"sender"]
            reverse_path = (every_address(field_value(senders[0])) if senders else own)[:1]
        asked = self._named(query, "to", b"x-envelope-to")
        if asked is None:
            asked = [
                each for name, raw in self._fields if name in _RECEIVING for each in every_address(field_value(raw))
            ]
        errors: list[tuple[str, str]] = []
        recipients = {each: recipient for each in asked if (recipient := _recipient(each, "to", errors)) is not None}
        path = reverse_path[0].strip("<>") if reverse_path else ""
        if path:
            _recipient(path, "from", errors)
        if not recipients and not errors:
            errors.append(("to", "nobody is named: by ?to=, X-Envelope-To, or the fields To, Cc and Bcc"))
        if len(recipients) > most:
            errors.append(("to", f"there are {len(recipients)} recipients; {most} are allowed"))
        if errors:
            raise Refused(422, "; ".join(f"{field}: {text}" for field, text in errors[:5]), errors=errors)
        everybody = tuple(recipients.values())
        utf8 = not all(each.address.isascii() for each in everybody) or not path.isascii()
        return Envelope(path, everybody, body=Body.EIGHT_BIT_MIME, smtputf8=utf8, priority=priority)

    async def write(self, draft: Draft) -> None:
        """Write everything into a draft, as it comes; raises Refused."""
        draft.write(self._begun)
        self._begun = b""
        while not self._is_whole:
            draft.write(await self._next())
            if draft.refused is not None:
                raise refusal_of(draft.refused)
            await drained(draft)

    async def skip(self) -> None:
        """Read the rest, so that all of it was seen."""
        while not self._is_whole:
            await self._next()

    async def _next(self) -> bytes:
        block = await anext(self._blocks, None)
        if block is None:
            self._is_whole = True
            clean = self._lines.end()
        else:
            self._seen(block)
            clean = self._lines.feed(block)
        if self._lines.fault is not None:
            raise refusal_of(NUL_IN_CONTENT if self._lines.fault is DataFault.NUL else BARE_NEWLINE)
        return clean

    def _named(self, query: Query, name: str, header: bytes) -> list[str] | None:
        """Give what the request itself says, None where it says nothing."""
        if name in query:
            return list(query[name])
        shown = self._headers.get(header)
        return None if shown is None else every_address(shown)


def _recipient(address: str, field: str, errors: list[tuple[str, str]]) -> Recipient | None:
    parts = split_mailbox(address)
    label = to_a_label(parts[1]) if parts is not None and parts[1] else None
    if label is None:
        errors.append((field, f"{address[:100]!r} is no address of the form name@domain"))
        return None
    return Recipient(address, label)
