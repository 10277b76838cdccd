"""Bookkeeper: has the spool write what rates remember, beside whatever else is written, and reads it at the start."""

import asyncio
from collections.abc import Callable

from smarthost.policy.ledger import Ledger
from smarthost.spool.store import Spool


class Bookkeeper:
    """Joins a ledger and a spool. `ledger` is what limits are asked for at; rows go with the next settles."""

    def __init__(self, ledger: Ledger, spool: Spool, clock: Callable[[], float]) -> None:
        """Listen to the ledger; nothing is written before `start`."""
        self.ledger, self._spool, self._clock = ledger, spool, clock
        self._is_asked = self._is_started = False
        ledger.ask = self._asked

    async def start(self) -> None:
        """Restore what a life before has kept; to be called before anything is limited."""
        states = await self._spool.limit_states()
        if states or self._spool.last_id:
            self.ledger.restore(states, self._clock())
        self._is_started = True
        self._write()

    def stop(self) -> None:
        """Write exactly what is remembered, once nothing is sent any more and before the spool closes."""
        states, _ = self.ledger.write(self._clock(), is_last=True)
        if states:
            self._spool.keep_limits(states, lambda fault: None)

    def _asked(self) -> None:
        if self._is_started and not self._is_asked:
            self._is_asked = True
            asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        self._is_asked = False
        states, kept = self.ledger.write(self._clock())
        if states:
            self._spool.keep_limits(states, lambda fault: kept() if fault is None else None)
