"""Gives tests a relay that is closed afterwards."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from relay_house import House


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    """Give a relay that is not open yet; it is closed afterwards."""
    made = House(tmp_path / "data")
    yield made
    if hasattr(made, "server"):
        await made.close()
