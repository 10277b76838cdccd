"""Takes what is said later of messages that had been relayed: their events, and addresses for the suppression list."""

from collections.abc import Callable, Sequence

from smarthost.mail.event import Event, Kind
from smarthost.mail.record import DEFAULT_TENANT
from smarthost.mail.suppression import read_suppression_address
from smarthost.queue.suppression import SuppressionList
from smarthost.report.feed import Feed
from smarthost.spool.store import Spool
from smarthost.wire.notice import Notice, NoticeKind
from smarthost.wire.verp import message_of

_STATUS = {NoticeKind.PERMANENT: "5.0.0", NoticeKind.TRANSIENT: "4.0.0"}


class BounceIntake:
    """Believes a notice when its return path was made by this relay for a message, or when a tenant vouches for it.

    `mailbox` and `key` are those of the return paths (`wire.verp`); without a mailbox none is recognised.
    """

    def __init__(
        self,
        spool: Spool,
        feed: Feed,
        suppression: SuppressionList,
        clock: Callable[[], float],
        mailbox: str = "",
        key: bytes = b"",
    ) -> None:
        """Join the parts."""
        self._spool, self._feed, self._suppression, self._clock = spool, feed, suppression, clock
        self._mailbox, self._key = mailbox, key

    async def take(self, notices: Sequence[Notice], tenant: str | None = None, otherwise: str | None = None) -> int:
        """Make events of notices, and suppress addresses that are dead or complain; gives how many were believed.

        `tenant` is who vouches for them, None for nobody; a notice on another tenant's message is not believed.
        `otherwise` is whose they are where no message is known and the operator vouches for them.
        """
        taken = 0
        for notice in notices:
            address = read_suppression_address(notice.recipient)
            if address is None or notice.kind is NoticeKind.RELAYED:
                continue
            message = message_of(notice.return_path, self._mailbox, self._key) if self._mailbox else None
            past = await self._spool.events_of(message) if message is not None else []
            owner = next((each.user for each in past), None)
            if owner is not None and tenant is not None and (owner or DEFAULT_TENANT) != tenant:
                continue
            believed = owner if owner is not None else otherwise if tenant is None else tenant
            if believed is None:
                continue  # nobody's message, or one that is forgotten: its recipient may be anybody's
            self._record(notice, past, believed)
            if notice.kind is not NoticeKind.TRANSIENT:
                reason = notice.diagnostic or notice.category or notice.kind.value
                is_proven = owner is not None or tenant is None
                self._suppression.note(believed, address, status_of(notice), reason, for_all=is_proven)
            taken += 1
        return taken

    def _record(self, notice: Notice, past: Sequence[Event], identity: str) -> None:
        event = Event(
            time=self._clock(),
            event=Kind.COMPLAINED if notice.kind is NoticeKind.COMPLAINT else Kind.BOUNCED,
            message=past[0].message if past else 0,
            envid=past[0].envid if past else "",
            sender=past[0].sender if past else None,
            recipient=notice.recipient,
            status=status_of(notice),
            reply=notice.diagnostic or notice.category or notice.kind.value,
            user=identity,
        )
        self._feed.publish(event)
        self._spool.record((event,))


def status_of(notice: Notice) -> str:
    """Give the status of a notice, by its kind where it has none; a complaint has none."""
    return notice.status or _STATUS.get(notice.kind, "")
