"""Progress: a bar on standard error while something takes its time; nothing where nobody looks at a terminal."""

import shutil
import sys
import time

_EVERY = 0.1  # seconds between two looks of the bar
_WIDEST = 40  # characters of the bar itself


class Progress:
    """One line that is written over again. Used as a context, so that it is gone at the end, whatever happens."""

    def __init__(self, label: str, total: int, is_shown: bool | None = None) -> None:
        """Be ready; `is_shown` None is where standard error is a terminal."""
        self._label, self._total = label, total
        self._is_shown = sys.stderr.isatty() if is_shown is None else is_shown
        self._last = float("-inf")

    def __enter__(self) -> "Progress":
        """Show nothing yet."""
        return self

    def show(self, count: int, more: str = "") -> None:
        """Show how much is done, ten times a second at most."""
        now = time.monotonic()
        if not self._is_shown or (now - self._last < _EVERY and count < self._total):
            return
        self._last = now
        columns = shutil.get_terminal_size().columns
        line = format_bar(self._label, count, self._total, more, columns - 1)
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)

    def __exit__(self, *_: object) -> None:
        """Wipe the line."""
        if self._is_shown and self._last != float("-inf"):
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def format_bar(label: str, count: int, total: int, more: str, columns: int) -> str:
    """Write a bar of at most so many columns: "sending [####....] 4,000 of 8,000"."""
    part = min(max(count / total, 0.0), 1.0) if total else 1.0
    words = f"{count:,} of {total:,}{f', {more}' if more else ''}"
    width = min(_WIDEST, columns - len(label) - len(words) - 4)
    if width < 5:
        return f"{label} {words}"[:columns]
    filled = int(part * width)
    return f"{label} [{'#' * filled}{'.' * (width - filled)}] {words}"
