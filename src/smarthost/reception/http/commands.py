"""Commands of a mail proxy's clients: tell now what became of mail, suspend and activate; and the relay's state."""

import msgspec
from litestar import get, post
from litestar.handlers import HTTPRouteHandler

from smarthost.mail.key import DEFAULT_TENANT, Scope
from smarthost.reception.http.asking import Asking, caller_of, parts_of, tenant_named
from smarthost.reception.http.desks import SuspensionDesk, Unwritten
from smarthost.reception.http.problem import Refused, disk_full
from smarthost.reception.http.proxy_forms import WhichBatch, WhichTenant, read_command
from smarthost.reception.http.routes import NEEDS

MOST_SUSPENDED = 1000  # batches of a tenant
_EVERYTHING = ["*"]


class ProxyDone(msgspec.Struct, frozen=True):
    """That it was done."""

    ok: bool = True


class Suspended(msgspec.Struct, frozen=True):
    """What of a tenant is suspended now: batches, or "*" for everything, when it is not `active`."""

    tenant_id: str
    suspended_batches: list[str]
    active: bool
    ok: bool = True


class ProxyStatus(msgspec.Struct, frozen=True):
    """Whether the relay works, and whether the caller's tenant may send."""

    ok: bool
    active: bool
    version: str


@get(["/status", "/instance/status"], opt={NEEDS: Scope.READ})
async def show_status(request: Asking) -> ProxyStatus:
    """Say whether the relay works; `active` is false while the tenant is suspended."""
    parts, desk = parts_of(request), parts_of(request).suspensions
    suspended = desk.suspended(caller_of(request).tenant) if desk is not None else []
    return ProxyStatus(not parts.healthy(), suspended != _EVERYTHING, parts.version)


@post(["/commands/run-now", "/instance/run_now"], opt={NEEDS: Scope.SEND}, status_code=200)
async def run_now(request: Asking) -> ProxyDone:
    """Tell the tenant's application at once what became of its mail, however long it did not answer or wanted rest.

    Mail that is due is on its way in any case. The operator means all tenants where none is named.
    """
    caller, desk = caller_of(request), parts_of(request).tenants
    command = await read_command(request, WhichTenant)
    for_all = caller.is_operator and not command.tenant_id and caller.tenant == DEFAULT_TENANT
    if desk is not None:
        desk.run_now("" if for_all else tenant_named(caller, command.tenant_id))
    return ProxyDone()


@post(["/commands/suspend", "/instance/suspend", "/tenants/suspend_batch"], opt={NEEDS: Scope.SEND}, status_code=200)
async def suspend(request: Asking) -> Suspended:
    """Let everything that a tenant has handed in wait, or a batch of it, until it is activated, over restarts too."""
    desk, tenant, batch = await _read(request)
    if batch and len(desk.suspended(tenant)) >= MOST_SUSPENDED:
        raise Refused(409, f"{MOST_SUSPENDED} batches are suspended already")
    try:
        await desk.suspend_tenant(tenant, batch)
    except Unwritten:
        raise disk_full() from None
    return _suspended(desk, tenant)


@post(["/commands/activate", "/instance/activate", "/tenants/activate_batch"], opt={NEEDS: Scope.SEND}, status_code=200)
async def activate(request: Asking) -> Suspended:
    """Let a tenant's batch send again; without one, everything of the tenant."""
    desk, tenant, batch = await _read(request)
    try:
        done = await desk.resume_tenant(tenant, batch)
    except Unwritten:
        raise disk_full() from None
    if not done:
        raise Refused(409, "everything is suspended: activate without a batch_code first")
    return _suspended(desk, tenant)


async def _read(request: Asking) -> tuple[SuspensionDesk, str, str]:
    """Give what suspends, whose mail is meant, and which batch of it."""
    desk, caller = parts_of(request).suspensions, caller_of(request)
    if desk is None:
        raise Refused(503, "nothing can be suspended")
    command = await read_command(request, WhichBatch)
    if caller.is_operator and not command.tenant_id and caller.tenant == DEFAULT_TENANT:
        raise Refused(422, "a field is wrong", errors=[("tenant_id", "is missing; name the tenant")])
    batch = command.batch_code or ""
    if batch == "*":
        batch = ""
    if len(batch) > 255 or not batch.isprintable():
        raise Refused(422, "a field is wrong", errors=[("batch_code", "1 to 255 characters are allowed")])
    return desk, tenant_named(caller, command.tenant_id), batch


def _suspended(desk: SuspensionDesk, tenant: str) -> Suspended:
    suspended = desk.suspended(tenant)
    return Suspended(tenant, suspended, suspended != _EVERYTHING)


COMMANDS: tuple[HTTPRouteHandler, ...] = (show_status, run_now, suspend, activate)
