"""What all tests share: hypothesis without a deadline, since a busy machine is no fault of the code; and the peers."""

import os
import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent / "peers"))
os.environ["COLUMNS"] = "120"  # tables are as wide as the terminal, of which each worker would have its own idea

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", parent=settings.get_profile("patient"), max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "patient"))
