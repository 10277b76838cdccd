"""Makes the peers that tests talk to importable, and gives what several of them need."""

import sys
from pathlib import Path

import pytest
import trustme

sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))


@pytest.fixture
def authority() -> trustme.CA:
    """Give the authority that is trusted."""
    return trustme.CA()
