"""What the HTTP door is given by the assembly."""

from collections.abc import Callable, Sequence

import msgspec

from smarthost.compose.limits import SubmissionLimits
from smarthost.mail.entry import Entry
from smarthost.network.attaching import Attaching
from smarthost.policy.http_terms import HttpTerms
from smarthost.queue.operate import Operator
from smarthost.queue.recall import Recall
from smarthost.queue.suppression import SuppressionList
from smarthost.queue.templates import Templates
from smarthost.queue.traffic import Traffic
from smarthost.reception.batches.desk import Batches
from smarthost.reception.http.desks import AccountDesk, BounceDesk, SuspensionDesk, TenantDesk, WebhookDesk
from smarthost.reception.http.streams import Streams
from smarthost.reception.keys import Keys
from smarthost.reception.parts import Parts
from smarthost.reception.terms import Terms
from smarthost.spool.store import Spool

Probe = Callable[[], Sequence[str]]


class HttpParts(msgspec.Struct, kw_only=True):
    """Everything that the routes need. `terms` and `limits` are replaced at a reload.

    `lifetime` is for how long a message is tried, in seconds; `healthy` and `ready` give the reasons why the relay is
    not; `version` is its own; `recall` knows the keys of SMTP's mail, too; `deferred_until` gives when a limit lets an
    entry go that it holds now, None where none does. The desks are None while their parts do not run.
    """

    door: Parts
    reception_terms: Callable[[], Terms]
    terms: HttpTerms
    limits: SubmissionLimits
    lifetime: Callable[[], float]
    attaching: Attaching
    keys: Keys
    recall: Recall
    spool: Spool
    operator: Operator
    traffic: Traffic
    clock: Callable[[], float]
    healthy: Probe
    ready: Probe
    version: str
    accounts: AccountDesk
    templates: Templates
    suppression: SuppressionList
    streams: Streams = msgspec.field(default_factory=Streams)
    webhooks: WebhookDesk | None = None
    bounces: BounceDesk | None = None
    tenants: TenantDesk | None = None
    suspensions: SuspensionDesk | None = None
    deferred_until: Callable[[Entry], float | None] = lambda entry: None
    batches: Batches | None = None
