"""Questions to name servers take turns: so many at a time, and slow answers do not hold back quick ones."""

import asyncio

import dns.asyncresolver
import pytest

from smarthost.network import dns_turns
from smarthost.network.dns_query import Records
from smarthost.network.dns_turns import Questions

STUB = dns.asyncresolver.Resolver(configure=False)


class Servers:
    """Name servers that answer when a test says so."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, asyncio.Event] = {}

    async def ask(self, stub: dns.asyncresolver.Resolver, name: str, rdtype: str) -> Records:
        """Wait for the test's word."""
        self.asked.append(name)
        await self.answers.setdefault(name, asyncio.Event()).wait()
        return Records(ttl=1.0)

    def answer(self, name: str) -> None:
        """Let a question be answered."""
        self.answers.setdefault(name, asyncio.Event()).set()


async def asked(servers: Servers, number: int) -> None:
    """Wait until so many were asked."""
    async with asyncio.timeout(5):
        while len(servers.asked) < number:
            await asyncio.sleep(0.005)


async def test_so_many_at_a_time_in_their_order() -> None:
    """The third waits until one of the first two has its answer, or its asker does not want it any more."""
    servers = Servers()
    questions = Questions(servers.ask, prompt=2, slow=0)
    tasks = [asyncio.ensure_future(questions.ask(STUB, name, "A")) for name in "abcd"]
    await asked(servers, 2)
    assert (servers.asked, questions.running, questions.waiting) == (["a", "b"], 2, 2)
    servers.answer("b")
    await asked(servers, 3)
    tasks[0].cancel()
    await asked(servers, 4)
    assert servers.asked == ["a", "b", "c", "d"]
    for name in "cd":
        servers.answer(name)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (questions.running, questions.waiting) == (0, 0)


async def test_who_gets_no_answer_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two dead names hold the two turns for a moment only; when too many are dead, the bound of all holds."""
    monkeypatch.setattr(dns_turns, "MOMENT", 0.05)
    servers = Servers()
    questions = Questions(servers.ask, prompt=2, slow=3)
    tasks = [asyncio.ensure_future(questions.ask(STUB, f"dead{at}", "A")) for at in range(9)]
    await asked(servers, 5)
    await asyncio.sleep(0.2)
    assert len(servers.asked) == 5 == questions.running and questions.waiting == 4
    servers.answer("dead0")
    await asked(servers, 6)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (questions.running, questions.waiting) == (0, 0)
    servers.answer("x")
    assert await questions.ask(STUB, "x", "A") == Records(ttl=1.0)
