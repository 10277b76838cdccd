"""Pauses: what is left alone for a while, and why: hosts and logins that refused us, addresses that gave no answer."""

from typing import Generic, TypeVar

_Cause = TypeVar("_Cause")
_MOST = 10_000  # places; what has ended is then dropped, and the oldest tenth where that is not enough


class Pauses(Generic[_Cause]):
    """Places that are left alone until a time, each with its cause. Mutable, and bounded; times are Unix seconds."""

    def __init__(self) -> None:
        """Start with nothing paused."""
        self._paused: dict[str, tuple[float, _Cause]] = {}

    def pause(self, place: str, until: float, cause: _Cause, now: float) -> None:
        """Leave a place alone until a time; a longer pause stays."""
        if len(self._paused) >= _MOST:
            self._paused = {name: pause for name, pause in self._paused.items() if pause[0] > now}
            if len(self._paused) >= _MOST:
                for name in tuple(self._paused)[: _MOST // 10]:
                    del self._paused[name]
        known = self._paused.get(place)
        if known is None or known[0] < until:
            self._paused[place] = (until, cause)

    def cause(self, place: str, now: float) -> tuple[float, _Cause] | None:
        """Give until when a place is paused, and why; None when it is not."""
        known = self._paused.get(place)
        if known is None or known[0] <= now:
            return None
        return known

    def is_paused(self, place: str, now: float) -> bool:
        """Whether a place is left alone now."""
        return self.cause(place, now) is not None

    def resume(self, place: str) -> None:
        """End a pause early: the place is well again."""
        self._paused.pop(place, None)

    def clear(self) -> None:
        """End all pauses, as after a reload: hosts and logins may have been mended."""
        self._paused.clear()
