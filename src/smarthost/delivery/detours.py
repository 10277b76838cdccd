"""Detours: queues whose mail takes another route for a while, as a rule on replies has said."""

from collections.abc import Callable

from smarthost.mail.route import Route
from smarthost.queue.rules import site_queue


class Detours:
    """By the name of a queue: the route that its mail takes instead, and until when, a Unix time. Mutable.

    One detour may lead to the next; where they lead back to where they began there is no way round.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        """Begin with none."""
        self._clock = clock
        self._ways: dict[str, tuple[Route, float]] = {}

    def __len__(self) -> int:
        """Count the queues that are led elsewhere, or were until lately."""
        return len(self._ways)

    def lead(self, queue: str, route: Route, until: float) -> None:
        """Have the mail of a queue take a route until a time."""
        self._ways[site_queue(queue)] = route, until

    def clear(self) -> None:
        """End all detours, as at a reload, where routes may be gone."""
        self._ways.clear()

    def tidy(self, now: float) -> None:
        """Forget those whose time is over."""
        self._ways = {queue: way for queue, way in self._ways.items() if way[1] > now}

    def follow(self, route: Route, domain: str) -> Route:
        """Give the route that mail for a domain takes now: `route`, or the end of the detours that begin there."""
        return self._end(route.queue_for(domain), domain) or route

    def leads_away(self, queue: str, domain: str) -> bool:
        """Whether mail for a domain that is in a queue should leave it for another one now."""
        queue = site_queue(queue)
        return queue in self._ways and self._end(queue, domain) is not None

    def _end(self, queue: str, domain: str) -> Route | None:
        now, seen, end = self._clock(), {queue}, None
        while (way := self._ways.get(queue)) is not None and way[1] > now:
            end = way[0]
            queue = end.queue_for(domain)
            if queue in seen:
                return None
            seen.add(queue)
        return end
