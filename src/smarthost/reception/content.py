"""Content: one message's octets between the 354 reply and the end of data, on their way into a draft."""

from collections.abc import Mapping
from types import MappingProxyType

from smarthost.mail.reply import BARE_NEWLINE, MESSAGE_TOO_BIG, NUL_IN_CONTENT, Reply
from smarthost.policy.admission import BareNewlines, Submission
from smarthost.reception.parts import Draft
from smarthost.wire.data import DataFault, DataReader

_REFUSALS: Mapping[DataFault, Reply] = MappingProxyType(
    {DataFault.BARE_NEWLINE: BARE_NEWLINE, DataFault.NUL: NUL_IN_CONTENT}
)
_REJECT = BareNewlines.REJECT


class Content:
    """Content that is coming in. What is refused is dropped at once, but read to its end: a client that is still
    sending does not look at replies (RFC 5321 4.2.5).

    `draft` takes the clean octets; `ended` says that the end of data was seen, and `rest` what stood behind it.
    """

    __slots__ = ("_dropped", "_limit", "_reader", "_size", "draft")

    def __init__(self, draft: Draft, submission: Submission) -> None:
        """Begin before the first octet."""
        self.draft = draft
        self._reader = DataReader(submission.bare_newlines is _REJECT)
        self._limit = submission.max_message_size
        self._size = 0
        self._dropped = False

    def feed(self, chunk: bytes) -> bool:
        """Take octets from the wire; True when the end of data is reached."""
        reader = self._reader
        draft = self.draft
        for block in reader.feed(chunk):
            self._size += len(block)
            if not self._dropped:
                if self._size > self._limit:
                    self.abandon()
                else:
                    draft.write(block)
        if not self._dropped and (reader.fault is not None or draft.refused is not None):
            self.abandon()
        if not reader.ended:
            return False
        draft.is_dotted = reader.is_dotted
        return True

    @property
    def rest(self) -> bytes:
        """The octets behind the end of data."""
        return self._reader.rest

    def abandon(self) -> None:
        """Drop what came and what comes."""
        if not self._dropped:
            self._dropped = True
            self.draft.abandon()

    def refusal(self) -> Reply | None:
        """Say at the end why the content is refused; None when the draft may be committed."""
        if not self._dropped:
            return None
        if self._reader.fault is not None:
            return _REFUSALS[self._reader.fault]
        if self._size > self._limit:
            return MESSAGE_TOO_BIG
        return self.draft.refused
