"""Bounds the questions that name servers are asked at a time, so that slow answers do not hold back quick ones."""

import asyncio

import dns.asyncresolver

from smarthost.network.dns_query import Ask, Records

PROMPT = 256  # questions at a time that have been asked just now
SLOW = 768  # questions beside them that have been waiting for their answer for longer than a moment
MOMENT = 1.0  # seconds


class Questions:
    """Puts questions to name servers, each when its turn comes. Mutable; each has a socket of its own.

    `running` counts those that are out, `waiting` those whose turn has not come. One that has had no answer within a
    moment makes room for the next, as long as not too many are such.
    """

    def __init__(self, ask: Ask, prompt: int = PROMPT, slow: int = SLOW) -> None:
        """Begin with nothing asked; `ask` puts one question."""
        self.running = self.waiting = 0
        self._put, self._turns = ask, asyncio.Semaphore(prompt)
        self._slow, self._most_slow = 0, slow
        self._late: dict[_Asked, None] = {}  # a set that keeps its order: those that should make room and cannot

    async def ask(self, stub: dns.asyncresolver.Resolver, name: str, rdtype: str) -> Records:
        """Put one question, in the order of those that wait; gives what `ask` gives."""
        self.waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self.waiting -= 1
        self.running += 1
        asked = _Asked()
        timer = asyncio.get_running_loop().call_later(MOMENT, self._make_room, asked)
        try:
            return await self._put(stub, name, rdtype)
        finally:
            timer.cancel()
            self.running -= 1
            if not asked.is_slow:
                self._late.pop(asked, None)
                self._turns.release()
            else:
                self._slow -= 1
                if self._late:
                    self._make_room(next(iter(self._late)))

    def _make_room(self, asked: "_Asked") -> None:
        if self._slow >= self._most_slow:
            self._late[asked] = None
            return
        self._late.pop(asked, None)
        self._slow += 1
        asked.is_slow = True
        self._turns.release()


class _Asked:
    """One question that is out."""

    __slots__ = ("is_slow",)

    def __init__(self) -> None:
        self.is_slow = False
