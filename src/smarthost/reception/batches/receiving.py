"""Receiving: stores the recipients of a batch as they come, so that no more than a few parts of it are in memory."""

import asyncio

from smarthost.compose.batch_form import BatchRecipient, read_group
from smarthost.compose.fault import FieldFault
from smarthost.compose.mailbox import read_mailbox
from smarthost.compose.template_form import CompiledForm, check_variables
from smarthost.mail.record import Record, RecordKey
from smarthost.reception.batches.record import DRAFT, PART, PART_SIZE, Batch, number_of
from smarthost.spool.store import Fault, Group, Spool

MOST_UNDER_WAY = 8  # parts that are on their way to disk before more is read
MOST_FAULTS = 50
MOST_REJECTED = 100  # bad addresses that are told one by one
PAGE = 10  # parts that are read back at a time


class Unstored(Exception):
    """The recipients cannot be stored: the disk is full."""


class Checked:
    """What was found out about all recipients of a batch; `rejected` are the first bad addresses, with the reason."""

    def __init__(self) -> None:
        """Begin with nobody."""
        self.faults: list[FieldFault] = []
        self.rejected: list[tuple[str, str]] = []
        self.bad = 0


class Receiving:
    """The parts of one batch on their way to disk. `abandon` removes them; so does the next start after a crash.

    `is_given` says that the batch itself is on its way there, or is there: then they are not removed any more.
    """

    def __init__(self, spool: Spool, batch: Batch) -> None:
        """Begin with nothing; `batch` names the records, and is not written here."""
        self._spool, self._batch = spool, batch
        self._waiting: list[bytes] = []
        self._count = 0  # parts
        self._under_way = 0
        self._moved = asyncio.Event()
        self._fault: Fault | None = None
        self.is_given = False

    @property
    def draft_key(self) -> RecordKey:
        """The record that says that there are parts without a batch yet."""
        return DRAFT, self._batch.tenant, self._batch.id

    async def put(self, recipients: list[bytes]) -> None:
        """Store recipients, as they were written; returns when there is room for more. Raises Unstored."""
        self._waiting += recipients
        while len(self._waiting) >= PART_SIZE:
            self._store(self._waiting[:PART_SIZE])
            del self._waiting[:PART_SIZE]
            await self._room(MOST_UNDER_WAY)

    async def finish(self) -> None:
        """Return when everything is on disk; raises Unstored."""
        if self._waiting:
            self._store(self._waiting)
            self._waiting = []
        await self._room(1)

    async def check(self, template: CompiledForm) -> Checked:
        """Look at every recipient once more, now that the template is known: its address, and its variables."""
        checked, prefix = Checked(), f"{self._batch.id}-"
        after = prefix
        declared = template.variables
        for _ in range(0, self._count, PAGE):
            page = await self._spool.records.page(PART, self._batch.tenant, after, PAGE)
            for part in page:
                if not part.id.startswith(prefix):
                    break
                for place, each in enumerate(read_group(part.data), number_of(part) * PART_SIZE):
                    if len(checked.faults) < MOST_FAULTS:
                        _check(checked, place, each, template if declared else None)
                after = part.id
                await asyncio.sleep(0)
        return checked

    def abandon(self) -> None:
        """Remove everything that no batch has; it goes with the next transaction."""
        if self.is_given:
            return
        keys = [self._batch.part_key(PART, number) for number in range(self._count)]
        self._spool.records.write((), [*keys, self.draft_key])

    def _store(self, recipients: list[bytes]) -> None:
        batch, number = self._batch, self._count
        records = [Record(*batch.part_key(PART, number), b"[%s]" % b",".join(recipients))]
        if not number:
            records.append(Record(*self.draft_key, b""))
        self._count += 1
        self._under_way += 1
        # As mail is accepted, so that a full disk refuses it, and never as what was settled, which waits for space.
        self._spool.accept_group(Group(records=tuple(records)), self._stored)

    def _stored(self, fault: Fault | None) -> None:
        self._under_way -= 1
        self._fault = self._fault or fault
        self._moved.set()

    async def _room(self, most: int) -> None:
        while self._under_way >= most and self._fault is None:
            self._moved.clear()
            await self._moved.wait()
        if self._fault is not None:
            raise Unstored


def _check(checked: Checked, place: int, recipient: BatchRecipient, template: CompiledForm | None) -> None:
    mailbox = read_mailbox(recipient.email)
    if isinstance(mailbox, str):
        checked.bad += 1
        if len(checked.rejected) < MOST_REJECTED:
            checked.rejected.append((recipient.email, mailbox))
    if template is not None:
        for fault in check_variables(template.variables, recipient.variables):
            message = f"{recipient.email[:100]}: {fault.message}"
            checked.faults.append(FieldFault(f"recipients[{place}].{fault.field}", message))
