"""Makes the peers that tests talk to importable, runs the transfer's tests on both event loops, and joins a `Way`."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
import trustme
import uvloop

sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))

from dns_server import Clock, DnsServer, dns_server
from tls_way import Way

LoopFactories = Mapping[str, Callable[[], asyncio.AbstractEventLoop]]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> LoopFactories:
    """Give the loops of a test: both for the transfer, asyncio's for the rest."""
    if item.path.name.startswith("test_transfer"):
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


@pytest.fixture
def clock() -> Clock:
    """Give a clock that a test moves."""
    return Clock()


@pytest.fixture
async def zone() -> AsyncIterator[DnsServer]:
    """Serve TLSA records, as a validating resolver would."""
    async with dns_server("example. 300 IN SOA ns.example. root.example. 1 2 3 4 30") as server:
        server.is_validating = True
        yield server


@pytest.fixture
def authority() -> trustme.CA:
    """Give an authority."""
    return trustme.CA()


@pytest.fixture
def way(tmp_path: Path, authority: trustme.CA, zone: DnsServer, clock: Clock) -> Way:
    """Give what is tested."""
    return Way(tmp_path, authority, zone, clock)
