"""Once: a message that came with a key of its sender's own, and is sent once however often it is handed in."""

import asyncio
import hashlib
import logging
import re
from collections.abc import Callable, Iterable

from smarthost.mail.envelope import Envelope
from smarthost.mail.message import Arrival, Message, format_id
from smarthost.mail.record import DEFAULT_TENANT, Record
from smarthost.mail.reply import INTERNAL_ERROR, EnhancedStatus, Reply, make_reply
from smarthost.queue.recall import Given, Recall, given_record, key_of, read_given
from smarthost.wire.header import Field

log = logging.getLogger(__name__)

_QUEUED = EnhancedStatus(2, 0, 0)
# What an application that makes a message anew makes differently each time, or what the way adds to it.
_PASSING = frozenset({b"received", b"date", b"message-id"})
_DELIMITER = re.compile(rb"^--[^\n]*|boundary=[^\n]*", re.MULTILINE | re.IGNORECASE)

_Answered = Callable[[Reply], None]


class Once:
    """One message on its way in, from its header to its reply; used on the event loop, but for `record`.

    Two messages are the same where reverse-path, recipients, fields and body are, but for date, Message-ID and the
    delimiters of MIME parts, which programs draw by lot.
    """

    __slots__ = ("_digest", "_keep", "_key", "_recall", "_rest", "_task")

    def __init__(self, recall: Recall, shown: str, arrival: Arrival) -> None:
        """Begin with the key that was shown; who brought it has its own keys."""
        self._recall = recall
        self._key = key_of(arrival.identity or DEFAULT_TENANT, shown)
        self._keep = arrival.at + recall.keep
        self._digest, self._rest = hashlib.sha256(), b""
        self._task: asyncio.Task[None] | None = None

    def take_header(self, envelope: Envelope, fields: Iterable[Field]) -> None:
        """Take what comes before the body."""
        paths = [envelope.reverse_path, *sorted(recipient.address for recipient in envelope.recipients)]
        self._digest.update("\0".join(paths).encode("utf-8", "surrogateescape"))
        for name, raw in fields:
            if name not in _PASSING:
                self._digest.update(_DELIMITER.sub(b"", raw) + b"\0")

    def update(self, block: bytes) -> None:
        """Take a block of the body."""
        whole = self._rest + block
        end = whole.rfind(b"\n") + 1
        self._rest = whole[end:]
        self._digest.update(_DELIMITER.sub(b"", whole[:end]))

    def admit(self, go_on: Callable[[_Answered], None], abandon: Callable[[], None], done: _Answered) -> None:
        """Have the message go on if it is the first one under its key, else answer as the first one was.

        One at a time: the next one waits for the first one's reply, which it is `go_on`'s business to give.
        """
        self._task = asyncio.get_running_loop().create_task(self._admit(go_on, abandon, done), name="idempotency key")

    async def _admit(self, go_on: Callable[[_Answered], None], abandon: Callable[[], None], done: _Answered) -> None:
        recall, key = self._recall, self._key
        await recall.begin(key)

        def answered(reply: Reply) -> None:
            recall.end(key)
            done(reply)

        try:
            found = await recall.find(key)
            if found is None:
                go_on(answered)
                return
            reply = self._repeated(read_given(found))
        except Exception:
            log.exception("a message with an idempotency key failed")
            reply = INTERNAL_ERROR
        abandon()
        answered(reply)

    def _repeated(self, given: Given) -> Reply:
        if given.digest != self._name():
            return make_reply(
                554, "5.6.0", "X-Smarthost-Idempotency-Key: the key came with another message before, which was taken"
            )
        said = f"queued as {given.body.decode()} (before, by the same idempotency key)"
        return Reply(250, _QUEUED, (said,))

    def record(self, message: Message) -> Record:
        """Any thread: give what is kept with the message."""
        return given_record(self._key, Given(self._name(), 250, format_id(message.id).encode()), self._keep)

    def _name(self) -> str:
        whole = self._digest.copy()
        whole.update(self._rest)
        return f"smtp {whole.hexdigest()}"
