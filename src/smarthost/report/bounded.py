"""Keeps the number of a label's values bounded: the first or the largest have their names, the rest is "other"."""

from collections import Counter
from collections.abc import Iterable, Mapping

MAX_VALUES = 200  # of `site` and of `user`: contract
OTHER = "other"


def first_values(values: Iterable[str], limit: int = MAX_VALUES) -> frozenset[str]:
    """Choose the values that came first. For counters: a name once shown keeps its own count, which never goes down."""
    chosen: dict[str, None] = {}
    for value in values:
        if value not in chosen:
            if len(chosen) == limit:
                break
            chosen[value] = None
    return frozenset(chosen)


def largest_values(sizes: Mapping[str, float], limit: int = MAX_VALUES) -> frozenset[str]:
    """Choose the values with the largest sizes. For gauges: what is large is what an operator looks for."""
    if len(sizes) <= limit:
        return frozenset(sizes)
    return frozenset(value for value, _ in Counter(dict(sizes)).most_common(limit))


def fold(value: str, chosen: frozenset[str]) -> str:
    """Give the label for a value: itself if it was chosen, else "other"."""
    return value if value in chosen else OTHER
