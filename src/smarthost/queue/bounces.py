"""Takes what is said later of messages that had been relayed: their events, and addresses for the suppression list."""

import asyncio
import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, MutableMapping, Sequence
from functools import partial

import msgspec

from smarthost.mail.event import Event, Kind
from smarthost.mail.message import format_id
from smarthost.mail.record import DEFAULT_TENANT, Record, RecordKey
from smarthost.mail.suppression import Key, read_suppression_address
from smarthost.network.in_thread import in_thread
from smarthost.policy.suppression import bounces_counted
from smarthost.queue.recall import Recall
from smarthost.queue.return_paths import ReturnPaths
from smarthost.queue.suppression import COUNTED, SuppressionList
from smarthost.report.feed import Feed
from smarthost.spool.store import Fault, Spool
from smarthost.wire.notice import Notice, NoticeKind
from smarthost.wire.report_mail import read_report
from smarthost.wire.verp import ReturnPath

log = logging.getLogger(__name__)

SEEN = "bounce"  # the kind of record of a notice that was taken, so that it is taken once
KEEP = 30 * 86400.0  # seconds for which it is remembered
_DELAYED = "delayed"
_STATUS = {NoticeKind.PERMANENT: "5.0.0", NoticeKind.TRANSIENT: "4.0.0"}
_RESULTS = {NoticeKind.PERMANENT: "hard", NoticeKind.TRANSIENT: "soft", NoticeKind.COMPLAINT: "complaint"}


class _Believed(msgspec.Struct, frozen=True):
    """A notice whose message, or at least whose owner, is known. `name` tells it from others, "" where nothing does."""

    notice: Notice
    past: Sequence[Event]
    recipient: str
    identity: str
    owner: str
    name: str


