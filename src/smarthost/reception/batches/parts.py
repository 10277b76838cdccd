"""What batches are given by the assembly."""

from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from smarthost.compose.limits import SubmissionLimits
from smarthost.compose.template import TemplateLimits
from smarthost.mail.envelope import Recipient
from smarthost.queue.intake import Intake
from smarthost.reception.http.desks import AccountDesk
from smarthost.reception.parts import Parts
from smarthost.spool.store import Filter, Spool


class Hand(Protocol):
    """What is done to messages that wait in the queue (`queue.operate`)."""

    def hold(self, wanted: Filter, dry_run: bool) -> Awaitable[dict[str, int]]:
        """Park entries until they are released."""

    def release(self, wanted: Filter, dry_run: bool) -> Awaitable[dict[str, int]]:
        """Let parked entries go on."""

    def delete(self, wanted: Filter, dry_run: bool) -> Awaitable[dict[str, int]]:
        """Delete entries without any report."""


class BatchParts(msgspec.Struct, kw_only=True):
    """Everything that batches need.

    `loaded` counts the entries that are in memory to be sent; `is_suppressed` says whether a tenant's mail to a
    recipient is not sent; `hostname` and `postmaster` are the relay's; `keep` is for how many seconds a batch is known
    after its mail can have left the queue.
    """

    spool: Spool
    intake: Intake
    door: Parts
    operator: Hand
    accounts: AccountDesk
    clock: Callable[[], float]
    loaded: Callable[[], int]
    is_suppressed: Callable[[str, Recipient], bool]
    hostname: Callable[[], str]
    postmaster: Callable[[], str]
    keep: Callable[[], float]
    limits: SubmissionLimits = msgspec.field(default_factory=SubmissionLimits)
    template_limits: TemplateLimits = msgspec.field(default_factory=TemplateLimits)
