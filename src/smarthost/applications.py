"""Joins what tells applications of their mail: webhooks and report push, each with an HTTP client of its own."""

import ssl
from collections.abc import Callable
from pathlib import Path
from random import Random

from smarthost.accounts import KEY_FILE
from smarthost.assembly import Relay
from smarthost.crypto.sealing import Sealer, load_master_key
from smarthost.mail.route import TlsLevel
from smarthost.network.dns import Resolver
from smarthost.network.http_client import HttpClient
from smarthost.outreach.report_push import ReportPush
from smarthost.outreach.webhooks import Webhooks
from smarthost.policy.client_sync import OutreachTerms
from smarthost.spool.store import Spool

CONNECTIONS = 64  # to all receivers together: those that hang hold one or two each
SYNC_CONNECTIONS = 16


class Outreach:
    """What tells applications. `start` when the spool is open, `follow` at each reload, `stop` before it closes."""

    def __init__(
        self,
        spool: Spool,
        resolver: Resolver,
        context: Callable[[], ssl.SSLContext],
        key_file: Path,
        clock: Callable[[], float],
        rng: Random,
    ) -> None:
        """Tell nobody yet. `key_file` is the relay's own key, made with the first secret that has to be kept."""
        self._key_file = key_file
        self._sealer: Sealer | None = None
        self.client = HttpClient(resolver, context, connections=CONNECTIONS)
        self.webhooks = Webhooks(spool, self.client.ask, self._box, clock, rng)
        # Whom the configuration names may be anywhere: whoever writes it has the machine.
        self.sync_client = HttpClient(resolver, context, connections=SYNC_CONNECTIONS, allow_private=True)
        self.report_push = ReportPush(spool, self.sync_client.ask, clock)

    async def start(self, terms: OutreachTerms) -> None:
        """Begin to tell."""
        await self.follow(terms)
        await self.webhooks.start()

    async def follow(self, terms: OutreachTerms) -> None:
        """Follow a new configuration."""
        self.client.allow_private = terms.allow_private_urls
        await self.report_push.follow(terms)

    def _box(self) -> Sealer:
        if self._sealer is None:
            self._sealer = Sealer(load_master_key(self._key_file), "webhooks")
        return self._sealer

    async def stop(self) -> None:
        """End, with the progress written."""
        await self.report_push.stop()
        await self.webhooks.stop()
        await self.client.close()
        await self.sync_client.close()


def make_outreach(relay: Relay, data_directory: Path) -> Outreach:
    """Make what tells applications, from the parts of a relay."""
    return Outreach(
        relay.spool,
        relay.resolver,
        lambda: relay.contexts.for_level(TlsLevel.VERIFY),
        data_directory / KEY_FILE,
        relay.clock,
        relay.rng,
    )
