"""Following: where a stream of events is, and when it is opened again after it broke; no socket."""

from random import Random

from smarthost.client.events import Event, Frames, open_stream
from smarthost.client.faults import Unreachable, Unreadable
from smarthost.client.settings import Settings
from smarthost.client.trial import Answer, Prepared, Trial, prepare


class Following:
    """A stream of events that is opened as often as it takes. It goes on behind the last event that was read."""

    def __init__(self, cursor: int, settings: Settings, chance: Random) -> None:
        """Begin behind a cursor."""
        self._cursor, self._settings, self._chance = cursor, settings, chance
        self._frames = Frames()
        self._trial = self._begin()

    @property
    def request(self) -> Prepared:
        """What is asked next."""
        return prepare(open_stream(self._cursor), self._settings)

    def opened(self) -> None:
        """Read from a new connection."""
        self._frames = Frames()

    def feed(self, octets: bytes) -> list[Event]:
        """Give the events that are complete; raises Unreadable."""
        # Whoever says something is there: patience begins anew.
        self._trial = self._begin()
        events = self._frames.feed(octets)
        if events:
            self._cursor = events[-1].cursor
        return events

    def broke(self, fault: Unreachable) -> float:
        """Give for how many seconds to wait; raises the fault when it broke too often without a word."""
        return self._trial.broke(fault)

    def refused(self, answer: Answer, now: float) -> float:
        """Give for how many seconds to wait; raises ApiError where waiting does not help."""
        wait = self._trial.heard(answer, now)
        if wait is None:
            raise Unreadable(f"{answer.status} is no answer to a stream of events")
        return wait

    def _begin(self) -> Trial[None]:
        return Trial(open_stream(self._cursor), self._settings, self._chance)
