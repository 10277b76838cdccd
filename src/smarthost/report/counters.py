"""Counters: plain integers and lists that the parts bump; what scrapes them pays for the looks."""

from bisect import bisect_left
from collections import defaultdict
from typing import Protocol

from smarthost.mail.envelope import Priority
from smarthost.mail.event import Event, Kind
from smarthost.policy.suppression import SUPPRESSED
from smarthost.report.bounded import MAX_VALUES

# Seconds; from a memory copy to a slow disk, and on to a slow upstream.
FAST_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# Seconds from accepted to relayed: the first attempt, then the steps of the usual retry schedule.
RELAY_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600, 1800, 3600, 14400, 43200, 86400)

# A name of the module each: looking a member up in its enum, or by it in a dictionary, is dear.
_ACCEPTED, _RELAYED = Kind.ACCEPTED, Kind.RELAYED
_ACTIONS = {
    Kind.DELAYED: "delayed",
    Kind.FAILED: "failed",
    Kind.EXPIRED: "failed",  # said instead of FAILED for what was given up at the end of its lifetime
}


class Histogram:
    """Counts values into buckets: `counts[i]` holds what is at most `bounds[i]`, the last one everything above."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """Start empty; the bounds go up."""
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value, in the unit of the bounds."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class CommitStats(Protocol):
    """What a spool counts about its commits, in buckets of its own bounds; `spool.stats.Stats` is one."""

    commit_seconds: list[int]
    commit_seconds_sum: float
    batch_sizes: list[int]
    batch_sizes_sum: int


class Counters:
    """What the relay has counted since its start. The event loop's thread writes (`signed` may be called from a
    signing thread: a lost count there is accepted); scraping copies.

    Events count `accepted`, `rejected`, `recipients` and `reports` (this object is a listener of the feed); nothing
    else may bump these four. All the rest is bumped by the part that knows: there is no event for it.
    """

    def __init__(self) -> None:
        """Start at nothing."""
        self.accepted: defaultdict[tuple[str, str], int] = defaultdict(int)  # listener, user
        self.rejected: defaultdict[tuple[str, str], int] = defaultdict(int)  # listener, enhanced status or "suppressed"
        self.recipients: defaultdict[tuple[str, str], int] = defaultdict(int)  # route, action
        self.attempts: defaultdict[tuple[str, str, str], int] = defaultdict(int)  # route, stage, class
        self.rate_limited: defaultdict[str, int] = defaultdict(int)  # route
        self.tls_sessions: defaultdict[tuple[str, str], int] = defaultdict(int)  # "in" or "out", version
        self.certificate_expiry: dict[tuple[str, str], float] = {}  # site, host: the Unix time, when last seen
        self.logins: defaultdict[str, int] = defaultdict(int)  # "ok", "refused", "busy"
        self.sessions: defaultdict[str, int] = defaultdict(int)  # listener
        self.open_sessions: defaultdict[str, int] = defaultdict(int)  # listener; goes up and down
        self.webhooks: defaultdict[str, int] = defaultdict(int)  # "taken", "refused", "dead"
        self.client_syncs: defaultdict[str, int] = defaultdict(int)  # "taken", "failed"
        self.bounces: defaultdict[str, int] = defaultdict(int)  # "hard", "soft", "complaint", "duplicate", ...
        self.reports = 0
        self.reports_failed = 0
        self.messages_unsigned = 0
        self.ambiguous = 0
        self.conversions: defaultdict[str, int] = defaultdict(int)  # form: "ascii_header" or "seven_bit"
        self.state_damaged: defaultdict[str, int] = defaultdict(int)  # what: "memory" or "suspensions"
        self.internal_errors: defaultdict[str, int] = defaultdict(int)  # part
        self.accept_seconds = Histogram(FAST_SECONDS)
        self._commits: tuple[CommitStats, tuple[float, ...], tuple[float, ...]] | None = None
        self.dkim_seconds = Histogram(FAST_SECONDS)
        self.relay_seconds = {str(priority): Histogram(RELAY_SECONDS) for priority in Priority}
        self.dns_seconds: dict[tuple[str, str], Histogram] = {}  # type, result

    def __call__(self, event: Event) -> None:
        """Count what an event says."""
        kind = event.event
        if kind is _RELAYED:
            self.recipients[(event.route, "relayed")] += 1
        elif kind is _ACCEPTED:
            self.accepted[(event.listener, event.user)] += 1
        elif kind in _ACTIONS:
            self.recipients[(event.route, _ACTIONS[kind])] += 1
        elif kind is Kind.REJECTED:
            reason = "suppressed" if event.reply == SUPPRESSED.text else event.status
            self.rejected[(event.listener, reason)] += 1
        elif kind is Kind.REPORTED:
            self.reports += 1

    def saw_certificate(self, site: str, host: str, expires: float | None) -> None:
        """Note when the certificate of an upstream expires (Unix time); those seen longest ago go beyond the bound."""
        self.certificate_expiry.pop((site, host), None)
        if expires is not None:
            while len(self.certificate_expiry) >= MAX_VALUES:
                del self.certificate_expiry[next(iter(self.certificate_expiry))]
            self.certificate_expiry[(site, host)] = expires

    def follow_commits(self, stats: CommitStats, seconds: tuple[float, ...], sizes: tuple[float, ...]) -> None:
        """Show a spool's own counts, with the bounds of their buckets, as our commit histograms."""
        self._commits = stats, seconds, sizes

    def commit_histograms(self) -> tuple[Histogram, Histogram]:
        """Give copies of the commits' seconds and messages; empty ones when no spool is followed."""
        if self._commits is None:
            return Histogram(()), Histogram(())
        stats, seconds, sizes = self._commits
        took, held = Histogram(seconds), Histogram(sizes)
        took.counts, took.sum = list(stats.commit_seconds), stats.commit_seconds_sum
        held.counts, held.sum = list(stats.batch_sizes), float(stats.batch_sizes_sum)
        return took, held

    def found_damaged(self, what: str, count: int = 1) -> None:
        """Count rows or files that a life before has kept and that could not be read."""
        self.state_damaged[what] += count

    def signed(self, seconds: float) -> None:
        """Count a signing and its time."""
        self.dkim_seconds.observe(seconds)

    def unsigned(self) -> None:
        """Count a message whose From domain has no key."""
        self.messages_unsigned += 1

    def observe_dns(self, record_type: str, result: str, seconds: float) -> None:
        """Count one DNS question on the wire, by record type ("MX") and result ("ok", "timeout", ...)."""
        key = (record_type, result)
        histogram = self.dns_seconds.get(key)
        if histogram is None:
            histogram = self.dns_seconds[key] = Histogram(FAST_SECONDS)
        histogram.observe(seconds)
