"""Write and read the times that people and programs see: RFC 3339, UTC, with milliseconds."""

import time
from datetime import datetime
from functools import lru_cache


def format_time(at: float) -> str:
    """Write a Unix time in seconds as "2026-01-31T12:00:00.250Z"."""
    second, millisecond = divmod(int(at * 1000), 1000)
    return f"{_whole_second(second)}.{millisecond:03d}Z"


def format_end(at: float | None) -> str | None:
    """Write when something ends; None where it does not: None, or an infinite time."""
    return None if at is None or at == float("inf") else format_time(at)


def parse_time(text: str) -> float:
    """Read an RFC 3339 time as Unix seconds; raises ValueError when it is none."""
    return datetime.fromisoformat(text).timestamp()


# A busy relay writes thousands of lines in one second: the calendar is asked once for all.
@lru_cache(maxsize=64)
def _whole_second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
