"""Joins what applications are told of their mail (webhooks, report push), and what providers tell us (bounces)."""

import ssl
from pathlib import Path

from smarthost.accounts import KEY_FILE
from smarthost.assembly import Relay
from smarthost.crypto.sealing import Sealer, load_master_key
from smarthost.mail.record import DEFAULT_TENANT
from smarthost.mail.route import TlsLevel
from smarthost.network.http_client import HttpClient
from smarthost.outreach.report_push import ReportPush
from smarthost.outreach.webhooks import Webhooks
from smarthost.policy.client_sync import OutreachTerms
from smarthost.queue.bounces import BounceIntake
from smarthost.sns_desk import SnsDesk
from smarthost.tenants import Tenants
from smarthost.wire.report_mail import read_report
from smarthost.wire.ses_notice import read_ses
from smarthost.wire.sns import SnsType, read_sns

CONNECTIONS = 64  # to all receivers together: those that hang hold one or two each
SYNC_CONNECTIONS = 16


class Outreach:
    """What tells applications, and hears of bounces. `start` when the spool is open, `follow` at each reload, `stop`
    before it closes.
    """

    def __init__(self, relay: Relay, key_file: Path) -> None:
        """Tell nobody yet. `key_file` is the relay's own key, made with the first secret that has to be kept."""
        self._key_file = key_file
        self._sealer: Sealer | None = None
        self._tenant_sealer: Sealer | None = None
        spool, resolver, clock = relay.spool, relay.resolver, relay.clock

        def context() -> ssl.SSLContext:
            return relay.contexts.for_level(TlsLevel.VERIFY)

        self.client = HttpClient(resolver, context, connections=CONNECTIONS)
        self.webhooks = Webhooks(spool, self.client.ask, self._box, clock, relay.rng, relay.counters.webhooks)
        # Whom the configuration names may be anywhere: whoever writes it has the machine.
        self.sync_client = HttpClient(resolver, context, connections=SYNC_CONNECTIONS, allow_private=True)
        self.report_push = ReportPush(
            spool, self.sync_client.ask, clock, relay.counters.client_syncs, guarded=self.client.ask
        )
        self.tenants = Tenants(spool.records, self._tenant_box, self.report_push)
        self.tenants.changed = self._tell
        self._terms = OutreachTerms()
        self.bounces = BounceIntake(spool, relay.feed, relay.suppression, clock, relay.counters.bounces)
        self.sns = SnsDesk(self.client.ask, clock)

    async def start(self, terms: OutreachTerms) -> None:
        """Begin to tell."""
        await self.tenants.load()
        await self.follow(terms)
        await self.webhooks.start()

    async def follow(self, terms: OutreachTerms) -> None:
        """Follow a new configuration."""
        self.client.allow_private = terms.allow_private_urls
        self.sns.topics = terms.sns_topics
        self._terms = terms
        await self._tell()

    async def _tell(self) -> None:
        """Tell those whom the configuration names, and those who were named over HTTP."""
        await self.report_push.follow(self.tenants.lay_over(self._terms))

    async def take_ses(self, body: bytes, tenant: str | None) -> int | str:
        """Take a document of Amazon SES, or an envelope of SNS around one, that a tenant vouches for, or nobody.

        Gives how many notices were believed, or why none of it is. Raises ValueError for what is no JSON.
        """
        envelope = read_sns(body)
        if envelope is None:
            if tenant is None:
                return "without a key with the scope admin, only what Amazon SNS has signed is believed"
            return await self.bounces.take(read_ses(body), tenant)
        if wrong := await self.sns.fault(envelope, needs_topic=tenant is None):
            return wrong
        if envelope.type is not SnsType.NOTIFICATION:
            await self.sns.confirm(envelope)
            return 0
        try:
            notices = read_ses(envelope.message.encode())
        except ValueError:
            return 0  # SNS greets a new topic by a sentence
        return await self.bounces.take(notices, tenant, DEFAULT_TENANT)

    async def take_report(self, content: bytes, tenant: str) -> int:
        """Take a mail that reports failures or complaints, for which a tenant vouches; gives how many were believed."""
        return await self.bounces.take(read_report(content), tenant)

    def _box(self) -> Sealer:
        if self._sealer is None:
            self._sealer = Sealer(load_master_key(self._key_file), "webhooks")
        return self._sealer

    def _tenant_box(self) -> Sealer:
        if self._tenant_sealer is None:
            self._tenant_sealer = Sealer(load_master_key(self._key_file), "tenants")
        return self._tenant_sealer

    async def stop(self) -> None:
        """End, with the progress written."""
        await self.report_push.stop()
        await self.webhooks.stop()
        await self.client.close()
        await self.sync_client.close()


def make_outreach(relay: Relay, data_directory: Path) -> Outreach:
    """Make what tells applications, from the parts of a relay."""
    return Outreach(relay, data_directory / KEY_FILE)
