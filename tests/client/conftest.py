"""Gives tests of the client a relay, a server that misbehaves, and each of the two clients in turn."""

import asyncio
import inspect
import sys
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "http"))

from http_house import HttpHouse
from odd_server import OddServer

from smarthost.client import AsyncClient, Client


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[HttpHouse]:
    """Give a relay that is not open yet; it is closed afterwards."""
    made = HttpHouse(tmp_path / "data")
    yield made
    if hasattr(made, "server"):
        await made.close()


@pytest.fixture
async def odd() -> AsyncIterator[OddServer]:
    """Give a server that does what a test plans; it is open."""
    made = OddServer()
    await made.open()
    yield made
    await made.close()


class Hand:
    """Makes clients of one kind, and calls them as their kind is called."""

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make
        self._made: list[Any] = []

    def client(self, url: str, key: str = "sh_key", **settings: Any) -> Any:
        """Make a client."""
        made = self._make(url, key, **settings)
        self._made.append(made)
        return made

    async def call(self, method: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Call a method of a client; the one that waits does so in a thread."""
        given = await asyncio.to_thread(method, *arguments, **named)
        return await given if inspect.isawaitable(given) else given

    async def first(self, listing: Iterable[Any] | AsyncIterable[Any], count: int = 1_000_000) -> list[Any]:
        """Give what is first in a list, or all of it."""
        found: list[Any] = []
        if isinstance(listing, AsyncIterable):
            iterator = aiter(listing)
            async for each in iterator:
                found.append(each)
                if len(found) == count:
                    break
            if hasattr(iterator, "aclose"):
                await iterator.aclose()
            return found

        def read() -> None:
            for each in listing:
                found.append(each)
                if len(found) == count:
                    break

        await asyncio.to_thread(read)
        return found

    async def close(self) -> None:
        """Close all clients that were made."""
        for each in self._made:
            await self.call(each.close)


@pytest.fixture(params=[Client, AsyncClient], ids=["waiting", "async"])
async def hand(request: pytest.FixtureRequest) -> AsyncIterator[Hand]:
    """Give the two kinds of clients, one after the other."""
    made = Hand(request.param)
    yield made
    await made.close()


@pytest.fixture(autouse=True)
def _no_key_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SMARTHOST_API_KEY", raising=False)
    monkeypatch.delenv("SMARTHOST_URL", raising=False)
