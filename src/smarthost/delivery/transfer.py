"""Transfer: drives one session through its transactions, the next envelope riding behind the content before it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import msgspec

from smarthost.delivery.transaction import Job, Peer, Transaction, find_obstacle, refuse_locally, refuse_unwritable
from smarthost.mail.envelope import Recipient
from smarthost.mail.outcome import Action, Outcome, Scope, Stage
from smarthost.mail.reply import EnhancedStatus, Reply
from smarthost.network.session import Session, Timeouts
from smarthost.policy.classify import NetFault, Verdict, classify_fault, classify_reply
from smarthost.policy.limits import SiteLimits
from smarthost.wire.data import Stuffer, stuff
from smarthost.wire.reply_reader import ProtocolFault, ReplyReader

__all__ = ["Ending", "Job", "Terms", "Transfer"]

log = logging.getLogger(__name__)

BLOCK = 256 * 1024  # octets of a content file that are read at a time
TLS_FAREWELL = 5.0  # seconds for the peer's close_notify; libraries would wait 30 s
_RSET = b"RSET\r\n"
_QUIT = b"QUIT\r\n"
_EMPTY_CONTENT = b".\r\n"
_CONTENT_LOST = Verdict(Action.DELAYED, Scope.TRANSACTION, EnhancedStatus(4, 3, 0))


class Terms(msgspec.Struct, frozen=True):
    """What all transfers of a site share.

    `read_block(file, offset, count)` reads octets of a content file; `site` is the site's name, for events.
    """

    read_block: Callable[[str, int, int], Awaitable[bytes]]
    site: str = ""
    limits: SiteLimits = SiteLimits()
    timeouts: Timeouts = Timeouts()
    soft_bounce: bool = False


class Ending(msgspec.Struct, frozen=True):
    """How a session ended. A normal end (QUIT of ours, closed while idle) has neither fault nor reply.

    `scope` is at least SESSION; `pause` the seconds that the host or login shall be left alone. `untouched` are jobs
    whose end of data was not written and who are not to blame: they may go elsewhere at once, with no attempt spent.
    """

    reason: str
    scope: Scope = Scope.SESSION
    stage: Stage | None = None
    fault: NetFault | None = None
    reply: Reply | None = None
    pause: float = 0.0
    untouched: tuple[Job, ...] = ()


NextJob = Callable[["Transfer"], Job | None]
Finished = Callable[["Transfer", Job, list[Outcome], tuple[Recipient, ...], float], None]
Lost = Callable[["Transfer", Ending], None]


class Transfer(asyncio.Protocol):
    """Carries jobs over one session, by callbacks only. Mutable; at most two jobs are in flight.

    `next_job` is asked for work when there is room; `finished` is told of each job that was settled, with one outcome
    or a place in `again` for each of its recipients; `lost` once, at the end, after that. Replies come in the order
    of the commands: those of `_current` first, then those of `_following`, whose envelope rides behind the content.
    A job is not given back as untouched by a session that has carried none before it: a host that always hangs up
    would be asked for ever; it is delayed.
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
        self.site = terms.site
        self.tls = session.tls
        self.offers_dsn = session.extensions.dsn
        self.connecting = session.opening
        self.lost = False
        self._next_job, self._finished, self._on_lost = next_job, finished, lost
        self._terms, self._clock = terms, clock
        self._peer = Peer(session.host.name, session.address, terms.soft_bounce)
        self._pipelining = session.extensions.pipelining
        most = session.extensions.max_transactions  # LIMITS MAILMAX, RFC 9422 4.1
        limit = terms.limits.max_messages_per_connection
        self._max_transactions = min(most, limit) if most else limit
        self._transport = session.transport
        self._replies = ReplyReader()
        self._step = _IDLE
        self._since = clock()
        self._current: Transaction | None = None
        self._following: Transaction | None = None
        self._settled = 0
        self._is_leaving = False
        self._is_busy = False
        self._buffered = 0
        self._stream: asyncio.Task[None] | None = None
        self._may_write = asyncio.Event()
        self._may_write.set()

    @property
    def is_idle(self) -> bool:
        """Whether the session waits for work and nothing else."""
        return self._step is _IDLE and not self._is_leaving

    def start(self) -> None:
        """Take the session over and begin with the first job."""
        early, is_closed = self.session.hand_over(self)
        if early:
            self.data_received(early)
        if is_closed and not self.lost:
            self._lose(NetFault.CLOSED)
        self.wake()

    def wake(self) -> None:
        """Take a job if there is room: when idle, or behind a content whose reply has not come yet."""
        if self._is_busy or self._is_leaving:
            return
        if self._step is _IDLE:
            self._go_on()
        elif self._step is _DOT and self._pipelining and self._following is None:
            self._following = self._take()
            if self._following is not None:
                self._write(b"".join(self._following.commands))

    def close(self) -> None:
        """Take no more jobs; send QUIT and close once nothing is in flight. `lost` may be called before this returns."""
        self._is_leaving = True
        if self._step is _IDLE:
            self._leave("closed by us")

    def abort(self) -> None:
        """End the session at once; what was not sent to its end is untouched."""
        if not self.lost:
            self._end("cut off by us", ambiguous=NetFault.CLOSED)

    def check(self, now: float) -> None:
        """Compare the time with what the phase allows; called about once a second with the Unix time."""
        step = self._step
        if step is _CLOSED:
            return
        if step is _IDLE:
            limits = self._terms.limits
            if now - self._since >= limits.idle_timeout or now - self.session.opened_at >= limits.max_age:
                self._leave("idle")
            return
        seconds: float = getattr(self._terms.timeouts, step.timeout)
        if step is _CONTENT or step is _DOT:
            buffered = self._transport.get_write_buffer_size()
            if buffered != self._buffered:
                self._buffered, self._since = buffered, now
            if buffered:
                seconds = self._terms.timeouts.block
        if now - self._since > seconds:
            self._lose(NetFault.TIMEOUT)

    def data_received(self, data: bytes) -> None:
        """Take what the peer says; each reply goes to the step that waits for it."""
        if self._step is _CLOSED:
            return
        fault: ProtocolFault | None = None
        try:
            replies = self._replies.feed(data)
        except ProtocolFault as caught:
            fault, replies = caught, list(caught.replies)
        self._since = self._clock()
        self._is_busy = True
        for reply in replies:
            if reply.code == 421:
                self._dismissed(reply)
            else:
                self._step.answered(self, reply)
            if self.lost:
                return
        self._is_busy = False
        if fault is not None:
            self._lose(NetFault.PROTOCOL_ERROR, str(fault))

    def eof_received(self) -> None:
        """The peer will say nothing more: whatever waits for a reply is lost."""
        self.connection_lost(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        if self._step is _IDLE:
            self._end("closed while idle")
        elif self._step is not _CLOSED:
            self._lose(_fault_of(exc))

    def pause_writing(self) -> None:
        """The transport's buffer is full: content waits."""
        self._may_write.clear()

    def resume_writing(self) -> None:
        """The transport's buffer has room again."""
        self._since = self._clock()
        self._may_write.set()

    def _take(self) -> Transaction | None:
        """Ask for a job that can go to this peer; those that cannot are settled on the way."""
        session, now = self.session, self._clock()
        was_busy, self._is_busy = self._is_busy, True
        try:
            while not self._is_leaving:
                if session.carried >= self._max_transactions or now - session.opened_at >= self._terms.limits.max_age:
                    self._is_leaving = True
                    break
                job = self._next_job(self)
                if job is None:
                    break
                obstacle = find_obstacle(job, session.extensions)
                if obstacle is not None:
                    self._finished(self, job, refuse_locally(job, self._peer, obstacle), (), now)
                    continue
                try:
                    transaction = Transaction(job, self._peer, session.extensions, now)
                except ValueError as error:
                    self._finished(self, job, refuse_unwritable(job, self._peer, str(error)), (), now)
                    continue
                session.carried += 1
                return transaction
        finally:
            self._is_busy = was_busy
        return None

    def _go_on(self, *, reset: bool = False) -> None:
        """With nothing in flight: begin the next transaction, behind a RSET if the last one was left open."""
        self._step = _RSET_STEP if reset else _IDLE
        self._current = transaction = self._take()
        if self.lost:
            return
        if transaction is None:
            if reset:
                self._write(_RSET)
            elif self._is_leaving:
                self._leave("as many messages or as much time as one connection has")
            return
        if not reset:
            self._step = _MAIL
        if self._pipelining:
            self._write(b"".join([_RSET, *transaction.commands] if reset else transaction.commands))
        else:
            self._write(_RSET if reset else transaction.commands[0])

    def _reset_answered(self, reply: Reply) -> None:
        if not reply.is_positive:
            self._lose(NetFault.PROTOCOL_ERROR, f"RSET was answered {reply}")
        elif self._current is None:
            self._go_on()
        else:
            self._step = _MAIL
            if not self._pipelining:
                self._write(self._current.commands[0])

    def _mail_answered(self, reply: Reply) -> None:
        transaction = self._current
        assert transaction is not None
        if 300 <= reply.code < 400:
            self._desynchronised(reply)
            return
        transaction.mail_replied(reply)
        if self._pipelining:
            self._step = _RCPT
        elif transaction.is_refused:
            self._drop(reset=False)
        else:
            self._step = _RCPT
            self._write(transaction.commands[1])

    def _rcpt_answered(self, reply: Reply) -> None:
        transaction = self._current
        assert transaction is not None
        if 300 <= reply.code < 400:
            self._desynchronised(reply)
            return
        is_last = transaction.rcpt_replied(reply)
        if is_last and not self._pipelining and not transaction.accepted:
            self._drop(reset=True)
            return
        if is_last:
            self._step = _DATA
        if not self._pipelining:
            self._write(transaction.commands[1 + transaction.next_recipient])

    def _data_answered(self, reply: Reply) -> None:
        transaction = self._current
        assert transaction is not None
        if reply.code == 354:
            if transaction.accepted:
                self._send_content(transaction)
            else:
                # The peer waits for content though it took no recipient: RFC 2920 3.1 has it end at once.
                self._step = _EMPTY_DOT
                self._write(_EMPTY_CONTENT)
        elif reply.code >= 400:
            transaction.data_refused(reply)
            self._drop(reset=not transaction.is_refused)
        else:
            self._desynchronised(reply)

    def _send_content(self, transaction: Transaction) -> None:
        content = transaction.job.content
        if content.file:
            self._step = _CONTENT
            self._stream = asyncio.get_running_loop().create_task(self._stream_content(transaction))
        else:
            self._send_end(stuff(content.head))

    def _send_end(self, end: bytes) -> None:
        """Write what ends the content, and behind it in the same write the next envelope (RFC 2920 3.1)."""
        if self._pipelining:
            self._following = following = self._take()
            if following is not None:
                end = b"".join([end, *following.commands])
        self._step = _DOT
        self._write(end)

    def _dot_answered(self, reply: Reply) -> None:
        transaction = self._current
        assert transaction is not None
        if 300 <= reply.code < 400:
            self._desynchronised(reply)
            return
        transaction.content_replied(reply)
        self._advance()
        self._settle(transaction)
        if self._step is _IDLE and not self.lost:
            self._go_on()

    def _empty_dot_answered(self, reply: Reply) -> None:
        self._drop(reset=False)

    def _early_answered(self, reply: Reply) -> None:
        """The peer has answered before the end of the content: a refusal counts, but the session is of no more use."""
        transaction = self._current
        assert transaction is not None
        if reply.code < 400:
            self._desynchronised(reply)
            return
        transaction.content_replied(reply)
        self._current = None
        self._settle(transaction)
        if not self.lost:
            self._end(f"refused within the content: {reply}", stage=Stage.CONTENT, reply=reply)

    def _idle_answered(self, reply: Reply) -> None:
        self._desynchronised(reply)

    def _drop(self, *, reset: bool) -> None:
        """Settle a transaction that ended before its content, and go on with the next."""
        transaction = self._current
        assert transaction is not None
        self._current = None
        self._settle(transaction)
        if not self.lost:
            self._go_on(reset=reset)

    def _advance(self) -> None:
        self._current, self._following = self._following, None
        self._step = _IDLE if self._current is None else _MAIL

    def _settle(self, transaction: Transaction) -> None:
        """Give a transaction's outcomes away; a verdict on more than the transaction ends the session."""
        outcomes, again = transaction.outcomes, tuple(transaction.again)
        assert len(outcomes) + len(again) == len(transaction.job.recipients), "one outcome a recipient"
        self._settled += 1
        self._finished(self, transaction.job, outcomes, again, transaction.started_at)
        if transaction.scope >= Scope.SESSION and not self.lost:
            last = outcomes[-1]
            self._end(last.reason, transaction.scope, last.stage, reply=last.reply, pause=transaction.pause)
