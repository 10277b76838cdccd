"""Writer: the one thread that commits; everything that waits goes into one transaction and one sync."""

import asyncio
import math
import threading
import time
from collections.abc import Callable

from smarthost.spool.batch import Batch, Part
from smarthost.spool.database import Database
from smarthost.spool.event_log import Signals
from smarthost.spool.reserve import Reserve
from smarthost.spool.store import Fault
from smarthost.spool.turn import Turn

# Settles alone wait this long for company; with the commit itself it stays below the 20 ms that are promised.
SETTLE_PATIENCE = 0.01
FULL_PATIENCE = 0.5  # between two tries on a full disk
IDLE_PATIENCE = 1.0  # without work before the log is emptied and unused pages are given back
CROWD = 4  # accepts and settles in a batch that are worth a turn
SLOW_PATIENCE = 1.0  # without turns after one that was too long for the loop: the rows wait for the disk, not for it

# Who rings the bell: nobody while the writer is at work or will look again by itself.
_NOBODY, _ACCEPTS, _ANYONE = range(3)


class Writer:
    """Takes rows from any thread and answers on the loop, in batches.

    `gather` seconds are waited for more accepts after a batch that had more than one: larger batches cost less CPU
    and more latency.
    """

    def __init__(
        self,
        database: Database,
        reserve: Reserve,
        loop: asyncio.AbstractEventLoop,
        on_fatal: Callable[[str], None],
        gather: float = 0.0,
    ) -> None:
        """Start the thread."""
        self.settles_stuck = False
        self.signals = Signals()
        self.gather = gather
        self._database = database
        self._reserve = reserve
        self._loop = loop
        self._on_fatal = on_fatal
        self._stuck = Part()
        self._full_at = -math.inf  # when the disk was last found full
        self._waiting = Batch()
        self._lock = threading.Lock()
        self._bell = threading.Lock()
        self._bell.acquire()
        self._listens_to = _NOBODY
        self._closing = False
        self._had_company = False  # the last batch had more than one accept
        self._shrinks = False
        self._turn: Turn | None = None
        self._slow_until = -math.inf
        self._thread = threading.Thread(target=self._run, name="spool-writer", daemon=True)
        self._thread.start()

    def accept(self, fill: Callable[[Part], None]) -> None:
        """Let `fill` add rows to the accepts of the next batch."""
        with self._lock:
            fill(self._waiting.accepts)
            if self._listens_to != _NOBODY:
                self._ring()

    def settle(self, fill: Callable[[Part], None]) -> None:
        """Let `fill` add rows to the settles of the next batch."""
        with self._lock:
            fill(self._waiting.settles)
            if self._listens_to == _ANYONE:
                self._ring()

    def close(self) -> None:
        """Commit what waits and end the thread; blocks until then."""
        with self._lock:
            self._closing = True
            if self._listens_to != _NOBODY:
                self._ring()
        self._thread.join()

    def _ring(self) -> None:
        self._listens_to = _NOBODY
        self._bell.release()

    def _run(self) -> None:
        try:
            while not self._database.fatal and self._has_work():
                self._begin_turn()
                self._commit(self._take())
                self._end_turn()
                if self._database.is_log_long():
                    self._database.checkpoint()
        except Exception as error:  # a bug: nothing may be answered any more, and somebody has to hear of it
            self._database.fatal = f"the spool's writer failed: {error!r}"
        if self._database.fatal:
            self._call(self._on_fatal, self._database.fatal)
        self._database.close()

    def _has_work(self) -> bool:
        """Wait for work; False when the spool closes and nothing waits, or when it failed."""
        if self.gather and self._had_company and not self._closing:
            time.sleep(self.gather)
        while not self._database.fatal:
            with self._lock:
                waiting = self._waiting
                if waiting.accepts or (self._closing and (waiting.settles or self._stuck)):
                    return True
                if self._closing:
                    return False
                hurries = bool(waiting.settles or self._stuck)
                self._listens_to = _ACCEPTS if hurries else _ANYONE
                patience = self._patience()
            if not self._wait(patience):
                if hurries:
                    return True
                self._tidy()
        return False

    def _patience(self) -> float:
        if self._stuck:
            return FULL_PATIENCE
        if self._waiting.settles:
            return SETTLE_PATIENCE
        if self._shrinks:
            return 0.0
        return IDLE_PATIENCE if self._reserve.held else FULL_PATIENCE

    def _wait(self, patience: float) -> bool:
        """Sleep until the bell; false when nobody rang in time."""
        rung = self._bell.acquire(timeout=patience)
        with self._lock:
            if not rung and self._listens_to == _NOBODY:
                rung = self._bell.acquire()  # it was rung just after the time was up
            self._listens_to = _NOBODY
        return rung

    def _begin_turn(self) -> None:
        """Have the loop stand still while rows are written, if there are many; what it brings meanwhile comes along."""
        waiting = self._waiting
        if len(waiting.accepts.dones) + len(waiting.settles.dones) < CROWD or self._closing:
            return
        if time.monotonic() >= self._slow_until:
            self._turn = Turn()
            self._turn.ask(self._loop)

    def _end_turn(self) -> None:
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.end()
            if turn.was_long:
                self._slow_until = time.monotonic() + SLOW_PATIENCE

    def _take(self) -> Batch:
        with self._lock:
            batch, self._waiting = self._waiting, Batch()
        self._had_company = len(batch.accepts.dones) > 1
        if self._stuck:
            self._stuck.extend(batch.settles)
            batch.settles, self._stuck = self._stuck, Part()
        return batch

    def _commit(self, batch: Batch) -> None:
        if self._reserve.held and time.monotonic() - self._full_at >= FULL_PATIENCE:
            fault = self._database.commit(batch.settles, batch.accepts, written=self._end_turn)
            if fault is None:
                self.settles_stuck = False
                self._call(self._answer, (batch.settles, batch.accepts), None)
            if fault is not Fault.DISK_FULL:
                return
            self._full_at = time.monotonic()
        self._commit_in_need(batch)

    def _commit_in_need(self, batch: Batch) -> None:
        """Commit on a full disk: the settles, with the reserve's space if it must be, and no accepts."""
        fault = self._database.commit(batch.settles) if batch.settles else None
        if fault is Fault.DISK_FULL:
            self._full_at = time.monotonic()
            if self._reserve.held:
                self._reserve.release()
                self._database.checkpoint()
                fault = Fault.IO_ERROR if self._database.fatal else self._database.commit(batch.settles)
        if fault is Fault.IO_ERROR:
            return
        if fault is Fault.DISK_FULL:
            # At the end there is no later: what is not struck off will be sent again, which is the promise.
            self._stuck = Part() if self._closing else batch.settles
        self.settles_stuck = bool(self._stuck)
        if fault is None and batch.settles:
            self._call(self._answer, (batch.settles,), None)
        if batch.accepts:
            self._call(self._answer, (batch.accepts,), Fault.DISK_FULL)

    def _tidy(self) -> None:
        """Use a moment without work: make the reserve again, empty the log, give unused pages back."""
        self._shrinks = False
        if not self._reserve.held and not self._reserve.make():
            self._database.shrink(is_needed=True)
            self._database.checkpoint()
        elif self._database.has_log():
            self._database.checkpoint()
        else:
            self._shrinks = self._database.shrink()

    def _call(self, call: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:  # the loop was closed: nobody is left to hear it
            pass

    def _answer(self, parts: tuple[Part, ...], fault: Fault | None) -> None:
        """Call everybody who waited; one that raises does not keep the others from hearing."""
        for part in parts:
            for done in part.dones:
                try:
                    done(fault)
                except Exception as error:
                    self._loop.call_exception_handler({"message": "a spool callback failed", "exception": error})
        if fault is None:
            self.signals.tell()
