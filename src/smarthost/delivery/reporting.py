"""Makes the reports that an attempt causes, and hands them to the spool in the attempt's own transaction."""

import asyncio
import logging
from asyncio import AbstractEventLoop
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import msgspec

from smarthost.mail.address import domain_of, to_a_label
from smarthost.mail.entry import Entry, Why
from smarthost.mail.envelope import Body, Envelope, Notify, Recipient
from smarthost.mail.event import Event, Kind
from smarthost.mail.message import Message, format_id
from smarthost.mail.outcome import Action, Outcome
from smarthost.mail.reply import EnhancedStatus, Reply
from smarthost.policy.notification import DueReport, ReportKind, is_past
from smarthost.queue.intake import Intake
from smarthost.spool.store import Accepted, Content, Done, Fault, Settlement, Spool
from smarthost.wire.dsn import LastAttempt, ReportFacts, ReportRecipient, build_report
from smarthost.wire.header import parse_fields, split_header

log = logging.getLogger(__name__)

HEADER_READ = 256 * 1024  # octets read from a content file to find its header section
RETURNED_MOST = 1024 * 1024  # octets of a message that is returned whole, whatever RET asks


class ReportTerms(msgspec.Struct, frozen=True):
    """How reports are written: who they come from, and the reverse-path they travel with ("" is the null one).

    A message of more than `most_returned` octets comes back as its header only; with `hide_client` nothing is said of
    who handed it in.
    """

    hostname: str
    postmaster: str
    reverse_path: str = ""
    most_returned: int = RETURNED_MOST
    hide_client: bool = False


class Reporter:
    """Builds reports off the event loop: the message's content is read, the report is signed, then all is settled."""

    def __init__(
        self,
        loop: AbstractEventLoop,
        spool: Spool,
        intake: Intake,
        terms: ReportTerms,
        clock: Callable[[], float],
    ) -> None:
        """Join the parts; `terms` is replaced at a reload."""
        self._loop, self._spool, self._intake, self._clock = loop, spool, intake, clock
        self.terms = terms
        self._tasks: set[asyncio.Task[None]] = set()

    def submit(self, settlement: Settlement, due: Sequence[DueReport], done: Done) -> None:
        """Settle an entry together with the reports that are due; `done` is called after the commit."""
        task = asyncio.ensure_future(self._report(settlement, due, done))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def idle(self) -> None:
        """Wait until every report that was begun is with the spool."""
        while self._tasks:
            await asyncio.gather(*tuple(self._tasks), return_exceptions=True)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a report could not be made", exc_info=error)

    async def _report(self, settlement: Settlement, due: Sequence[DueReport], done: Done) -> None:
        entry, made = settlement.entry, list[Accepted]()
        try:
            content = await self._content_of(entry, any(report.full for report in due))
            past = await self._past_of(entry, due)
            for report in due:
                made.append(await self._make(entry, report, content, past))
        except Exception:
            # Nobody would be told of the failure, so the recipients stay, for a person to look at.
            log.exception("a report on message %s could not be made", format_id(entry.message.id))
            made.clear()
            settlement.dead = ()
            _keep_failed(entry, due)
        settlement.reports = tuple(made)
        self._spool.settle(settlement, lambda fault: self._settled(made, done, fault))

    def _settled(self, made: Sequence[Accepted], done: Done, fault: Fault | None) -> None:
        done(fault)
        if fault is not None:
            return
        for accepted in made:
            self._intake.accepted(accepted)

    def _told(self, message: Message) -> Event:
        return Event(
            time=message.arrival.at,
            event=Kind.REPORTED,
            message=message.id,
            sender=message.envelope.reverse_path,
            recipient=message.envelope.recipients[0].address,
            size=message.size,
            user=message.user,
            signed=message.signatures,
        )

    async def _content_of(self, entry: Entry, whole: bool) -> bytes:
        """Give the content, or as much of a large one as the report needs; b"" when it is lost."""
        found: Content | None = (await self._spool.contents([entry.message.id])).get(entry.message.id)
        if found is None:
            return b""
        if not found.file:
            return found.head
        count = found.size if whole and found.size <= self.terms.most_returned else HEADER_READ
        try:
            return found.head + await self._spool.read_file(found.file, 0, count)
        except OSError:
            return found.head

    async def _past_of(self, entry: Entry, due: Sequence[DueReport]) -> dict[str, LastAttempt]:
        """Give each recipient's last attempt from the history, where a report is not about an attempt."""
        if not any(is_past(outcome) for report in due for outcome in report.outcomes):
            return {}
        events = await self._spool.events_of(entry.message.id)
        return {event.recipient: _last_attempt(event) for event in events if event.event is Kind.DELAYED}

    async def _make(self, entry: Entry, report: DueReport, content: bytes, past: Mapping[str, LastAttempt]) -> Accepted:
        now = self._clock()
        number = self._intake.ids.mint(now)
        message, terms = entry.message, self.terms
        is_secret = message.envelope.requiretls
        content = _redact(content) if is_secret else content
        full = report.full and not is_secret and 0 < message.size <= min(len(content), terms.most_returned)
        identity = format_id(number).lower()
        until = entry.expires if report.kind is ReportKind.DELAY else 0.0
        facts = ReportFacts(
            message=message,
            recipients=tuple(_recipient(outcome, now, until, past) for outcome in report.outcomes),
            hostname=terms.hostname,
            postmaster=terms.postmaster,
            at=now,
            message_id=f"{identity}.report@{terms.hostname}",
            boundary=f"{identity}={int(now)}",
            returned=content,
            whole=full,
            received_from="" if terms.hide_client else message.arrival.ehlo,
        )
        built = build_report(facts)
        to = message.envelope.reverse_path
        recipient = Recipient(to, to_a_label(domain_of(to)) or domain_of(to).lower(), int(Notify.NEVER))
        envelope = Envelope(
            terms.reverse_path,
            (recipient,),
            body=Body.SEVEN_BIT if built.isascii() else Body.EIGHT_BIT_MIME,
            smtputf8=not to.isascii(),
        )
        answer: asyncio.Future[Accepted] = self._loop.create_future()
        make = partial(self._intake.make_report, number, built, envelope, now, message.user)
        self._intake.threads.submit(lambda: self._sign(answer, make))
        accepted = await answer
        accepted.events = (self._told(accepted.message),)
        return accepted

    def _sign(self, answer: "asyncio.Future[Accepted]", make: Callable[[], Accepted]) -> None:
        """Signer thread: sign and hand back to the loop."""
        try:
            accepted = make()
        except Exception as error:
            self._loop.call_soon_threadsafe(_fail, answer, error)
        else:
            self._loop.call_soon_threadsafe(_answer, answer, accepted)


