"""Fixtures of the queue's tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from queue_house import House


@pytest_asyncio.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """A house that is closed afterwards."""
    made = House(tmp_path)
    yield made
    await made.close()
