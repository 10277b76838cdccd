"""Gives tests a relay with an HTTP door that is closed afterwards."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from http_house import HttpHouse


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[HttpHouse]:
    """Give a relay that is not open yet; it is closed afterwards."""
    made = HttpHouse(tmp_path / "data")
    yield made
    if hasattr(made, "server"):
        await made.close()
