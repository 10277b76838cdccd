"""Bookkeeper: has the spool write what rates remember and what was noted, and reads it at the start."""

import asyncio
import logging
from collections.abc import Callable

from smarthost.policy.ledger import Ledger
from smarthost.policy.notes import PREFIX, Notes
from smarthost.spool.store import Spool

log = logging.getLogger(__name__)


class Bookkeeper:
    """Joins a ledger, notes and a spool; rows go with the next settles.

    `ledger` is what limits are asked for at; `notes` are what was learned of sites and logins. At the start `recall`
    is called to take what the notes say, and `damaged` with the number of rows that could not be read.
    """

    def __init__(self, ledger: Ledger, spool: Spool, clock: Callable[[], float]) -> None:
        """Listen to the ledger and to notes of its own; nothing is written before `start`."""
        self.ledger, self.notes, self._spool, self._clock = ledger, Notes(), spool, clock
        self.recall: Callable[[], None] = lambda: None
        self.damaged: Callable[[int], None] = lambda count: None
        self._is_asked = self._is_started = False
        ledger.ask = self.notes.ask = self._asked

    async def start(self) -> None:
        """Restore what a life before has kept; to be called before anything is limited.

        A row that cannot be read is an error in the log and is forgotten: mail is not kept from going for it.
        """
        states = await self._spool.limit_states()
        noted = [state for state in states if state.name.startswith(PREFIX)]
        if states or self._spool.last_id:
            self.ledger.restore([state for state in states if not state.name.startswith(PREFIX)], self._clock())
        self.notes.restore(noted)
        self.recall()
        if damaged := [*self.ledger.damaged, *self.notes.damaged]:
            log.error("what was remembered cannot be read and is forgotten: %s", "; ".join(damaged))
            self.damaged(len(damaged))
        self._is_started = True
        self._write()

    def stop(self) -> None:
        """Write exactly what is remembered, once nothing is sent any more and before the spool closes."""
        states, _ = self.ledger.write(self._clock(), is_last=True)
        states += self.notes.write()
        if states:
            self._spool.keep_limits(states, lambda fault: None)

    def _asked(self) -> None:
        if self._is_started and not self._is_asked:
            self._is_asked = True
            asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        self._is_asked = False
        states, kept = self.ledger.write(self._clock())
        states += self.notes.write()
        if states:
            self._spool.keep_limits(states, lambda fault: kept() if fault is None else None)
