"""Makes the peers that tests talk to importable."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))
