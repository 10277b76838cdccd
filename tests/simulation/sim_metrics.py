"""Whether the metrics tell the truth: what a life of the relay has counted is what it has brought to disk."""

from collections import Counter

from smarthost.mail.event import Event, Kind
from smarthost.report.counters import Counters

IN_FLIGHT = 0.01  # seconds before a crash in which what came to disk may not have been counted
_ACTIONS = {
    Kind.RELAYED: "relayed",
    Kind.DELAYED: "delayed",
    Kind.FAILED: "failed",
    Kind.EXPIRED: "failed",
}
_What = tuple[str, ...]


class Metrics:
    """Adds up the events on disk of the life that runs, in the words of the metrics, and of all lives (`ever`)."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.ever: Counter[_What] = Counter()
        self._life: Counter[_What] = Counter()
        self._last: list[tuple[float, _What]] = []

    def told(self, event: Event, now: float) -> None:
        """Take an event that is on disk now."""
        what: _What
        if event.event is Kind.ACCEPTED:
            what = ("accepted", event.listener, event.user)
        elif event.event is Kind.REPORTED:
            what = ("reports",)
        elif event.event in _ACTIONS:
            what = ("recipients", event.route, _ACTIONS[event.event])
        else:
            return
        self.ever[what[0], what[-1]] += 1
        self._life[what] += 1
        self._last = [each for each in self._last if each[0] > now - IN_FLIGHT]
        self._last.append((now, what))

    def ended(self, counters: Counters, now: float, *, is_crash: bool) -> list[str]:
        """Compare at the end of a life; gives what is wrong, in sentences.

        What a peer has said is counted at once, so that a crash finds more counted than it leaves on disk.
        """
        counted: Counter[_What] = Counter({("reports",): counters.reports})
        counted.update({("accepted", *key): number for key, number in counters.accepted.items()})
        counted.update({("recipients", *key): number for key, number in counters.recipients.items()})
        on_disk, self._life = self._life, Counter()
        recent = Counter(what for at, what in self._last if is_crash and at > now - IN_FLIGHT)
        self._last = []
        wrong = [
            f"the metrics have {counted[what]} {' '.join(what)}, and {on_disk[what]} are on disk"
            for what in sorted(counted.keys() | on_disk.keys())
            if counted[what] < on_disk[what] - recent[what] or (counted[what] > on_disk[what] and not is_crash)
        ]
        relayed = sum(number for (_, action), number in counters.recipients.items() if action == "relayed")
        timed = sum(sum(each.counts) for each in counters.relay_seconds.values())
        if relayed != timed:
            wrong.append(f"the metrics have {relayed} relayed recipients, and the times of {timed}")
        return wrong
