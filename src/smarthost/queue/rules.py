"""Rules: what the configuration says of mail on its way in and of where it goes, replaced as a whole at a reload."""

import msgspec

from smarthost.crypto.dkim_keys import Keyring
from smarthost.mail.envelope import Recipient
from smarthost.mail.message import Message
from smarthost.mail.route import Deliver, Route
from smarthost.policy.account import ROUTE_PREFIX
from smarthost.policy.backoff import Retry
from smarthost.policy.restraints import Facts, Restraints, sender_domain, suffix_of
from smarthost.policy.routing import RoutingTable
from smarthost.policy.security import as_asked
from smarthost.queue.edit import EditRules
from smarthost.queue.return_paths import ReturnPaths

# What the names of queues have more whose mail asks something of TLS, behind what `site_queue` looks for.
_REQUIRED, _OPTIONAL = "/ requiretls", "/ tls-optional"


class Rules(msgspec.Struct, frozen=True):
    """What intake follows. `report_route` is where our own reports go, if set; `restraints` hold for parts of it;
    `return_paths` are given to mail whose bounces come back to us, None where no mail's do.
    """

    edit: EditRules
    routing: RoutingTable
    retry: Retry
    keyring: Keyring
    report_route: Route | None = None
    restraints: Restraints = msgspec.field(default_factory=Restraints)
    return_paths: ReturnPaths | None = None

    def route_for(self, message: Message, recipient: Recipient) -> Route:
        """Choose the route of one recipient of a message, as the message wants it travelled (RFC 8689)."""
        envelope = message.envelope
        if message.report and self.report_route is not None:
            return self.report_route
        route = self._chosen(message) if message.route else None
        if route is None:
            route = self.routing.choose(envelope.reverse_path, recipient, message.arrival.identity, message.tag)
        return as_asked(route, envelope) if envelope.requiretls or envelope.tls_optional else route

    def _chosen(self, message: Message) -> Route | None:
        """Give the route that a message names; None when it is not configured any more."""
        chosen = self.routing.routes.get(message.route)
        if chosen is None and message.route.startswith(ROUTE_PREFIX):
            # An account that is gone: nobody else's upstream may have the mail.
            return Route(message.route, Deliver.HOLD)
        return chosen

    def queue_for(self, message: Message, route: Route, domain: str) -> str:
        """Name the queue of a recipient: the route's for its domain, or one for what is restrained as it is."""
        queue = route.queue_for(domain)
        envelope = message.envelope
        if (envelope.requiretls or envelope.tls_optional) and (not route.pool or route.demand):
            queue += _REQUIRED if envelope.requiretls else _OPTIONAL
        if not self.restraints:
            return queue
        return queue + suffix_of(self.restraints.of(facts_of(message, domain, route.name)))


def facts_of(message: Message, domain: str, route: str) -> Facts:
    """Give what limits ask of a recipient of a message, by its domain and its route."""
    return Facts(domain, sender_domain(message.envelope.reverse_path), message.arrival.identity, message.tag, route)


def pool_queue(queue: str) -> str:
    """Give the name of the queue under which a pool is known: the route's, or that of its mail with REQUIRETLS."""
    named = site_queue(queue)
    return named + _REQUIRED if queue.startswith(_REQUIRED, len(named)) else named


def site_queue(queue: str) -> str:
    """Give the name of the queue that a route names, without what its mail is restrained by."""
    return queue.partition("/ ")[0]
