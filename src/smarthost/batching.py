"""Joins the batches of the HTTP door to the parts of a relay."""

from smarthost.assembly import Relay
from smarthost.reception.batches.desk import Batches
from smarthost.reception.batches.parts import BatchParts
from smarthost.reception.http.desks import AccountDesk


def make_batches(relay: Relay, accounts: AccountDesk) -> Batches:
    """Make the batches of a relay; nothing of them runs yet."""
    return Batches(
        BatchParts(
            spool=relay.spool,
            intake=relay.intake,
            door=relay.door.parts,
            operator=relay.operator,
            accounts=accounts,
            clock=relay.clock,
            loaded=lambda: relay.scheduler.total,
            is_suppressed=relay.suppression.is_suppressed,
            hostname=lambda: relay.door.terms.hostname,
            postmaster=lambda: relay.config.postmaster,
            keep=lambda: relay.config.retry.lifetime + relay.config.http.message_keep,
        )
    )
