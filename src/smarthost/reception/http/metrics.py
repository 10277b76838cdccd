"""Metrics over HTTP: what became of mail, by hour, tenant and account, as JSON."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.params import QueryParameter

from smarthost.mail.key import Scope
from smarthost.queue.traffic import MOST_HOURS, Counts, Place, Reading, sum_of
from smarthost.reception.http.asking import Asking, caller_of, parts_of
from smarthost.reception.http.routes import NEEDS

Hours = Annotated[int, QueryParameter(ge=1, le=MOST_HOURS, description="This hour and those before it")]


class HourMetrics(msgspec.Struct, frozen=True):
    """What became of mail in the hour that begins at `hour`."""

    hour: datetime
    counts: Counts


class AccountMetrics(msgspec.Struct, frozen=True):
    """What went by one account of a tenant; "default" is what went by none."""

    account: str
    sent: int
    failed: int
    deferred: int
    suppressed: int


class TenantMetrics(msgspec.Struct, frozen=True):
    """What became of a tenant's mail, in all and by account."""

    tenant: str
    totals: Counts
    accounts: list[AccountMetrics]


class AdminMetrics(msgspec.Struct, frozen=True):
    """What became of mail since `since`. `complete` is false where there was too much to count at once: the next
    request goes on.
    """

    hours: int
    since: datetime
    complete: bool
    totals: Counts
    tenants: list[TenantMetrics]
    buckets: list[HourMetrics]


class Metrics(msgspec.Struct, frozen=True):
    """What became of a tenant's mail since `since`; `complete` is as in the metrics for admins."""

    tenant: str
    hours: int
    since: datetime
    complete: bool
    totals: Counts
    accounts: list[AccountMetrics]


@get("/api/v1/admin/metrics", opt={NEEDS: Scope.ADMIN})
async def admin_metrics(request: Asking, hours: Hours = 24) -> AdminMetrics:
    """Say what became of mail in each of the last hours: of the key's tenant, and of all for the operator's token."""
    parts, caller = parts_of(request), caller_of(request)
    reading = await parts.traffic.read(hours, None if caller.is_operator else caller.tenant)
    places = _sums(reading)
    return AdminMetrics(
        hours,
        _time(reading.since),
        reading.is_complete,
        sum_of(places.values()),
        [_of_tenant(tenant, places) for tenant in sorted({tenant for tenant, _ in places})],
        [HourMetrics(_time(hour), sum_of(counted.values())) for hour, counted in reading.hours.items()],
    )


@get("/api/v1/metrics", opt={NEEDS: Scope.READ})
async def metrics(request: Asking, hours: Hours = 24) -> Metrics:
    """Say what became of the tenant's mail in the last hours."""
    parts, tenant = parts_of(request), caller_of(request).tenant
    reading = await parts.traffic.read(hours, tenant)
    found = _of_tenant(tenant, _sums(reading))
    return Metrics(tenant, hours, _time(reading.since), reading.is_complete, found.totals, found.accounts)


def _sums(reading: Reading) -> dict[Place, Counts]:
    """Add the hours up, for each tenant and account."""
    found: dict[Place, Counts] = {}
    for hour in reading.hours.values():
        for place, counts in hour.items():
            found.setdefault(place, Counts()).add(counts)
    return found


def _of_tenant(tenant: str, places: Mapping[Place, Counts]) -> TenantMetrics:
    mine = {account: counts for (owner, account), counts in sorted(places.items()) if owner == tenant}
    accounts = [
        AccountMetrics(account, counts.sent, counts.failed, counts.deferred, counts.suppressed)
        for account, counts in mine.items()
        if account
    ]
    return TenantMetrics(tenant, sum_of(mine.values()), accounts)


def _time(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


METRICS: tuple[HTTPRouteHandler, ...] = (admin_metrics, metrics)
