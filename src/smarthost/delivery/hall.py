"""Hall: the parts that the dispatchers of all sites share."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import msgspec

from smarthost.delivery.connect import Connector
from smarthost.delivery.remedies import Remedies
from smarthost.delivery.settle import Settler
from smarthost.delivery.sharing import Sharing
from smarthost.delivery.transfer import Transfer
from smarthost.network.session import Session
from smarthost.queue.gates import Gates
from smarthost.queue.scheduler import Scheduler
from smarthost.spool.store import Spool

if TYPE_CHECKING:
    from smarthost.delivery.dispatcher import Dispatcher


class TransferMaker(Protocol):
    """Makes the transfer that drives a session."""

    def __call__(self, session: Session, dispatcher: "Dispatcher") -> Transfer:
        """Make one; it is not started yet."""


class Hall(msgspec.Struct):
    """The parts that every dispatcher shares."""

    scheduler: Scheduler
    spool: Spool
    settler: Settler
    remedies: Remedies
    connector: Connector
    make_transfer: TransferMaker
    clock: Callable[[], float]
    loop: asyncio.AbstractEventLoop
    gates: Gates
    sharing: Sharing
