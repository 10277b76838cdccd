"""smarthost doctor: another name of smarthost diagnose."""

from smarthost.cli.diagnose import configure, run

__all__ = ["configure", "run"]
