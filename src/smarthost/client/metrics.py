"""Metrics: what became of the mail of the last hours, counted by the relay; of the tenant, and for admins by hour."""

from datetime import datetime

import msgspec

from smarthost.client.call import Call, get, reader


class Counts(msgspec.Struct, frozen=True):
    """How often something happened: `accepted` counts messages, all others recipients."""

    accepted: int = 0
    sent: int = 0
    failed: int = 0
    deferred: int = 0
    bounced: int = 0
    complaints: int = 0
    suppressed: int = 0


class AccountMetrics(msgspec.Struct, frozen=True):
    """What went by one account; "default" is what went by none."""

    account: str
    sent: int = 0
    failed: int = 0
    deferred: int = 0
    suppressed: int = 0


class Metrics(msgspec.Struct, frozen=True):
    """What became of a tenant's mail since a time; asked again where it is not `complete`, it goes on counting."""

    tenant: str
    hours: int
    since: datetime
    complete: bool
    totals: Counts
    accounts: list[AccountMetrics] = []


class TenantMetrics(msgspec.Struct, frozen=True):
    """What became of one tenant's mail."""

    tenant: str
    totals: Counts
    accounts: list[AccountMetrics] = []


class HourMetrics(msgspec.Struct, frozen=True):
    """What became of mail in the hour that begins at `hour`."""

    hour: datetime
    counts: Counts


class AdminMetrics(msgspec.Struct, frozen=True):
    """What became of mail since a time, by tenant and by hour; `complete` is as in `Metrics`."""

    hours: int
    since: datetime
    complete: bool
    totals: Counts
    tenants: list[TenantMetrics] = []
    buckets: list[HourMetrics] = []


_READ, _READ_ADMIN = reader(Metrics), reader(AdminMetrics)


def metrics(hours: int = 24) -> Call[Metrics]:
    """Give what became of the tenant's mail in the last hours."""
    return get("/metrics", _READ, hours=hours)


def admin_metrics(hours: int = 24) -> Call[AdminMetrics]:
    """Give what became of mail in each of the last hours; of all tenants for an operator's token."""
    return get("/admin/metrics", _READ_ADMIN, hours=hours)
