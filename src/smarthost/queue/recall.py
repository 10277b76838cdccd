"""Recalls what was handed in before under a key of the sender's own, by whatever door: one store for all of them."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence

import msgspec

from smarthost.mail.record import Record, RecordKey
from smarthost.spool.store import RecordStore

ANSWERS = "idempotency"
MAX_KEY = 255  # characters of a key
KEEP = 86400.0  # seconds for which a key is remembered


class Given(msgspec.Struct, frozen=True, array_like=True):
    """What was answered to a key: the digest of the content that it came with, a status, and the answer itself.

    By HTTP these are the status and the body of the response, by SMTP 250 and the message's id.
    """

    digest: str
    status: int
    body: bytes


class Recall:
    """Answers of before. What is under way is in memory, what was accepted is a record that came with the message.

    `keep` is for how long, in seconds, an answer that came by SMTP is remembered; a reload changes it.
    """

    def __init__(self, records: RecordStore, clock: Callable[[], float]) -> None:
        """Begin with nothing under way."""
        self.keep = KEEP
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


def key_of(tenant: str, shown: str) -> RecordKey:
    """Give under which key of records the answer to a sender's key is kept."""
    return ANSWERS, tenant, hashlib.sha256(shown.encode("utf-8", "surrogateescape")).hexdigest()


def given_record(key: RecordKey, given: Given, expires: float) -> Record:
    """Make the record of an answer."""
    return Record(*key, msgspec.json.encode(given), expires=expires)


def read_given(record: Record) -> Given:
    """Read the record of an answer."""
    return msgspec.json.decode(record.data, type=Given)
