"""Metrics: shows counters and gauges to Prometheus; every help text says what to alert on."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from smarthost import __version__
from smarthost.report.account_metrics import collect_accounts
from smarthost.report.bounded import first_values, fold, largest_values
from smarthost.report.counters import Counters, Histogram
from smarthost.report.gauges import Gauges
from smarthost.report.metric_help import HELP

_Value = TypeVar("_Value")
_STATES = ("active", "parked")
_ACTIONS = ("relayed", "delayed", "failed")
_BOUNCES = ("hard", "soft", "complaint", "duplicate", "unknown", "relayed", "unparsed")


class RelayCollector(Collector):
    """Reads counters and gauges whenever somebody scrapes; runs on the scraping thread.

    No lock: a dict or list is copied in one step of the interpreter, and only the loop's thread writes, so a scrape
    sees a moment that is right for each metric, if not exactly the same moment for all.
    """

    def __init__(
        self,
        counters: Counters,
        gauges: Callable[[], Gauges],
        lag: Callable[[], float],
        log_dropped: Callable[[], int],
        listeners: Sequence[str] = (),
        routes: Sequence[str] = (),
    ) -> None:
        """Show these; the series of known listeners and routes are there from the start, at 0.

        `accounts`, which the assembly may set, gives the labels of those that there are now.
        """
        self._counters = counters
        self._gauges = gauges
        self._lag = lag
        self._log_dropped = log_dropped
        self._listeners = tuple(listeners)
        self._routes = tuple(routes)
        self.accounts: Callable[[], Sequence[str]] = tuple

    def collect(self) -> Iterator[Metric]:
        """Give every metric of the relay."""
        yield InfoMetricFamily("smarthost_build", "Version of smarthost. No alert.", {"version": __version__})
        yield from self._collect_counters()
        yield from self._collect_histograms()
        yield from self._collect_gauges()

    def _collect_counters(self) -> Iterator[Metric]:
        counters = self._counters
        accepted = dict(counters.accepted)
        users = first_values(user for _, user in accepted)
        folded: defaultdict[tuple[str, str], float] = defaultdict(float, {(name, ""): 0 for name in self._listeners})
        for (listener, user), count in accepted.items():
            folded[(listener, fold(user, users))] += count
        yield _counter("messages_accepted", ("listener", "user"), folded)
        yield _counter("messages_rejected", ("listener", "reason"), dict(counters.rejected))
        recipients = {(route, action): 0 for route in self._routes for action in _ACTIONS}
        yield _counter("recipients", ("route", "action"), recipients | dict(counters.recipients))
        yield _counter("rate_limited", ("route",), _single(dict.fromkeys(self._routes, 0) | counters.rate_limited))
        yield _counter("attempts", ("route", "stage", "class"), dict(counters.attempts))
        yield _counter("tls_sessions", ("direction", "version"), dict(counters.tls_sessions))
        yield _counter("logins", ("result",), _single({"ok": 0, "refused": 0, "busy": 0} | dict(counters.logins)))
        known = dict.fromkeys(self._listeners, 0)
        yield _counter("sessions", ("listener",), _single(known | dict(counters.sessions)))
        yield _gauge("sessions_open", ("listener",), _single(known | dict(counters.open_sessions)))
        webhooks = {"taken": 0, "refused": 0, "dead": 0} | counters.webhooks
        yield _counter("webhooks", ("result",), _single(webhooks))
        yield _counter("client_syncs", ("result",), _single({"taken": 0, "failed": 0} | counters.client_syncs))
        yield _counter("bounces", ("result",), _single(dict.fromkeys(_BOUNCES, 0) | counters.bounces))
        yield _counter("reports", (), {(): counters.reports})
        yield _counter("reports_failed", (), {(): counters.reports_failed})
        yield _counter("messages_unsigned", (), {(): counters.messages_unsigned})
        yield _counter("ambiguous", (), {(): counters.ambiguous})
        yield _counter("conversions", ("form",), _single({"ascii_header": 0, "seven_bit": 0} | counters.conversions))
        damaged = {"memory": 0, "suspensions": 0} | counters.state_damaged
        yield _counter("state_damaged", ("what",), _single(damaged))
        yield _counter("internal_errors", ("part",), _single(dict(counters.internal_errors)))
        yield _counter("log_lines_dropped", (), {(): self._log_dropped()})

    def _collect_histograms(self) -> Iterator[Metric]:
        counters = self._counters
        yield _histogram("accept_seconds", (), {(): counters.accept_seconds})
        yield _histogram("relay_seconds", ("priority",), _single(counters.relay_seconds))
        commit_seconds, commit_messages = counters.commit_histograms()
        yield _histogram("commit_seconds", (), {(): commit_seconds})
        yield _histogram("commit_messages", (), {(): commit_messages})
        yield _histogram("dkim_seconds", (), {(): counters.dkim_seconds})
        yield _histogram("dns_seconds", ("type", "result"), dict(counters.dns_seconds))

    def _collect_gauges(self) -> Iterator[Metric]:
        gauges, counters = self._gauges(), self._counters
        pending = sum(gauges.queue_messages.values())
        yield from collect_accounts(dict(counters.recipients), dict(counters.rate_limited), self.accounts(), pending)
        yield _gauge("queue_messages", ("state",), _single(dict.fromkeys(_STATES, 0) | gauges.queue_messages))
        yield _gauge("queue_oldest_seconds", ("state",), _single(dict.fromkeys(_STATES, 0.0) | gauges.queue_oldest))
        sizes: defaultdict[str, float] = defaultdict(float, gauges.site_queue)
        for (site, _), count in gauges.site_connections.items():
            sizes[site] += count
        for site, suspended in gauges.site_suspended.items():
            sizes[site] += suspended
        sites = largest_values(sizes)
        queue: defaultdict[tuple[str, ...], float] = defaultdict(float)
        for site, count in gauges.site_queue.items():
            queue[(fold(site, sites),)] += count
        yield _gauge("site_queue", ("site",), queue)
        connections: defaultdict[tuple[str, ...], float] = defaultdict(float)
        for (site, state), count in gauges.site_connections.items():
            connections[(fold(site, sites), state)] += count
        yield _gauge("site_connections", ("site", "state"), connections)
        suspensions: defaultdict[tuple[str, ...], float] = defaultdict(float)
        for site, suspended in gauges.site_suspended.items():
            suspensions[(fold(site, sites),)] += suspended
        yield _gauge("site_suspended", ("site",), suspensions)
        yield _gauge("delivery_connections", ("state",), _single(gauges.delivery_connections))
        yield _gauge("delivery_sites_waiting", (), {(): gauges.delivery_sites_waiting})
        yield _gauge("dns_questions", ("state",), _single(gauges.dns_questions))
        expiry = dict(self._counters.certificate_expiry)
        yield _gauge("upstream_certificate_expiry_timestamp_seconds", ("site", "host"), expiry)
        yield _gauge("disk_free_ratio", (), {(): gauges.disk_free_ratio})
        yield _gauge("event_loop_lag_seconds", (), {(): self._lag()})


def make_registry(collector: Collector) -> CollectorRegistry:
    """Build a registry of its own (the default one is global), with the process's memory and CPU beside ours."""
    registry = CollectorRegistry()
    registry.register(collector)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def _single(values: Mapping[str, _Value]) -> dict[tuple[str], _Value]:
    return {(value,): count for value, count in values.items()}


def _counter(name: str, labels: Sequence[str], values: Mapping[Any, float]) -> Metric:
    family = CounterMetricFamily(f"smarthost_{name}", HELP[name], labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _gauge(name: str, labels: Sequence[str], values: Mapping[Any, float]) -> Metric:
    family = GaugeMetricFamily(f"smarthost_{name}", HELP[name], labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _histogram(name: str, labels: Sequence[str], values: Mapping[Any, Histogram]) -> Metric:
    family = HistogramMetricFamily(f"smarthost_{name}", HELP[name], labels=labels)
    for key, histogram in values.items():
        total = histogram.sum
        family.add_metric(key, _cumulative(histogram.bounds, list(histogram.counts)), total)
    return family


def _cumulative(bounds: Iterable[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    buckets: list[tuple[str, float]] = []
    total = 0
    for bound, count in zip((*bounds, float("inf")), counts, strict=True):
        total += count
        buckets.append(("+Inf" if bound == float("inf") else str(float(bound)), total))
    return buckets