class BounceIntake:
    """Believes a notice when its return path was made by this relay for a message, or when a tenant vouches for it.

    `paths` are those return paths, None where there are none; a reload replaces them. `tally` counts notices by what
    became of them: "hard", "soft", "complaint", "duplicate", "unknown" (nobody's message), "relayed", and mail that is
    "unparsed".
    """

    def __init__(
        self,
        spool: Spool,
        feed: Feed,
        suppression: SuppressionList,
        clock: Callable[[], float],
        tally: MutableMapping[str, int] | None = None,
    ) -> None:
        """Join the parts."""
        self.paths: ReturnPaths | None = None
        self.tally = defaultdict(int) if tally is None else tally
        self._spool, self._feed, self._suppression, self._clock = spool, feed, suppression, clock
        self._turns = Recall(spool.records, clock)

    async def take_mail(self, content: bytes, return_path: str) -> int:
        """Take a mail that came to one of our return paths; gives how many notices in it were believed.

        What is told is durable when this returns. A mail that reports nothing, as the answer of a person, is counted.
        """
        try:
            notices = await in_thread(partial(read_report, content, return_path), "bounce reader")
        except Exception:
            # Whatever a stranger writes: to have it sent again and again would help nobody.
            log.warning("a mail to a return path could not be read", exc_info=True)
            notices = []
        if not notices:
            self.tally["unparsed"] += 1
        return await self.take(notices)

    async def take(self, notices: Sequence[Notice], tenant: str | None = None, otherwise: str | None = None) -> int:
        """Make events of notices, and suppress addresses that are dead or complain; gives how many were believed.

        `tenant` is who vouches for them, None for nobody; a notice on another tenant's message is not believed.
        `otherwise` is whose they are where no message is known and the operator vouches for them. A notice that was
        taken before is not taken again. What is told is durable when this returns.
        """
        taken = 0
        for notice in notices:
            if notice.kind is NoticeKind.RELAYED:
                self.tally["relayed"] += 1
                continue
            believed = await self._believe(notice, tenant, otherwise)
            if believed is None:
                self.tally["unknown"] += 1
                continue
            taken += await self._note(believed)
        return taken

    async def _believe(self, notice: Notice, tenant: str | None, otherwise: str | None) -> _Believed | None:
        """Find whose message a notice is about, and which recipient; None where that is nobody's, or not proven."""
        path = self.paths.read(notice.return_path) if self.paths is not None else None
        past = await self._spool.events_of(path.message) if path is not None else []
        user = next((each.user for each in past), None)
        if user is not None and tenant is not None and (user or DEFAULT_TENANT) != tenant:
            return None
        identity = user if user is not None else otherwise if tenant is None else tenant
        if identity is None:
            return None  # nobody's message, or one that is forgotten: its recipient may be anybody's
        recipient, name = notice.recipient, ""
        if path is not None and user is not None:
            # The report may name another address, to which the mail was forwarded: who was sent to is what counts.
            found = await self._recipient_of(path, past, notice)
            if found is None:
                return None
            recipient, name = found, f"{format_id(path.message)}-{path.tag}"
        elif notice.message_id:
            name = hashlib.sha256(f"{notice.message_id}\0{notice.recipient.lower()}".encode()).hexdigest()
        address = read_suppression_address(recipient)
        if address is None:
            return None
        # What a tenant claims without a proof must not keep others from sending.
        is_for_all = user is not None or tenant is None
        owner = self._suppression.rules.owner_of(identity) if is_for_all else identity
        # A delay and the failure that it ends in are two things, although both may be called passing.
        sense = notice.category if notice.category == _DELAYED else notice.kind
        return _Believed(notice, past, recipient, identity, owner, f"{name}-{sense}" if name else "")

    async def _recipient_of(self, path: ReturnPath, past: Sequence[Event], notice: Notice) -> str | None:
        assert self.paths is not None
        found = self.paths.recipient_of(path, [each.recipient for each in past if each.recipient])
        if found is None:
            # Faster than the settle of its own relaying.
            entries = await self._spool.entries_of(path.message)
            waiting = [each.address for entry in entries for each in entry.recipients]
            found = self.paths.recipient_of(path, [*waiting, notice.recipient])
        return found

    async def _note(self, believed: _Believed) -> bool:
        """Tell of a notice and count it, durably; false for one that was taken before."""
        address = read_suppression_address(believed.recipient) or ""
        turn = (SEEN, "", address)
        await self._turns.begin(turn)
        try:
            seen: RecordKey = (SEEN, believed.identity or DEFAULT_TENANT, believed.name)
            if believed.name and await self._turns.find(seen) is not None:
                self.tally["duplicate"] += 1
                return False
            self.tally[_RESULTS[believed.notice.kind]] += 1
            self._tell(believed)
            kept, removed = await self._count(believed.notice, (believed.owner, address))
            if believed.name:
                kept.append(Record(*seen, b"", expires=self._clock() + KEEP))
            # The event is written before or with this, and so is the row of the suppression list.
            await self._written(kept, removed)
            return True
        finally:
            self._turns.end(turn)

    async def _count(self, notice: Notice, key: Key) -> tuple[list[Record], list[RecordKey]]:
        """Count a notice towards suppression; gives the records that are to be written and removed.

        No message that is relayed meanwhile ends the row: every one of these had been relayed.
        """
        rules, now = self._suppression.rules, self._clock()
        if notice.kind is NoticeKind.TRANSIENT or not rules.enabled:
            return [], []
        worth = bounces_counted(rules, notice.status if notice.kind is NoticeKind.PERMANENT else "")
        if not worth:
            return [], []
        counted: RecordKey = (COUNTED, *key)
        found = await self._turns.find(counted)
        failures = worth + (int(found.data) if found is not None else 0)
        if failures < rules.after:
            return [Record(*counted, b"%d" % failures, expires=now + rules.expiry)], []
        self._suppression.note(key, _reason(notice))
        return [], [counted]

    async def _written(self, kept: Sequence[Record], removed: Sequence[RecordKey]) -> None:
        written: asyncio.Future[Fault | None] = asyncio.get_running_loop().create_future()
        self._spool.records.write(kept, removed, lambda fault: None if written.done() else written.set_result(fault))
        await written

    def _tell(self, believed: _Believed) -> None:
        notice, past = believed.notice, believed.past
        event = Event(
            time=self._clock(),
            event=Kind.COMPLAINED if notice.kind is NoticeKind.COMPLAINT else Kind.BOUNCED,
            message=past[0].message if past else 0,
            envid=past[0].envid if past else "",
            sender=past[0].sender if past else None,
            recipient=believed.recipient,
            status=notice.status or _STATUS.get(notice.kind, ""),
            reply=_reason(notice),
            user=believed.identity,
        )
        self._feed.publish(event)
        self._spool.record((event,))


def _reason(notice: Notice) -> str:
    return notice.diagnostic or notice.category or notice.kind.value
