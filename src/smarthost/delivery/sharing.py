"""Sharing: sites on the same hosts, which differ in what they ask of TLS, have the connections of a limit together."""

import asyncio
from functools import partial

from smarthost.delivery.places import Claimant, Place, Places

TURN = 5.0  # seconds after which a site that has one connection gives it up for one on the same hosts that has none


class Sharing:
    """The connections of all sites: so many in all (`total`), and so many to the hosts of each. Mutable.

    Sites of one place (`mail.route.Site.place`) take turns at its connections, as all sites do at those of the relay;
    a configuration's sessions count there until they have ended, whatever replaces it.
    """

    def __init__(self, most: int, loop: asyncio.AbstractEventLoop) -> None:
        """Begin with no connection."""
        self.total = Places(most, loop)
        self._loop = loop
        self._by_hosts: dict[str, Places] = {}  # where there is a connection, or somebody waits for one

    def take(self, claimant: Claimant, hosts: str, most: int) -> Place | None:
        """Give a connection to some hosts, by the name of their place, which may have `most`; None puts it in line."""
        shared = self._by_hosts.get(hosts)
        if shared is None:
            shared = self._by_hosts[hosts] = Places(most, self._loop, turn=TURN, alike=True)
            shared.emptied = partial(self._forget, hosts)
        shared.most = most
        place = shared.take(claimant)
        if place is None:
            return None
        taken = self.total.take(claimant, place)
        if taken is None:
            place.give_back()
        return taken

    def waits_for_hosts(self, claimant: Claimant, hosts: str) -> bool:
        """Whether a site waits for a connection that others on the same hosts have."""
        shared = self._by_hosts.get(hosts)
        return shared is not None and shared.waits(claimant)

    def has_room(self, hosts: str, most: int) -> bool:
        """Whether the hosts of a place, which may have `most` connections, have fewer, and nobody waits for one."""
        shared = self._by_hosts.get(hosts)
        return shared is None or (shared.taken < most and not shared.waiting)

    def _forget(self, hosts: str, shared: Places) -> None:
        if self._by_hosts.get(hosts) is shared:
            del self._by_hosts[hosts]
