"""Metrics: names, labels, zeros, bounds, and scrapes while the loop writes."""

import asyncio
import threading
from collections.abc import Callable

from prometheus_client import Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from smarthost.mail.event import Event, Kind
from smarthost.report.counters import Counters, Histogram
from smarthost.report.gauges import GaugeReader, Gauges, LoopLag
from smarthost.report.metrics import RelayCollector, make_registry

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(counters: Counters, gauges: Callable[[], Gauges] = Gauges) -> tuple[dict[str, Metric], Samples]:
    """Scrape and parse with the library's own parser."""
    collector = RelayCollector(counters, gauges, lambda: 0.25, lambda: 3, ["127.0.0.1:2587"], ["relayhost"])
    families = list(text_string_to_metric_families(generate_latest(make_registry(collector)).decode()))
    samples = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }
    return {family.name: family for family in families}, samples


def value(samples: Samples, name: str, **labels: str) -> float:
    """Give one sample."""
    return samples[(f"smarthost_{name}", frozenset(labels.items()))]


def test_known_series_are_there_from_the_start() -> None:
    """Everything of the contract is exposed at once, at 0 where its labels are known, with an alert in its help."""
    families, samples = scrape(Counters())
    assert value(samples, "messages_accepted_total", listener="127.0.0.1:2587", user="") == 0
    for action in ("relayed", "delayed", "failed"):
        assert value(samples, "recipients_total", route="relayhost", action=action) == 0
    assert value(samples, "queue_messages", state="parked") == 0
    assert value(samples, "queue_oldest_seconds", state="active") == 0
    assert value(samples, "relay_seconds_count", priority="immediate") == 0
    assert value(samples, "event_loop_lag_seconds") == 0.25
    assert value(samples, "log_lines_dropped_total") == 3
    names = [
        "messages_accepted",
        "messages_rejected",
        "recipients",
        "attempts",
        "queue_messages",
        "queue_oldest_seconds",
        "site_queue",
        "site_connections",
        "site_suspended",
        "delivery_connections",
        "delivery_sites_waiting",
        "dns_questions",
        "accept_seconds",
        "relay_seconds",
        "commit_seconds",
        "commit_messages",
        "dkim_seconds",
        "dns_seconds",
        "tls_sessions",
        "disk_free_ratio",
        "event_loop_lag_seconds",
    ]
    assert {f"smarthost_{name}" for name in names} <= families.keys()
    for name, family in families.items():
        if name.startswith("smarthost_"):
            assert "lert" in family.documentation, name


def test_events_are_counted() -> None:
    """The counters that follow the feed count each kind under its labels."""
    counters = Counters()
    counters(Event(time=1, event=Kind.ACCEPTED, listener="127.0.0.1:2587", user="app1"))
    counters(Event(time=1, event=Kind.REJECTED, listener="127.0.0.1:2587", status="5.7.1"))
    counters(Event(time=1, event=Kind.RELAYED, route="relayhost"))
    counters(Event(time=1, event=Kind.EXPIRED, route="relayhost"))
    counters(Event(time=1, event=Kind.FAILED, route="relayhost"))
    counters.attempts["relayhost", "content", "2xx"] += 2
    _, samples = scrape(counters)
    assert value(samples, "messages_accepted_total", listener="127.0.0.1:2587", user="app1") == 1
    assert value(samples, "messages_rejected_total", listener="127.0.0.1:2587", reason="5.7.1") == 1
    assert value(samples, "recipients_total", route="relayhost", action="relayed") == 1
    assert value(samples, "recipients_total", route="relayhost", action="failed") == 2
    assert value(samples, "attempts_total", **{"route": "relayhost", "stage": "content", "class": "2xx"}) == 2


