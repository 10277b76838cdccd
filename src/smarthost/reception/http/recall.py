"""Recalls what was handed in before: by an Idempotency-Key, with its answer, or by the client's own id."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence

import msgspec

from smarthost.mail.record import Record, RecordKey
from smarthost.reception.http.front import Answer
from smarthost.reception.http.problem import Refused
from smarthost.spool.store import RecordStore

ANSWERS, NAMES = "idempotency", "message_name"
MAX_KEY = 255  # characters of an Idempotency-Key


class _Given(msgspec.Struct, frozen=True, array_like=True):
    """The digest of a request's content, and the answer to it."""

    digest: str
    status: int
    body: bytes


class Recall:
    """Answers of before. What is under way is in memory, what was accepted is a record that came with the message."""

    def __init__(self, records: RecordStore, clock: Callable[[], float]) -> None:
        """Begin with nothing under way."""
        self._records, self._clock = records, clock
        self._under_way: dict[RecordKey, asyncio.Event] = {}
        self._asked: dict[RecordKey, asyncio.Future[Record | None]] = {}
        self._asking: asyncio.Task[None] | None = None

    async def begin(self, key: RecordKey) -> None:
        """Wait until nobody else hands in under the same key, and keep others out; `end` lets them in."""
        while (other := self._under_way.get(key)) is not None:
            await other.wait()
        self._under_way[key] = asyncio.Event()

    def end(self, key: RecordKey) -> None:
        """Let others in again."""
        event = self._under_way.pop(key, None)
        if event is not None:
            event.set()

    async def find(self, key: RecordKey) -> Record | None:
        """Give the record of a key that has not expired.

        Who asks while another question is under way is answered together with all others who do: many requests at a
        time then wake the spool's reader once.
        """
        answer = self._asked.get(key)
        if answer is None:
            answer = self._asked[key] = asyncio.get_running_loop().create_future()
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask(), name="recall")
        return await asyncio.shield(answer)

    async def _ask(self) -> None:
        """Answer those who ask, until nobody does."""
        try:
            while self._asked:
                asked, self._asked = self._asked, {}
                try:
                    found = await self.find_all(list(asked))
                except Exception as error:
                    for answer in asked.values():
                        answer.set_exception(error)
                else:
                    for key, answer in asked.items():
                        answer.set_result(found.get(key))
        finally:
            self._asking = None

    async def find_all(self, keys: Sequence[RecordKey]) -> dict[RecordKey, Record]:
        """Give those of many records that there are and that have not expired, in one question."""
        found, now = await self._records.find(keys), self._clock()
        return {key: record for key, record in found.items() if record.expires > now}


def answer_key(tenant: str, shown: str) -> RecordKey:
    """Give the key of the answer to an Idempotency-Key; raises Refused (400) for one that is too long."""
    if not shown or len(shown) > MAX_KEY:
        raise Refused(400, f"Idempotency-Key: 1 to {MAX_KEY} characters are allowed")
    return ANSWERS, tenant, hashlib.sha256(shown.encode()).hexdigest()


def answer_record(key: RecordKey, digest: str, answer: Answer, expires: float) -> Record:
    """Make the record of an answer."""
    return Record(*key, msgspec.json.encode(_Given(digest, answer.status, answer.body)), expires=expires)


def repeat(record: Record, digest: str) -> Answer:
    """Give the answer of before; raises Refused (409) where the content was another one."""
    given = msgspec.json.decode(record.data, type=_Given)
    if given.digest != digest:
        raise Refused(409, "this Idempotency-Key came with another content before")
    return Answer(given.status, given.body, ((b"idempotent-replayed", b"true"),))
