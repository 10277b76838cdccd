"""Desks: what routes ask of parts that stand beside the reception, which the assembly hands in."""

from collections.abc import Sequence
from typing import Protocol

from smarthost.policy.account import UpstreamAccount
from smarthost.policy.tenant import ProxyTenant
from smarthost.policy.webhook import DeadEvent, Faults, Webhook, WebhookStatus, WebhookWish


class Unwritten(Exception):
    """An object could not be made durable, as the disk is full or broken; nothing has changed."""


class AccountDesk(Protocol):
    """The upstreams of all tenants (`accounts`)."""

    async def upsert(self, tenant: str, account: UpstreamAccount, password: str | None = None) -> bool:
        """Keep an account that was checked; None keeps the password that there was. Says whether it is new.

        Raises Unwritten.
        """

    async def remove(self, tenant: str, name: str) -> bool:
        """Remove an account; False when there is none. Raises Unwritten."""

    def of(self, tenant: str) -> list[UpstreamAccount]:
        """Give a tenant's accounts, by id."""

    def has(self, tenant: str, name: str) -> bool:
        """Say whether a tenant has an account of an id."""

    def wait(self, tenant: str, name: str) -> float:
        """Give the seconds until an account takes another message; 0.0 also where it lets mail wait."""

    def deferred(self, tenant: str, name: str) -> float:
        """Give the seconds for which the next message waits for an account's limit; 0.0 where it need not."""

    def take(self, tenant: str, name: str) -> None:
        """Count a message that was taken for an account."""


class SuspensionDesk(Protocol):
    """What tenants have suspended (`operations_suspension`)."""

    def suspended(self, tenant: str) -> list[str]:
        """Give what is suspended of a tenant: "*" for everything, else its batches, as it calls them."""

    async def suspend_tenant(self, tenant: str, batch_code: str = "") -> None:
        """Let a tenant's mail wait, or that of one of its batches; raises Unwritten."""

    async def resume_tenant(self, tenant: str, batch_code: str = "") -> bool:
        """Let a batch of a tenant send again, or everything; false when a batch cannot, as everything is suspended.

        Raises Unwritten.
        """


class TenantDesk(Protocol):
    """The tenants that were made over HTTP, and what is told to their applications (`tenants`)."""

    async def put(self, tenant: ProxyTenant, secret: str | None = None) -> None:
        """Keep a tenant that was checked; None keeps the secret that there was. Raises Unwritten."""

    async def remove(self, name: str) -> bool:
        """Forget a tenant's settings, not its mail; False when there are none. Raises Unwritten."""

    def get(self, name: str) -> ProxyTenant | None:
        """Give one tenant."""

    def all(self) -> list[ProxyTenant]:
        """Give all tenants, by id."""

    def run_now(self, tenant: str) -> bool:
        """Call the application of a tenant at once, "" for all; false when there is none."""

    def is_told(self, tenant: str) -> bool:
        """Say whether everything that happened was told to the application of a tenant; true where it has none."""


class WebhookDesk(Protocol):
    """The webhooks of all tenants (`outreach.webhooks`)."""

    async def create(self, tenant: str, wish: WebhookWish) -> Webhook | Faults:
        """Make a webhook, or say what is wrong."""

    async def page(self, tenant: str, after: str = "", limit: int = 100) -> list[Webhook]:
        """Give a tenant's webhooks behind an id."""

    async def get(self, tenant: str, name: str) -> Webhook | None:
        """Give a webhook."""

    async def update(self, tenant: str, name: str, wish: WebhookWish) -> Webhook | Faults | None:
        """Change what a wish names; None when there is no such webhook."""

    async def delete(self, tenant: str, name: str) -> bool:
        """Remove a webhook; false when there is none."""

    async def status(self, hook: Webhook) -> WebhookStatus:
        """Say how a webhook fares."""

    async def dead(self, tenant: str, name: str, after: int = 0, limit: int = 100) -> list[DeadEvent] | None:
        """Give events that are not sent any more, behind a cursor; None when there is no such webhook."""

    async def replay_dead(self, tenant: str, name: str, cursors: Sequence[int] = ()) -> int | None:
        """Send dead events again, all or some; gives how many, None when there is no such webhook."""

    async def replay(self, tenant: str, name: str, cursor: int) -> bool:
        """Send everything behind a cursor again; false when there is no such webhook."""


class BounceDesk(Protocol):
    """What believes notices of bounces and complaints (`applications`)."""

    async def take_ses(self, body: bytes, tenant: str | None) -> int | str:
        """Take a document of Amazon SES, or an envelope of SNS around one, that a tenant vouches for, or nobody.

        Gives how many notices were believed, or why none of it is. Raises ValueError for what is no JSON.
        """

    async def take_report(self, content: bytes, tenant: str) -> int:
        """Take a mail that reports failures or complaints, for which a tenant vouches; gives how many were believed."""
