"""Egress: from which local address a session goes out, and by which name it greets."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address
from random import Random

import msgspec

from smarthost.delivery.pauses import Pauses
from smarthost.mail.route import Source
from smarthost.network.session import OpenFault, Session, SessionSettings
from smarthost.policy.classify import NetFault

log = logging.getLogger(__name__)

PAUSE = 60.0  # seconds for which a local address that could not be used is tried behind the others

Attempt = Callable[[SessionSettings], Awaitable[Session | OpenFault]]


class Egress:
    """Spreads the sessions of a route over its local addresses by their weights. Mutable.

    A session has one address for its life, drawn when it is opened. One that this machine does not have is an error
    in the log, and the others carry on without it.
    """

    def __init__(self, clock: Callable[[], float], rng: Random) -> None:
        """Begin with every address in use."""
        self._clock, self._rng = clock, rng
        self._unusable: Pauses[None] = Pauses()

    def draw(self, sources: Sequence[Source]) -> list[Source]:
        """Bring a route's sources into the order of trial for one session, at random by weight."""
        if len(sources) < 2:
            return list(sources)
        now, rng = self._clock(), self._rng
        # The smallest of exponential variables is each one with a probability in proportion to its rate.
        keyed = [(self._unusable.is_paused(each.address, now), rng.expovariate(each.weight), each) for each in sources]
        return [source for _, _, source in sorted(keyed, key=lambda one: one[:2])]

    async def open(
        self, address: str, sources: Sequence[Source], settings: SessionSettings, attempt: Attempt
    ) -> Session | OpenFault:
        """Open a session to an address from the first source of its family that can be used.

        Without any source the system chooses. Only where none can be used is that the fault.
        """
        if not sources:
            return await attempt(settings)
        opened: Session | OpenFault | None = None
        for source in sources:
            if ip_address(source.address).version != ip_address(address).version:
                continue
            hello = source.hello or settings.hello
            opened = await attempt(msgspec.structs.replace(settings, source_address=source.address, hello=hello))
            if isinstance(opened, Session) or opened.fault is not NetFault.SOURCE_UNUSABLE:
                return opened
            now = self._clock()
            if not self._unusable.is_paused(source.address, now):
                log.error("%s", opened.reason)
            self._unusable.pause(source.address, now + PAUSE, None, now)
        assert opened is not None, "a candidate is of the family of a source"
        return opened

    def clear(self) -> None:
        """Try every address again, as after a reload."""
        self._unusable.clear()


def families(sources: Sequence[Source], single: str = "") -> frozenset[int]:
    """Give the IP versions in which a session may go out; none given means any."""
    return frozenset(ip_address(each).version for each in [*(source.address for source in sources), single] if each)
