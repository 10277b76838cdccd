"""Waiting: how often a message is looked at while somebody waits for its end."""

from collections.abc import Iterator

_FIRST, _LONGEST, _GROWTH = 0.1, 5.0, 1.5


def waits() -> Iterator[float]:
    """Give the seconds between one look and the next, which grow."""
    wait = _FIRST
    while True:
        yield wait
        wait = min(wait * _GROWTH, _LONGEST)
