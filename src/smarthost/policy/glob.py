"""Turns shell globs into one regular expression, so that a list of patterns costs one match."""

import re
from collections.abc import Iterable
from functools import lru_cache


def compile_globs(globs: Iterable[str]) -> re.Pattern[str]:
    """Compile globs into a pattern for `fullmatch` that matches what any of them matches, in any case.

    `*` stands for any text, `?` for one character; all else, brackets too, stands for itself, since an address
    literal is written in brackets. No glob at all matches nothing.
    """
    return _compile(tuple(globs))


# A pure function remembered: its answers depend on nothing but its arguments.
@lru_cache(maxsize=4096)
def _compile(globs: tuple[str, ...]) -> re.Pattern[str]:
    if not globs:
        return re.compile(r"(?!)")
    return re.compile("|".join(_translate(glob) for glob in globs), re.IGNORECASE | re.DOTALL)


def _translate(glob: str) -> str:
    return re.sub(r"(?:\\\*)+", ".*", re.escape(glob)).replace(r"\?", ".")
