"""Handing: one message of a request on its way to the commit: who may, who gets it, what is remembered and answered."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from smarthost.mail.envelope import Envelope, Priority, Recipient
from smarthost.mail.event import Event, Kind
from smarthost.mail.message import Arrival, Message, format_id
from smarthost.mail.outcome import Stage
from smarthost.mail.record import Record, RecordKey
from smarthost.mail.reply import Reply
from smarthost.policy.admission import User, check_sender
from smarthost.policy.suppression import SUPPRESSED
from smarthost.reception.http.front import Answer, Asked
from smarthost.reception.http.parts import HttpParts
from smarthost.reception.http.problem import FieldError, Refused, disk_full, refusal_of, too_many
from smarthost.reception.http.recall import NAMES, answer_record
from smarthost.reception.parts import Draft
from smarthost.reception.terms import LONGEST_HOLD

KIND = "message"
_SUPPRESSED = "suppressed"
BACKLOG = 512 * 1024  # octets that wait for the disk before more is read
SENDS_TOO_FAST = "the message rate of this key or its tenant is used up"

Write = Callable[[Draft], Awaitable[None]]

log = logging.getLogger(__name__)


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one recipient: "accepted", "suppressed" or "refused", then with code, status and reason."""

    address: str
    result: str
    code: int = 0
    status: str = ""
    reason: str = ""


class TakenMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to a message: its id, what the client calls it, and a result for each recipient.

    `warnings` are of what was accepted all the same.
    """

    id: str
    status: str
    recipients: list[Result]
    client_id: str = ""
    send_at: datetime | None = None
    dry_run: bool = False
    warnings: list[FieldError] = []


class Kept(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of a message for lists; the rest is in its entries and events."""

    id: int
    at: float
    reverse_path: str
    recipients: list[Result]
    subject: str = ""
    tag: str = ""
    client_id: str = ""
    send_at: float = 0.0
    size: int = 0
    metadata: dict[str, Any] = {}
    account_id: str = ""
    batch_code: str = ""
    priority: Priority = Priority.MEDIUM


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a request wants: the envelope with everybody in it, and what is to be remembered of the message."""

    envelope: Envelope
    subject: str = ""
    client_id: str = ""
    dry_run: bool = False
    metadata: Mapping[str, Any] = {}
    account_id: str = ""
    batch_code: str = ""
    answer_key: RecordKey | None = None
    keeps_return_path: bool = False
    digest: Callable[[], str] = str  # of the request's content, once it has been read


class Handing:
    """One message that is handed in by a user, which is a tenant with its settings.

    `warnings` are what its sender is told of a message that is accepted.
    """

    def __init__(self, parts: HttpParts, asked: Asked, user: User, wanted: Wanted) -> None:
        """Look at nothing yet."""
        self._parts, self._door = parts, parts.door
        self._asked, self._user, self._wanted = asked, user, wanted
        self.warnings: list[FieldError] = []
        self._results: list[Result] = []
        self._chosen: tuple[Recipient, ...] = ()
        self._answer: Answer | None = None
        self._id = 0

    async def run(self, write: Write) -> Answer:
        """Have the content written into a draft and commit it; gives the answer. Raises Refused."""
        wanted, door = self._wanted, self._door
        self._check_sender()
        recipients = self._chosen = self._choose()
        if not recipients:
            self._tell_suppressed(0)
            errors = [("to", f"{each.address}: {each.reason}") for each in self._results]
            raise Refused(422, "no recipient was accepted", title="Message refused", errors=errors)
        if wanted.dry_run:
            until = time_of(wanted.envelope.hold_until)
            said = TakenMessage("", "valid", self._results, wanted.client_id, until, True, self.warnings)
            return _encode(200, said)
        self._count(recipients)
        now = door.clock()
        arrival = Arrival(
            now, "http", self._asked.client, "", self._user.name, "HTTPS" if self._asked.is_secure else "HTTP"
        )
        envelope = wanted.envelope
        if len(recipients) < len(envelope.recipients):
            envelope = msgspec.structs.replace(envelope, recipients=recipients)
        draft = door.intake.begin(arrival, envelope)
        draft.remember = self._remember
        draft.keeps_return_path = wanted.keeps_return_path
        try:
            await write(draft)
        except BaseException:
            draft.abandon()
            raise
        committed: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        draft.commit(committed.set_result)
        reply = await asyncio.shield(committed)
        if not reply.is_positive:
            self._reject(reply, Stage.CONTENT)
        self._tell_suppressed(self._id)
        # Without an answer the route has discarded it: there is nothing to be remembered.
        return self._answer or _encode(
            202, TakenMessage(reply.text.split()[2], "discarded", self._results, wanted.client_id)
        )

    def _check_sender(self) -> None:
        door, user, reverse_path = self._door, self._user, self._wanted.envelope.reverse_path
        if not door.has_space():
            raise disk_full()
        if (wait := door.credentials.wait(user.name, user.key)) > 0.0:
            raise too_many(wait, SENDS_TOO_FAST)
        if (refusal := check_sender(user, reverse_path)) is not None:
            self._reject(refusal, Stage.MAIL)
        if self._wanted.envelope.hold_until > door.clock() + LONGEST_HOLD:
            days = LONGEST_HOLD // 86400
            raise Refused(422, "a field is wrong", errors=[("send_at", f"{days} days ahead are allowed")])

    def _choose(self) -> tuple[Recipient, ...]:
        """Give the recipients that no route and no suppression list refuses; the results have all."""
        envelope, refuses = self._wanted.envelope, self._door.route_refusal
        chosen = []
        for recipient in envelope.recipients:
            refusal = refuses(envelope.reverse_path, recipient, self._user.name)
            if refusal is None:
                chosen.append(recipient)
                self._results.append(Result(recipient.address, "accepted"))
                continue
            result = _SUPPRESSED if refusal == SUPPRESSED else "refused"
            self._results.append(Result(recipient.address, result, refusal.code, str(refusal.status), refusal.text))
        return tuple(chosen)

    def _count(self, recipients: tuple[Recipient, ...]) -> None:
        door, user = self._door, self._user
        if door.limits.active:
            refusal = door.limits.take(user.name, self._wanted.envelope.reverse_path, recipients)
            if refusal is not None:
                self._reject(refusal, Stage.DATA)
        door.credentials.take(user.name, user.key)

    def _remember(self, message: Message) -> tuple[Record, ...]:
        """Any thread: write the answer, and give what travels with the message."""
        wanted, tenant = self._wanted, self._user.name
        self._id = message.id
        identity, terms = format_id(message.id), self._parts.terms
        hold_until = message.envelope.hold_until
        status = "scheduled" if hold_until > message.arrival.at else "accepted"
        until = time_of(hold_until)
        taken = TakenMessage(identity, status, self._results, wanted.client_id, until, False, self.warnings)
        for each in self.warnings:
            log.warning("message %s of %s: %s %s", identity, tenant, each.field, each.message)
        self._answer = answer = _encode(202, taken)
        results = self._results
        if message.envelope.recipients != self._chosen:
            results = _rewritten(results, message.envelope.recipients)
        kept = Kept(
            message.id,
            message.arrival.at,
            message.envelope.reverse_path,
            results,
            wanted.subject,
            message.tag,
            wanted.client_id,
            hold_until,
            message.size,
            dict(wanted.metadata),
            wanted.account_id,
            wanted.batch_code,
            message.envelope.priority,
        )
        pace = message.envelope.pace
        lifetime = self._parts.lifetime() if pace is None or pace.lifetime is None else pace.lifetime
        gone = message.released_at + lifetime + terms.message_keep
        records = [Record(KIND, tenant, identity, msgspec.json.encode(kept), expires=gone)]
        if wanted.client_id:
            records.append(Record(NAMES, tenant, wanted.client_id, identity.encode(), expires=gone))
        if wanted.answer_key is not None:
            forgotten = message.arrival.at + terms.idempotency_keep
            records.append(answer_record(wanted.answer_key, wanted.digest(), answer, forgotten))
        return tuple(records)

    def _tell_suppressed(self, message: int) -> None:
        """Tell of each recipient to whom nothing is sent; `message` is 0 where there is no other."""
        left_out = [each for each in self._results if each.result == _SUPPRESSED]
        if not left_out or self._wanted.dry_run:
            return
        events = tuple(
            Event(
                time=self._door.clock(),
                event=Kind.SUPPRESSED,
                message=message,
                sender=self._wanted.envelope.reverse_path,
                recipient=each.address,
                code=each.code,
                status=each.status,
                reply=each.reason,
                client=self._asked.client,
                listener="http",
                user=self._user.name,
            )
            for each in left_out
        )
        for event in events:
            self._door.feed.publish(event)
        self._parts.spool.record(events)

    def _reject(self, reply: Reply, stage: Stage) -> None:
        """Tell the feed of a refusal, and raise it."""
        envelope = self._wanted.envelope
        self._door.feed.publish(
            Event(
                time=self._door.clock(),
                event=Kind.REJECTED,
                stage=stage,
                sender=envelope.reverse_path,
                recipient=envelope.recipients[0].address if len(envelope.recipients) == 1 else "",
                code=reply.code,
                status=str(reply.status),
                reply=reply.text,
                client=self._asked.client,
                listener="http",
                user=self._user.name,
            )
        )
        raise refusal_of(reply)


def _rewritten(results: list[Result], recipients: tuple[Recipient, ...]) -> list[Result]:
    """Give the results with the addresses that rewriting has made of those that were accepted."""
    left = iter(recipients)
    return [
        msgspec.structs.replace(each, address=now.address)
        if each.result == "accepted" and (now := next(left, None)) is not None
        else each
        for each in results
    ]


async def drained(draft: Draft) -> None:
    """Wait until the disk has taken most of what a draft was given."""
    if draft.backlog <= BACKLOG or draft.refused is not None:
        return
    room = asyncio.Event()
    draft.on_drained = room.set
    await room.wait()
    draft.on_drained = None


def time_of(at: float) -> datetime | None:
    """Give a Unix time as answers have it, None for 0."""
    return datetime.fromtimestamp(at, UTC) if at else None


def _encode(status: int, taken: TakenMessage) -> Answer:
    return Answer(status, msgspec.json.encode(taken))
