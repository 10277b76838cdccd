"""Spools of both kinds for the contract, and of SQLite's kind for what only a disk can do."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from spool_samples import NOW, Opener

from smarthost.spool.memory import MemorySpool
from smarthost.spool.sqlite import SqliteSpool, Tuning
from smarthost.spool.store import Spool


@pytest.fixture
async def open_sqlite(tmp_path: Path) -> AsyncIterator[Opener]:
    """Open SQLite spools in a folder, the test's own by default; those left open are closed at the end."""
    opened: list[SqliteSpool] = []

    def opener(folder: Path | None = None, tuning: Tuning | None = None, fatal: list[str] | None = None) -> SqliteSpool:
        told = [] if fatal is None else fatal
        spool = SqliteSpool.open(
            folder or tmp_path / "spool",
            loop=asyncio.get_running_loop(),
            clock=lambda: NOW,
            on_fatal=told.append,
            tuning=tuning,
        )
        opened.append(spool)
        return spool

    yield opener
    for spool in opened:
        await spool.close()


@pytest.fixture(params=["sqlite", "memory"])
async def spool(request: pytest.FixtureRequest, open_sqlite: Opener) -> Spool:
    """Give an empty spool of each kind."""
    if request.param == "sqlite":
        return open_sqlite()
    return MemorySpool(asyncio.get_running_loop(), lambda: NOW)
