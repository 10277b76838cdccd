"""What the HTTP door is given by the assembly."""

from collections.abc import Callable, Sequence

import msgspec

from smarthost.policy.http_terms import HttpTerms
from smarthost.queue.operate import Operator
from smarthost.reception.http.desks import BounceDesk, WebhookDesk
from smarthost.reception.keys import Keys
from smarthost.reception.parts import Parts
from smarthost.reception.terms import Terms
from smarthost.spool.store import Spool

Probe = Callable[[], Sequence[str]]


class HttpParts(msgspec.Struct, kw_only=True):
    """Everything that the routes need. `terms` and `reception_terms` are replaced at a reload.

    `healthy` and `ready` give the reasons why the relay is not; `version` is its own; the desks
    are None while their parts do not run.
    """

    door: Parts
    reception_terms: Callable[[], Terms]
    terms: HttpTerms
    keys: Keys
    spool: Spool
    operator: Operator
    clock: Callable[[], float]
    healthy: Probe
    ready: Probe
    version: str
    webhooks: WebhookDesk | None = None
    bounces: BounceDesk | None = None
