"""Pulls entries of one site and has sessions carry them: as many as window, limits and work ask for."""

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from smarthost.delivery.allowance import allowed, end_begun, give_way
from smarthost.delivery.connect import Unreached, outcomes_of
from smarthost.delivery.front import Front
from smarthost.delivery.hall import Hall
from smarthost.delivery.loading import Loader
from smarthost.delivery.opener import Opener
from smarthost.delivery.sticking import Sticking
from smarthost.delivery.telling import Passage
from smarthost.delivery.transfer import Ending, Job, Transfer
from smarthost.mail.entry import Entry, Why
from smarthost.mail.envelope import Recipient
from smarthost.mail.outcome import Action, Outcome, Scope, Stage
from smarthost.network.session import Session
from smarthost.queue.ready import ReadyQueue

if TYPE_CHECKING:
    from smarthost.delivery.pool import Pool

ENTRIES_PER_SESSION = 16  # waiting entries that justify one more session: pipelining carries a few without one
_RELAYED = Action.RELAYED  # members are looked up each time they are named; these for every message
_AMBIGUOUS, _NEXT_HOST = Why.AMBIGUOUS, Why.NEXT_HOST


class Dispatcher:
    """One site's sessions. Callback-driven: a message costs no task.

    `queues` are the names of the queues whose entries come here, which wait together when the site does. In a `pool`
    they need not: what cannot go here goes elsewhere.
    """

    def __init__(self, ready: ReadyQueue, hall: Hall) -> None:
        """Begin with no session."""
        self.ready, self._hall = ready, hall
        self.queues: set[str] = set()
        self.pool: Pool | None = None
        self.transfers: dict[Transfer, None] = {}  # a set that keeps their order
        self._idle: dict[Transfer, None] = {}  # a set that keeps their order: who rested last is woken first
        self._partial: dict[tuple[int, int], list[Outcome]] = {}
        self.opener = Opener(ready, hall, self.transfers, self._start, self._unreached, self.work)
        self._sticking = Sticking(ready, hall, self.opener, self.transfers)
        self._front = Front(ready, hall.loop, self.work)
        self._loader = Loader(ready, hall, self._take_out, self.work)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self.stopping = False

    def push(self, entry: Entry) -> None:
        """Take an entry; it leaves at once if a session is idle and the limits allow."""
        ready = self.ready
        ready.push(entry)
        if self._idle:
            self._wake_one(self._hall.clock())
        if ready.todo:
            if self._wants_session():
                self.work()
            else:
                self._front.watch()

    def work(self) -> None:
        """Wake idle sessions and open further ones, as far as there is work for them."""
        ready, now = self.ready, self._hall.clock()
        if self.stopping or not ready.todo:
            return
        if ready.suspended_until > now:
            self.hold(now)
            return
        while self._idle and ready.todo and self._may_send(now) and self._wake_one(now):
            pass
        if ready.is_paced and (wait := ready.wait(now)) and not self._would_use_session(wait):
            self._pace(wait)
            return
        wanted = len(ready.todo) - self.opening
        while wanted > 0 and self._wants_session():
            wanted -= 1
            if (wait := ready.opening_cells.wait(now)) > 0.0:
                self._later(wait)
                return
            if not ready.window.may_open(now):
                self.hold(now)
                return
            if not self.opener.open(now, ready.todo[0]):
                return

    def probe(self) -> None:
        """Open a session with no mail for it, if the window allows: does the site answer again?"""
        now = self._hall.clock()
        if not self.stopping and not self.opening and self.opener.may_open(now):
            self.opener.open(now)

    def next_job(self, transfer: Transfer) -> Job | None:
        """Give a session its next transaction; None when there is nothing to carry just now."""
        ready = self.ready
        now = self._hall.clock() if ready.todo else 0.0
        while ready.todo and not self.stopping and self._may_send(now):
            entry = ready.todo[0]
            if entry.why is _AMBIGUOUS or entry.why is _NEXT_HOST:
                fitting = self._sticking.entry_for(transfer, entry, now)
                if fitting is None:
                    break
                entry = fitting
            content = self._hall.scheduler.contents.get(entry.message.id)
            if content is None:
                self._loader.load()
                break
            most, recipients = ready.limits.max_recipients_per_transaction, entry.recipients
            if len(recipients) > 1 or self._partial or ready.counts_recipients or self._hall.gates.active:
                recipients = allowed(self._hall, ready, self._untried(entry)[: ready.capacity.within(most, now)], now)
                if ready.todo[0] is not entry:
                    ready.bring_forward(entry)  # asking has let others in, before it
                if not recipients:
                    give_way(self._hall, ready, self._partial)
                    continue
            ready.take()
            if ready.is_paced:
                ready.cells.take(now)
            self._idle.pop(transfer, None)
            return Job(entry, recipients, content, now)
        self._idle[transfer] = None
        return None

    def finished(
        self,
        transfer: Transfer,
        job: Job,
        outcomes: Sequence[Outcome],
        again: tuple[Recipient, ...],
        started: float,
    ) -> None:
        """Take the outcomes of one transaction; the recipients that it did not reach travel in the next one."""
        ready, entry, remedies = self.ready, job.entry, self._hall.remedies
        if not transfer.lost:
            ready.window.succeeded()
        # A message to one recipient that was relayed, as nearly all are, is not looked at any further.
        if remedies.active and (len(outcomes) != 1 or outcomes[0].action is not _RELAYED):
            outcomes = remedies.review(self, outcomes, transfer)
        earlier = self._partial.pop(entry.key, None) if self._partial else None
        self._hall.gates.landed(entry)
        if earlier is None and not again and len(job.recipients) == len(entry.recipients):
            ready.done()
            may_go_on = len(outcomes) != 1 or outcomes[0].action is not _RELAYED
            if may_go_on:
                may_go_on = self._sticking.may_go_on(outcomes, transfer.session.host.name, self.pool, self)
            self._hall.settler.attempted(entry, outcomes, passage=Passage(transfer, started, job.taken, may_go_on))
            return
        every = [*(earlier or ()), *outcomes]
        decided = {outcome.recipient for outcome in every}
        rest = tuple(recipient for recipient in entry.recipients if recipient not in decided)
        if not rest or self.stopping:
            ready.done()
            self._hall.settler.concluded(entry, earlier or (), outcomes, rest, Passage(transfer, started, job.taken))
            return
        self._hall.settler.partly(entry, outcomes, Passage(transfer, started, job.taken))
        self._partial[entry.key] = [outcome for outcome in every if outcome.action is Action.DELAYED]
        ready.push_back(entry)

    def lost(self, transfer: Transfer, ending: Ending) -> None:
        """Take the end of a session: what it had not tried goes to another one."""
        ready, now = self.ready, self._hall.clock()
        self.transfers.pop(transfer, None)
        self._idle.pop(transfer, None)
        if self._hall.remedies.active:
            self._hall.remedies.hear(self, ending.stage or Stage.MAIL, ending.reply, transfer)
        if ending.scope >= Scope.HOST:
            ready.window.failed(now)
            if ending.pause:
                self._hall.connector.leave_alone(ready.site, transfer.session, ending)
        self.opener.closed(transfer.session)
        for job in reversed(ending.untouched):
            ready.push_back(job.entry)
        if self.stopping:
            self._unload()
        elif ending.scope is Scope.SITE and ending.pause:
            ready.window.pause(now + ending.pause)
            self.hold(now, ending.reason)
        else:
            self.work()

    def returned(self, job: Job) -> None:
        """Take a job back that no session has begun with; it goes first."""
        self.ready.push_back(job.entry)
        if self.stopping:
            self._unload()
        else:
            self.work()

    def held_back(self, transfer: Transfer, job: Job) -> None:
        """Take a job back that cannot be carried yet; the session waits for work."""
        self.ready.push_back(job.entry)
        self._idle[transfer] = None

    def tick(self, now: float) -> None:
        """Once a second: time-outs of sessions, and work that waited for a rate or the window."""
        for transfer in tuple(self.transfers):
            transfer.check(now)
        if self.pool is not None:
            self.pool.watch(self, now)
        if self.ready.todo:
            self.work()
            if self.ready.todo:
                self._front.watch()

    def withdraw(self, key: tuple[int, int]) -> bool:
        """Take one waiting entry out by its key, with what is known of a part of it; False when it is in delivery.

        It is, too, until what was decided of a part of it is on disk.
        """
        return not self._hall.scheduler.is_unwritten(key) and self._take_out(key)

    def _take_out(self, key: tuple[int, int]) -> bool:
        if not self.ready.withdraw(key):
            return False
        self._partial.pop(key, None)
        return True

    def retire(self) -> None:
        """Take no more work and let sessions end once they carry nothing: at shutdown, or when routes changed."""
        self.stopping = True
        self.pool = None
        self._unload()
        for transfer in tuple(self.transfers):
            transfer.close()

    def cut(self) -> None:
        """End every session at once, at the end of the shutdown's patience."""
        self.opener.cut()
        self._loader.cut()
        for transfer in tuple(self.transfers):
            transfer.abort()
        if self._timer is not None:
            self._timer.cancel()

    @property
    def opening(self) -> int:
        """Count the sessions that are being opened."""
        return self.opener.opening

    @property
    def idle_sessions(self) -> int:
        """Count the sessions that wait for work."""
        return sum(1 for transfer in self._idle if transfer.is_idle)

    @property
    def is_unused(self) -> bool:
        """Whether nothing would be lost with it: no session, no entry, no pause."""
        ready = self.ready
        is_paused = max(ready.window.until, ready.suspended_until) > self._hall.clock()
        return not (self.transfers or self.opening or ready.todo or ready.busy or is_paused)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is in delivery."""
        return self.ready.busy == 0 and self.opening == 0

    def _untried(self, entry: Entry) -> tuple[Recipient, ...]:
        decided = {outcome.recipient for outcome in self._partial.get(entry.key, ())}
        return tuple(r for r in entry.recipients if r not in decided) if decided else entry.recipients

    def _may_send(self, now: float) -> bool:
        ready = self.ready
        if self._hall.settler.is_stuck or ready.suspended_until > now:
            return False
        if ready.is_paced and (wait := ready.wait(now)) > 0.0:
            self._pace(wait)
            return False
        return True

    def _wake_one(self, now: float) -> bool:
        """Let one session take the entry at the front: an idle one, else one whose peer answers quickly."""
        before = len(self.ready.todo)
        for transfer in reversed(self._idle):
            if transfer.is_idle:
                transfer.wake()
                return len(self.ready.todo) < before
        for transfer in reversed(self._idle):
            if transfer.is_brisk(now):
                transfer.wake()
                return len(self.ready.todo) < before
        return False

    def _would_use_session(self, wait: float) -> bool:
        """Whether a session opened now would carry the next entry when the rate allows, and not idle until it ends."""
        return not self._idle and not self.opening and wait < self.ready.limits.idle_timeout

    def _wants_session(self) -> bool:
        """Whether one more session is worth its cost: none is there, or the work is too much for those that are."""
        sessions = len(self.transfers) + self.opening
        if sessions and len(self.ready.todo) <= (0 if self._front.is_stalled else ENTRIES_PER_SESSION * sessions):
            return False
        return sessions < self.ready.limits.max_connections and not self._hall.settler.is_stuck

    def _pace(self, wait: float) -> None:
        """Come back when a rate allows; what an upstream's quota holds back may go elsewhere meanwhile."""
        self._later(wait)
        self._hall.settler.teller.paced(self.ready.site.route.name)
        if self.pool is not None:
            self._hall.loop.call_soon(self._give_up_quota)

    def _give_up_quota(self) -> None:
        if self.pool is not None:
            self.pool.quota_used(self)

    def _later(self, wait: float) -> None:
        loop = self._hall.loop
        at = loop.time() + min(wait, 60.0)
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer, self._timer_at = loop.call_at(at, self._on_timer), at

    def _on_timer(self) -> None:
        self._timer = None
        self.work()

    def _start(self, session: Session) -> None:
        """Take a session that has just been opened."""
        transfer = self._hall.make_transfer(session, self)
        self.transfers[transfer] = None
        transfer.start()
        if self.stopping:
            transfer.close()
        elif self.pool is not None:
            self.pool.recovered()

    def _unreached(self, unreached: Unreached) -> None:
        """No host answered: the first entry has had its attempt; if the site is throttled now, the others wait."""
        ready, hall, now = self.ready, self._hall, self._hall.clock()
        is_news = hall.remedies.active and not unreached.is_remembered
        ready.window.failed(now)
        ready.window.closed()
        if unreached.verdict.scope is Scope.SITE and unreached.verdict.pause:
            ready.window.pause(now + unreached.verdict.pause)
        spares = self.pool is not None and self.pool.spares(self, unreached)
        if not self.transfers and ready.todo and not spares:
            entry = ready.take()
            ready.done()
            recipients = self._untried(entry)
            # What an earlier transaction of this attempt has decided stands, and must not count in the next attempt.
            earlier = self._partial.pop(entry.key, ())
            outcomes: Sequence[Outcome] = outcomes_of(unreached, recipients)
            if is_news:
                outcomes = hall.remedies.review(self, outcomes)
            hall.settler.concluded(entry, earlier, outcomes)
        elif self.transfers or spares:
            hall.settler.teller.tell_unreached(ready.site, unreached)
            if is_news:
                hall.remedies.hear(self, unreached.fault.stage, unreached.fault.reply)
        if not ready.window.may_open(now):
            self.hold(now, unreached.reason)
        else:
            self.work()

    def hold(self, now: float, reason: str = "") -> None:
        """Put entries back to disk while the site is throttled or suspended, with no attempt spent."""
        ready = self.ready
        until, why = ready.window.until, Why.SITE_THROTTLED
        if ready.suspended_until > max(now, until):
            until, why, reason = ready.suspended_until, ready.suspended_why, ready.suspended_by
        if until <= now:
            return
        self._later(until - now)
        if self.pool is not None:
            self.pool.spread(self, reason)
            return
        for queue in self.queues:
            self._hall.scheduler.block(queue, until, reason or "the site is throttled", why)
        self._hall.gates.drain(self.queues)
        self._unload()

    def shrink(self) -> None:
        """End the sessions that are more than the limits allow now, each with what it carries."""
        for transfer in tuple(self.transfers)[self.ready.limits.max_connections :]:
            transfer.close()

    def release(self, queue: str = "") -> list[Entry]:
        """Give up what waits here, or of one queue, to go elsewhere; the attempt of one that is partly tried ends."""
        every = self.ready.drain()
        entries = [entry for entry in every if not queue or entry.queue == queue]
        for entry in every if len(entries) < len(every) else ():
            if entry.queue != queue:
                self.ready.push(entry)
        return end_begun(self._hall, entries, self._partial)

    def _unload(self) -> None:
        """Give all that waits here back to the disk."""
        self._hall.scheduler.unload(end_begun(self._hall, self.ready.drain(), self._partial))
