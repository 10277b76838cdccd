"""Transfer: carries jobs over one session, and tells what became of each when the session goes on or is lost."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec

from smarthost.delivery.adapt import Adapted
from smarthost.delivery.ending import Ending
from smarthost.delivery.pipeline import CLOSED, CONTENT, DOT, IDLE, Pipeline
from smarthost.delivery.transaction import Job, Peer, Transaction, find_obstacle, refuse_locally, refuse_unwritable
from smarthost.mail.envelope import Recipient
from smarthost.mail.outcome import Action, Outcome, Scope, Stage
from smarthost.mail.reply import EnhancedStatus, Reply
from smarthost.network.round import Round
from smarthost.network.session import Session, Timeouts
from smarthost.policy.capacity import Capacity
from smarthost.policy.classify import NetFault, Verdict, classify_fault, classify_reply
from smarthost.policy.depth import Depth
from smarthost.policy.limits import SiteLimits
from smarthost.policy.security import Proof
from smarthost.wire.data import Stuffer
from smarthost.wire.reply_reader import ProtocolFault, ReplyReader

__all__ = ["Ending", "Job", "Terms", "Transfer"]

log = logging.getLogger(__name__)

BRISK = 1.0  # seconds that a reply to content may take before nothing more is put behind it
BLOCK = 256 * 1024  # octets of a content file that are read at a time
TLS_FAREWELL = 5.0  # seconds for the peer's close_notify; the libraries would wait 30 s
_SESSION = Scope.SESSION  # members are looked up each time they are named; this one for every message
_QUIT = b"QUIT\r\n"
_CLOSED = classify_fault(Stage.CONTENT, NetFault.CLOSED)
_CONTENT_LOST = Verdict(Action.DELAYED, Scope.TRANSACTION, EnhancedStatus(4, 3, 0))


class Terms(msgspec.Struct, frozen=True):
    """What all transfers of a site share.

    `read_block(file, offset, count)` reads octets of a content file; `adapt` says what becomes of a job that the peer
    cannot take as it is, which fails without it; `site` is the site's name, for events; `round` is
    shared by all transfers, and `depth` by those of a site; each has its own where it is None.
    """

    read_block: Callable[[str, int, int], Awaitable[bytes]]
    site: str = ""
    limits: SiteLimits = SiteLimits()
    timeouts: Timeouts = Timeouts()
    soft_bounce: bool = False
    round: Round | None = None
    depth: Depth | None = None
    capacity: Capacity = msgspec.field(default_factory=Capacity)
    adapt: "Adapt" = lambda transfer, job, obstacle, peer: Adapted(outcomes=refuse_locally(job, peer, obstacle))


Adapt = Callable[["Transfer", Job, NetFault, Peer], Adapted]
NextJob = Callable[["Transfer"], Job | None]
Finished = Callable[["Transfer", Job, list[Outcome], tuple[Recipient, ...], float], None]
Lost = Callable[["Transfer", Ending], None]


class Transfer(asyncio.Protocol):
    """Drives one session by callbacks only. Mutable.

    `next_job` is asked for work when there is room; `finished` is told of each job that is settled: one outcome or a
    place in `again` for each of its recipients; `lost` is told once, after that, how the session ended.
    A job is not handed back as untouched when the session was lost over it before any other was settled there: a host
    that hangs up on everybody would be asked for ever. It is delayed, as an attempt.
    """

    def __init__(
        self,
        session: Session,
        next_job: NextJob,
        finished: Finished,
        lost: Lost,
        terms: Terms,
        clock: Callable[[], float],
    ) -> None:
        """Join the parts; nothing is sent before `start`."""
        self.session = session
        self.site, self.tls = terms.site, session.tls
        self.offers_dsn, self.connecting = session.extensions.dsn, session.opening
        self.lost = False
        self._next_job, self._finished, self._on_lost = next_job, finished, lost
        self._terms, self._clock = terms, clock
        self._peer = Peer(session.host.name, session.address, terms.soft_bounce, session.tls)
        self._max_transactions = terms.limits.max_messages_per_connection
        if session.extensions.max_transactions:  # LIMITS MAILMAX, RFC 9422 4.1
            self._max_transactions = min(self._max_transactions, session.extensions.max_transactions)
        self._leave_at = session.opened_at + terms.limits.max_age
        self._transport = session.transport
        self._round = terms.round or Round(asyncio.get_running_loop())
        self._output: list[bytes] = []
        self._replies = ReplyReader()
        depth = (terms.depth or Depth()) if session.extensions.chunking else None
        self._pipeline = Pipeline(self, session.extensions.pipelining, depth)
        self._since = clock()
        self._buffered = 0
        self._settled = 0
        self._is_leaving = self._is_busy = False
        self._stream: asyncio.Task[None] | None = None
        self._may_write = asyncio.Event()
        self._may_write.set()

    @property
    def is_idle(self) -> bool:
        """Whether the session waits for work and nothing else."""
        return self._pipeline.step is IDLE and not self._is_leaving

    def is_brisk(self, now: float) -> bool:
        """Whether more may follow what is in flight, to a peer that was heard or written to less than a second ago."""
        return now - self._since < BRISK and self._pipeline.has_room

    def is_stalled(self, since: float) -> bool:
        """Whether the peer is waited for since before a Unix time, and has no content that it might have whole."""
        return self._since < since and self._pipeline.may_be_cut

    def start(self) -> None:
        """Take the session over and begin with the first job.

        What the peer did meanwhile is looked at behind the first command, so that a job is spent on a peer that
        closes every session at once.
        """
        early, is_closed = self.session.hand_over(self)
        self.wake()
        if early:
            self._hear(early)
        if is_closed:
            self.connection_lost(None)

    def wake(self) -> None:
        """Take a job if there is room: when idle, or behind a content that waits for its reply."""
        if not self._is_busy and not self._is_leaving:
            self._is_busy = True
            self._pipeline.wake()
            self._is_busy = False

    def take_no_more(self) -> None:
        """End the session when nothing is in flight any more, from within a question for the next job."""
        self._is_leaving = True

    def carries(self, key: tuple[int, int]) -> bool:
        """Whether an entry is in flight here."""
        in_flight = (self._pipeline.current, *self._pipeline.behind)
        return any(each is not None and each.job.entry.key == key for each in in_flight)

    def close(self) -> None:
        """Take no more jobs; QUIT once nothing is in flight, its reply not awaited."""
        self._is_leaving = True
        if self._pipeline.step is IDLE:
            self._leave("closed by us")

    def abort(self) -> None:
        """End the session at once; what was not sent to its end is untouched."""
        self._round.run()
        self._end(Ending("cut off by us"))

    def check(self, now: float) -> None:
        """Compare the Unix time with what the step allows; to be called about once a second."""
        self._round.run()
        step = self._pipeline.step
        if step is CLOSED:
            return
        limits, timeouts = self._terms.limits, self._terms.timeouts
        if step is IDLE:
            if now - self._since >= limits.idle_timeout or now >= self._leave_at:
                self._leave("idle")
            return
        seconds: float = getattr(timeouts, step.timeout)
        if step in (CONTENT, DOT) and (buffered := self._transport.get_write_buffer_size()):
            # Content is still leaving: what counts is whether it moves.
            seconds = timeouts.block
            if buffered != self._buffered:
                self._buffered, self._since = buffered, now
        if now - self._since > seconds:
            self._lose(NetFault.TIMEOUT, f"no answer within {seconds:.0f} s")

    def data_received(self, data: bytes) -> None:
        """Keep what the peer says until its turn in the round."""
        self._round.hear(self._hear, data)

    def _hear(self, data: bytes) -> None:
        """Take what the peer says; an error of our own ends the session as if the peer had gone."""
        try:
            self._take_replies(data)
        except Exception:
            log.exception("a session with %s failed", self._peer.host)
            self._is_busy = False
            self._transport.abort()

    def _take_replies(self, data: bytes) -> None:
        """Hand each reply to the step that waits for it."""
        fault: ProtocolFault | None = None
        try:
            replies = self._replies.feed(data)
        except ProtocolFault as caught:
            fault, replies = caught, list(caught.replies)
        self._since = self._clock()
        self._is_busy = True
        pipeline = self._pipeline
        for reply in replies:
            if self.lost:
                break
            if reply.code == 421:
                self._dismissed(reply)
            else:
                pipeline.step.answered(pipeline, reply)
        self._is_busy = False
        if fault is not None:
            self._lose(NetFault.PROTOCOL_ERROR, str(fault))

    def eof_received(self) -> None:
        """The peer will say nothing more: whatever waits for a reply is lost."""
        self.connection_lost(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._round.run()
        if self._pipeline.step is IDLE:
            self._end(Ending("closed while idle"))
        elif isinstance(exc, TimeoutError):
            self._lose(NetFault.TIMEOUT, "the connection timed out")
        elif isinstance(exc, OSError):
            self._lose(NetFault.RESET, "connection reset by the peer")
        else:
            self._lose(NetFault.CLOSED, "the peer closed the connection")

    def pause_writing(self) -> None:
        """The transport's buffer is full: content waits."""
        self._may_write.clear()

    def resume_writing(self) -> None:
        """The transport's buffer has room again."""
        self._may_write.set()

    def write(self, *octets: bytes) -> None:
        """Send octets at the end of the round; on a connection that is closing they go nowhere, and `connection_lost`
        will tell.
        """
        output = self._output
        if not output:
            self._round.speak(self._write_out)
        output += octets
        self._since = self._clock()

    def _write_out(self) -> None:
        output, self._output = self._output, []
        if output and not self._transport.is_closing():
            self._transport.write(b"".join(output))

    def take(self) -> Transaction | None:
        """Ask for a job that can go to this peer; those that cannot are settled on the way."""
        session, now = self.session, self._clock()
        while not (self._is_leaving or self.lost):
            if session.carried >= self._max_transactions or now >= self._leave_at:
                self._is_leaving = True
                break
            job = self._next_job(self)
            if job is None:
                break
            extensions = session.extensions
            proof = session.proof if session.is_named else Proof.NONE
            obstacle = find_obstacle(job, extensions, proof, session.only_for)
            if obstacle is not None:
                adapted = self._terms.adapt(self, job, obstacle, self._peer)
                if adapted.outcomes:
                    some = tuple([outcome.recipient for outcome in adapted.outcomes])
                    self._finished(self, msgspec.structs.replace(job, recipients=some), [*adapted.outcomes], (), now)
                if adapted.stops:
                    break
                if adapted.job is None:
                    continue
                job = adapted.job
            try:
                transaction = Transaction(job, self._peer, extensions, now)
            except ValueError as error:
                self._finished(self, job, refuse_unwritable(job, self._peer, str(error)), (), now)
                continue
            session.carried += 1
            return transaction
        return None

    def rest(self) -> None:
        """With nothing in flight: leave if no more may be carried, else wait."""
        if self._is_leaving:
            self._leave("as many messages, or as much time, as one connection has")

    def settle(self, transaction: Transaction) -> None:
        """Hand a transaction's outcomes on; a verdict on more than the transaction ends the session."""
        self._settled += 1
        self._tell(transaction)
        if transaction.scope >= _SESSION and not self.lost:
            last = max(transaction.outcomes, key=lambda outcome: outcome.scope)
            self._end(Ending(last.reason, transaction.scope, last.stage, reply=last.reply, pause=transaction.pause))

    def send_file(self, transaction: Transaction) -> None:
        """Send a content that is in a file, with a task of its own."""
        self._stream = asyncio.get_running_loop().create_task(self._stream_content(transaction))

    def break_off(self, reason: str, reply: Reply | None = None) -> None:
        """End a session whose commands and replies do not fit together any more."""
        self._lose(NetFault.PROTOCOL_ERROR, reason)

    async def _stream_content(self, transaction: Transaction) -> None:
        """Send a content file block by block, as fast as the peer takes it, then its end."""
        content, stuffer = transaction.job.content, Stuffer()
        rest = content.size - len(content.head)
        offset = 0
        try:
            self.write(stuffer.feed(content.head))
            while rest:
                await self._may_write.wait()
                block = await self._terms.read_block(content.file, offset, min(BLOCK, rest))
                if not block:
                    raise EOFError("the file is shorter than it was")
                offset += len(block)
                rest -= len(block)
                self.write(stuffer.feed(block))
        except (OSError, EOFError) as error:
            self._lose_content(transaction, f"the content cannot be read: {error}")
        except Exception:
            log.exception("reading content failed")
            self._lose_content(transaction, "the content cannot be read: internal error")
        else:
            self._is_busy = True
            self._pipeline.content_sent(stuffer.end())
            self._is_busy = False

    def _lose_content(self, transaction: Transaction, reason: str) -> None:
        """Without its end a content must not be ended: the connection is cut in the middle of it."""
        if self.lost:
            return
        transaction.lose(Stage.QUEUE, _CONTENT_LOST, None, reason)
        self._pipeline.current = None
        self.settle(transaction)
        self._end(Ending(reason, stage=Stage.QUEUE))

    def _dismissed(self, reply: Reply) -> None:
        """421: the peer closes, whatever it was asked (RFC 5321 3.8)."""
        stage = self._pipeline.step.stage
        verdict = classify_reply(stage, reply, soft_bounce=self._terms.soft_bounce)
        self._end(Ending(str(reply), verdict.scope, stage, reply=reply, pause=verdict.pause), verdict)

    def _lose(self, fault: NetFault, reason: str) -> None:
        stage = self._pipeline.step.stage
        verdict = classify_fault(stage, fault)
        self._end(Ending(reason, verdict.scope, stage, fault, pause=verdict.pause), verdict)

    def _leave(self, reason: str) -> None:
        """QUIT and close, with nothing in flight."""
        transport = self._transport
        self.write(_QUIT)
        self._write_out()
        transport.close()
        if self.tls:
            asyncio.get_running_loop().call_later(TLS_FAREWELL, transport.abort)
        self._end(Ending(reason), is_cut=False)

    def _end(self, ending: Ending, verdict: Verdict | None = None, *, is_cut: bool = True) -> None:
        """Close and settle what is in flight. Without a verdict nothing in flight is to blame."""
        if self.lost:
            return
        self.lost = True
        step, in_flight = self._pipeline.stop()
        if is_cut:
            self._transport.abort()
        if self._stream is not None:
            self._stream.cancel()
        untouched: list[Job] = []
        # Who dismisses us has taken nothing that is not answered; else, what was sent whole may have arrived.
        is_dismissed = ending.reply is not None and ending.reply.code == 421
        for transaction in in_flight:
            is_first = transaction is in_flight[0]
            if is_first and step is DOT:
                blame = verdict or _CLOSED
                transaction.lose(Stage.CONTENT, blame, ending.reply, ending.reason, ambiguous=ending.reply is None)
            elif transaction.is_chunked and not is_dismissed:
                transaction.lose(Stage.CONTENT, _CLOSED, None, ending.reason, ambiguous=True)
            elif is_first and verdict is not None and not self._settled:
                transaction.lose(step.stage, verdict, ending.reply, ending.reason)
            elif transaction.is_partly_decided:
                transaction.put_off()
            else:
                untouched.append(transaction.job)
                continue
            self._tell(transaction)
        self._on_lost(self, msgspec.structs.replace(ending, untouched=tuple(untouched)))

    def _tell(self, transaction: Transaction) -> None:
        job, outcomes, capacity = transaction.job, transaction.outcomes, self._terms.capacity
        if transaction.overflow:
            capacity.refused(transaction.overflow, self._clock())
        elif capacity.most and len(transaction.accepted) >= capacity.most:
            capacity.took(len(transaction.accepted), self._clock())
        again = tuple(transaction.again) if transaction.again else ()
        assert len(outcomes) + len(again) == len(job.recipients), "one outcome a recipient"
        self._finished(self, job, outcomes, again, transaction.started_at)