def _redact(content: bytes) -> bytes:
    """Leave the Message-ID alone of a message that asked for REQUIRETLS, so that its report may go any way.

    A report that demanded REQUIRETLS itself would be lost wherever the way back has none (RFC 8689 5).
    """
    fields = parse_fields(content[: split_header(content, whole=True)])
    return b"".join(raw for name, raw in fields if name == b"message-id") + b"\r\n"


def _recipient(outcome: Outcome, now: float, until: float, past: Mapping[str, LastAttempt]) -> ReportRecipient:
    """Say when a recipient was tried last: now, or before a decision of ours, if ever."""
    if not is_past(outcome):
        return ReportRecipient(outcome=outcome, last_attempt=now, retry_until=until)
    before = past.get(outcome.recipient.address)
    if before is None:
        return ReportRecipient(outcome=outcome, retry_until=until)
    if outcome.action is Action.DELAYED:
        # Of a delay there is nothing to say but what caused it.
        outcome = msgspec.structs.replace(outcome, status=before.status)
    return ReportRecipient(outcome=outcome, last_attempt=before.at, retry_until=until, before=before)


def _last_attempt(event: Event) -> LastAttempt:
    status = EnhancedStatus.parse(event.status)
    reply = Reply(event.code, status, (event.reply,)) if event.code else None
    return LastAttempt(event.time, status, event.host, reply)


def _keep_failed(entry: Entry, due: Sequence[DueReport]) -> None:
    """Put recipients that failed back into an entry and park it."""
    failed = [o.recipient for report in due for o in report.outcomes if o.action is Action.FAILED]
    entry.recipients = tuple(dict.fromkeys((*entry.recipients, *failed)))
    if failed:
        entry.why, entry.due, entry.deadline = Why.INTERNAL_ERROR, float("inf"), float("inf")


def _answer(answer: "asyncio.Future[Accepted]", accepted: Accepted) -> None:
    if not answer.done():
        answer.set_result(accepted)


def _fail(answer: "asyncio.Future[Accepted]", error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