def test_histograms_are_cumulative() -> None:
    """A value on a bound belongs to that bucket, and the last bucket has everything."""
    counters = Counters()
    for seconds in (0.0001, 0.0002, 99.0):
        counters.accept_seconds.observe(seconds)
    counters.observe_dns("MX", "ok", 0.004)
    _, samples = scrape(counters)
    assert value(samples, "accept_seconds_bucket", le="0.0001") == 1
    assert value(samples, "accept_seconds_bucket", le="10.0") == 2
    assert value(samples, "accept_seconds_bucket", le="+Inf") == 3
    assert value(samples, "accept_seconds_sum") == 99.0003
    assert value(samples, "dns_seconds_count", type="MX", result="ok") == 1


def test_commits_are_read_from_the_spool() -> None:
    """The spool's own buckets show as our histograms."""

    class Stats:
        def __init__(self) -> None:
            self.commit_seconds = [1, 2, 3]
            self.commit_seconds_sum = 4.5
            self.batch_sizes = [0, 6]
            self.batch_sizes_sum = 60

    counters = Counters()
    counters.follow_commits(Stats(), (0.1, 1.0), (8,))
    _, samples = scrape(counters)
    assert value(samples, "commit_seconds_bucket", le="1.0") == 3
    assert value(samples, "commit_seconds_count") == 6
    assert value(samples, "commit_messages_sum") == 60


def test_labels_are_bounded() -> None:
    """Beyond 200 users or sites the rest is added up as "other", and a user once shown stays shown."""
    counters = Counters()
    for number in range(205):
        counters.accepted["127.0.0.1:2587", f"user{number}"] += 1
    queue = {f"site{number}": number for number in range(300)}
    gauges = Gauges(
        site_queue=queue,
        site_connections={(site, "idle"): 1 for site in queue},
        site_suspended=dict.fromkeys(queue, 1),
    )
    families, samples = scrape(counters, lambda: gauges)
    assert value(samples, "messages_accepted_total", listener="127.0.0.1:2587", user="user0") == 1
    assert value(samples, "messages_accepted_total", listener="127.0.0.1:2587", user="other") == 5
    assert len(families["smarthost_site_queue"].samples) == 201
    assert value(samples, "site_queue", site="site299") == 299
    assert value(samples, "site_queue", site="other") == sum(range(100))
    assert value(samples, "site_connections", site="other", state="idle") == 100
    assert value(samples, "site_suspended", site="other") == 100


def test_scraping_beside_a_writer_never_fails() -> None:
    """Dictionaries that grow while another thread scrapes raise nothing there."""
    counters = Counters()
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            counters.rejected["127.0.0.1:2587", f"5.{number % 300}.0"] += 1
            counters.observe_dns("MX", f"result{number % 50}", 0.001)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(4):
            scrape(counters)
    finally:
        stop.set()
        writer.join()


async def test_gauges_are_taken_on_the_loop() -> None:
    """A thread that scrapes gets a snapshot made on the loop, and the same one again within a second."""
    loop = asyncio.get_running_loop()
    taken = 0

    async def take() -> Gauges:
        nonlocal taken
        assert asyncio.get_running_loop() is loop
        taken += 1
        return Gauges(queue_messages={"active": taken})

    reader = GaugeReader(take, loop)
    first, second = await asyncio.to_thread(reader), await asyncio.to_thread(reader)
    assert first == second == Gauges(queue_messages={"active": 1})


async def test_lag_is_seen_from_outside() -> None:
    """While the loop hangs, another thread already sees how late it is."""
    lag = LoopLag(asyncio.get_running_loop())
    lag._expected -= 3.0
    assert 2.0 <= await asyncio.to_thread(lambda: lag.seconds) <= 3.5
    lag.stop()


def test_histogram_keeps_its_bounds() -> None:
    """A histogram has one bucket more than bounds."""
    histogram = Histogram((1.0, 2.0))
    for seconds in (0.5, 1.0, 1.5, 2.5):
        histogram.observe(seconds)
    assert histogram.counts == [2, 1, 1]
    assert histogram.sum == 5.5
