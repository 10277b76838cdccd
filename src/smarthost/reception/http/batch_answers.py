"""What is answered to a batch, and which status one has."""

from datetime import datetime
from typing import Literal

import msgspec

from smarthost.reception.batches.record import Batch, State

Status = Literal["SCHEDULED", "SENDING", "SUSPENDED", "COMPLETED", "CANCELLED"]


class BadAddress(msgspec.Struct, frozen=True):
    """A recipient whose address is none: it is sent nothing, and its event is FAILED."""

    email: str
    reason: str


class MadeBatch(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The answer to a batch. `recipients` counts all of them, `invalid` those whose address is none; `rejected` tells
    up to a hundred of these.
    """

    id: str
    status: str
    created_at: datetime = msgspec.field(name="createdAt")
    recipients: int
    invalid: int = 0
    rejected: list[BadAddress] = []


def status_of(batch: Batch, now: float) -> Status:
    """Give the status of a batch at a Unix time."""
    if batch.state is State.SUSPENDED:
        return "SUSPENDED"
    if batch.state in (State.CANCELLING, State.CANCELLED):
        return "CANCELLED"
    if batch.state is State.COMPLETED:
        return "COMPLETED"
    return "SCHEDULED" if batch.form.release > now else "SENDING"
