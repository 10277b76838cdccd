"""Status: what /metrics, /healthz and /readyz show of the relay, joined to the server that shows it."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from smarthost.assembly import Relay
from smarthost.report.gauges import GaugeReader, Gauges
from smarthost.report.metrics import RelayCollector, make_registry
from smarthost.report.status_http import PAGES, Answer, HandOver, Probe, StatusServer


class Probes(NamedTuple):
    """What is asked when a page is shown: reasons against health and readiness, the loop's lag in seconds, and how many
    lines of the log were dropped. All are called from other threads.
    """

    healthy: Probe
    ready: Probe
    lag: Callable[[], float]
    dropped: Callable[[], int]


class Status:
    """The status pages of a relay. `pages` gives each by its path, for an Accept field, from a thread."""

    def __init__(
        self, relay: Relay, probes: Probes, hand_over: HandOver, accounts: Callable[[], Sequence[str]]
    ) -> None:
        """Bind to the address of the configuration and answer; raises OSError or ValueError.

        `accounts` gives the names of upstream accounts, from another thread.
        """
        config = relay.config
        collector = RelayCollector(
            relay.counters,
            GaugeReader(partial(take_gauges, relay), relay.loop),
            probes.lag,
            probes.dropped,
            listeners=[listener.address for listener in config.listeners],
            routes=list(relay.rules.routing.routes),
        )
        collector.accounts = accounts
        registry = make_registry(collector)
        self._server = StatusServer(config.http_address, registry, probes.healthy, probes.ready, hand_over)
        self.address = self._server.address
        self.pages: dict[str, Callable[[str], Answer]] = {path: partial(self._server.answer, path) for path in PAGES}

    def close(self) -> None:
        """Stop answering."""
        self._server.close()


async def take_gauges(relay: Relay) -> Gauges:
    """Measure what is shown as gauges."""
    spool, now = relay.spool, relay.clock()
    counts = await spool.count()
    arrivals = {"active": await spool.oldest(), "parked": await spool.oldest(parked=True)}
    connections: dict[tuple[str, str], int] = {}
    dispatchers, places, questions = relay.dispatchers, relay.sharing.total, relay.questions
    for name, dispatcher in dispatchers.items():
        connections[name, "busy"] = len(dispatcher.transfers) - dispatcher.idle_sessions
        connections[name, "idle"] = dispatcher.idle_sessions
        connections[name, "opening"] = dispatcher.opening
    return Gauges(
        queue_messages={state: number for state, number in counts.items() if state != "total"},
        queue_oldest={state: max(now - at, 0.0) for state, at in arrivals.items() if at is not None},
        site_queue={name: len(each.ready.todo) for name, each in dispatchers.items()},
        site_connections=connections,
        site_suspended={
            name: int(max(each.ready.window.until, each.ready.suspended_until) > now)
            for name, each in dispatchers.items()
        },
        delivery_connections={"taken": places.taken, "allowed": places.most},
        delivery_sites_waiting=places.waiting,
        dns_questions={"running": questions.running, "waiting": questions.waiting},
        disk_free_ratio=spool.free_space().ratio,
    )
