"""Tenants over HTTP as clients of a mail proxy make them: where their applications are told, and a key of their own."""

from typing import Annotated, Any

import msgspec
from litestar import delete, get, post, put
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import UNSET, Meta, UnsetType

from smarthost.mail.key import Scope
from smarthost.policy.tenant import AuthMethod, ProxyTenant, check_tenant, is_elsewhere
from smarthost.reception.http.asking import Asking, caller_of, parts_of, tenant_named
from smarthost.reception.http.callers import Caller
from smarthost.reception.http.desks import TenantDesk, Unwritten
from smarthost.reception.http.problem import Refused, disk_full, not_found
from smarthost.reception.http.routes import NEEDS
from smarthost.reception.keys import KeysUnwritable

KEY_NAME = "tenant"  # of the key that comes with a tenant; another one takes its place
MOST_OTHERS = 4096  # octets of settings that mean nothing here
_EVERYTHING = tuple(Scope)

Text = Annotated[str, Meta(max_length=1024)]


class ClientAuth(msgspec.Struct, frozen=True):
    """How the application knows us: bearer and a token, basic with user and password, or hmac and a secret."""

    method: AuthMethod = AuthMethod.NONE
    token: Text | None = None
    user: Text | None = None
    password: Text | None = None
    secret: Text | None = None

    def __repr__(self) -> str:
        """Show no secret."""
        return f"ClientAuth({self.method})"


class TenantWish(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted of a tenant; what is left out stays as it is. Fields that are not known are passed over.

    `rate_limits` and `large_file_config` are kept and shown, and mean nothing: limits stand in the configuration.
    """

    name: Text | None = None
    client_base_url: Text | None = None
    client_sync_path: Text | None = None
    client_attachment_path: Text | None = None
    client_auth: ClientAuth | None = None
    active: bool | None = None
    rate_limits: dict[str, Any] | None = None
    large_file_config: dict[str, Any] | None = None


class NewTenant(TenantWish, frozen=True, kw_only=True):
    """A tenant, new or to be changed."""

    id: str


class ChangedTenant(TenantWish, frozen=True, kw_only=True):
    """A tenant to be changed."""

    tenant_id: str


class NamedTenant(msgspec.Struct, frozen=True):
    """Whose."""

    tenant_id: str


class ShownAuth(msgspec.Struct, frozen=True):
    """How the application knows us, without the secret."""

    method: AuthMethod
    user: str | None = None


class ShownTenant(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant as it may be shown; `api_key` is shown once, when the tenant was made. Times are Unix seconds."""

    id: str
    name: str
    client_base_url: str | None
    client_sync_path: str | None
    client_attachment_path: str | None
    client_auth: ShownAuth
    rate_limits: dict[str, Any] | None
    large_file_config: dict[str, Any] | None
    active: bool
    suspended_batches: list[str]
    created_at: int
    updated_at: int
    ok: bool = True
    api_key: str | UnsetType = UNSET


class TenantList(msgspec.Struct, frozen=True):
    """All tenants, by id."""

    tenants: list[ShownTenant]
    ok: bool = True


class TenantKey(msgspec.Struct, frozen=True):
    """The tenant's key, shown this once."""

    api_key: str
    ok: bool = True


class TenantDone(msgspec.Struct, frozen=True):
    """That it was done."""

    ok: bool = True


@post(["/tenant", "/tenants/add"], opt={NEEDS: Scope.ADMIN}, status_code=200)
async def keep_tenant(request: Asking, data: JSONBody[NewTenant]) -> ShownTenant:
    """Make a tenant, with a key of its own, or change one. Only the operator may make one."""
    tenant = tenant_named(caller_of(request), data.id)
    desk = _desk(request)
    if desk.get(tenant) is None:
        _only_operator(caller_of(request))
        shown = await _keep(request, ProxyTenant(tenant, created=parts_of(request).clock()), data)
        return msgspec.structs.replace(shown, api_key=await _new_key(request, tenant))
    return await _change(request, tenant, data)


@post("/tenants/update", opt={NEEDS: Scope.ADMIN}, status_code=200)
async def update_tenant(request: Asking, data: JSONBody[ChangedTenant]) -> ShownTenant:
    """Change a tenant."""
    return await _change(request, tenant_named(caller_of(request), data.tenant_id), data)


@put("/tenant/{tenant_id:str}", opt={NEEDS: Scope.ADMIN}, status_code=200)
async def change_tenant(request: Asking, tenant_id: FromPath[str], data: JSONBody[TenantWish]) -> ShownTenant:
    """Change a tenant."""
    return await _change(request, _mine(request, tenant_id), data)


@get("/tenant/{tenant_id:str}", opt={NEEDS: Scope.READ})
async def show_tenant(request: Asking, tenant_id: FromPath[str]) -> ShownTenant:
    """Show a tenant."""
    return _shown(request, _find(request, _mine(request, tenant_id)))


@get("/tenants/get", opt={NEEDS: Scope.READ})
async def get_tenant(request: Asking, tenant_id: Annotated[str, QueryParameter(max_length=64)] = "") -> ShownTenant:
    """Show a tenant."""
    return _shown(request, _find(request, tenant_named(caller_of(request), tenant_id)))


ActiveOnly = Annotated[bool, QueryParameter(description="not those that are told nothing")]


@get("/tenants", opt={NEEDS: Scope.ADMIN})
async def list_tenants(request: Asking, active_only: ActiveOnly = False) -> TenantList:
    """List the tenants that were made over HTTP: all for the operator, else the caller's own."""
    return TenantList(_listed(request, active_only))


@get("/tenants/list", opt={NEEDS: Scope.ADMIN})
async def list_tenant_rows(request: Asking, active_only: ActiveOnly = False) -> list[ShownTenant]:
    """List the tenants that were made over HTTP, and nothing beside them."""
    return _listed(request, active_only)


def _listed(request: Asking, active_only: bool) -> list[ShownTenant]:
    caller = caller_of(request)
    mine = [each for each in _desk(request).all() if caller.is_operator or each.id == caller.tenant]
    return [_shown(request, each) for each in mine if each.active or not active_only]


@delete("/tenant/{tenant_id:str}", opt={NEEDS: Scope.ADMIN}, status_code=200)
async def delete_tenant(request: Asking, tenant_id: FromPath[str]) -> TenantDone:
    """Forget a tenant's settings and revoke its key. What it has handed in goes on. Only the operator may."""
    return await _remove(request, _mine(request, tenant_id))


@post("/tenants/delete", opt={NEEDS: Scope.ADMIN}, status_code=200)
async def remove_tenant(request: Asking, data: JSONBody[NamedTenant]) -> TenantDone:
    """Forget a tenant's settings and revoke its key. What it has handed in goes on. Only the operator may."""
    return await _remove(request, tenant_named(caller_of(request), data.tenant_id))


@post("/tenant/{tenant_id:str}/api-key", opt={NEEDS: Scope.ADMIN}, status_code=200)
async def make_tenant_key(request: Asking, tenant_id: FromPath[str]) -> TenantKey:
    """Give a tenant another key; the one before is revoked. Only the operator may."""
    tenant = _find(request, _mine(request, tenant_id)).id
    _only_operator(caller_of(request))
    await _revoke(request, tenant)
    return TenantKey(await _new_key(request, tenant))


@delete("/tenant/{tenant_id:str}/api-key", opt={NEEDS: Scope.ADMIN}, status_code=200)
async def revoke_tenant_key(request: Asking, tenant_id: FromPath[str]) -> TenantDone:
    """Revoke a tenant's key. Only the operator may."""
    tenant = _find(request, _mine(request, tenant_id)).id
    _only_operator(caller_of(request))
    await _revoke(request, tenant)
    return TenantDone()


async def _change(request: Asking, tenant: str, wish: TenantWish) -> ShownTenant:
    return await _keep(request, _find(request, tenant), wish)


async def _keep(request: Asking, former: ProxyTenant, wish: TenantWish) -> ShownTenant:
    """Make durable what is wanted of a tenant; raises Refused (422, 503)."""
    told = {field: value for field in _FIELDS if (value := getattr(wish, field)) is not None}
    others = dict(former.others)
    others |= {field: value for field in _OTHERS if (value := getattr(wish, field)) is not None}
    if len(msgspec.json.encode(others)) > MOST_OTHERS:
        raise Refused(422, "a field is wrong", errors=[("rate_limits", f"{MOST_OTHERS} octets are allowed")])
    auth, secret = wish.client_auth, None
    if auth is not None:
        told |= {"method": auth.method, "user": auth.user or ""}
        secret = {"bearer": auth.token, "basic": auth.password, "hmac": auth.secret}.get(auth.method, "") or ""
    tenant = msgspec.structs.replace(former, **told, others=others, updated=parts_of(request).clock())
    if faults := check_tenant(tenant, "-" if secret is None else secret):
        raise Refused(422, "a field is wrong", errors=[(fault.field, fault.message) for fault in faults])
    if secret is None and former.method is not AuthMethod.NONE and is_elsewhere(former, tenant):
        # Who may change the address need not know the secret, and shall not learn it by having it sent there.
        wrong = ("client_auth", "has to be given again where client_base_url names another server")
        raise Refused(422, "a field is wrong", errors=[wrong])
    try:
        await _desk(request).put(tenant, secret)
    except Unwritten:
        raise disk_full() from None
    return _shown(request, tenant)


async def _remove(request: Asking, tenant: str) -> TenantDone:
    _find(request, tenant)
    _only_operator(caller_of(request))
    try:
        await _desk(request).remove(tenant)
    except Unwritten:
        raise disk_full() from None
    await _revoke(request, tenant)
    return TenantDone()


async def _new_key(request: Asking, tenant: str) -> str:
    """Make a tenant's key; gives the token."""
    try:
        return (await parts_of(request).keys.add(tenant, _EVERYTHING, KEY_NAME, 0.0))[1]
    except KeysUnwritable:
        raise disk_full() from None


async def _revoke(request: Asking, tenant: str) -> None:
    """Revoke the key that came with a tenant, not those that were made for it otherwise."""
    keys = parts_of(request).keys
    try:
        for key in keys.listed(tenant):
            if key.name == KEY_NAME and not key.revoked:
                await keys.revoke(tenant, key.id)
    except KeysUnwritable:
        raise disk_full() from None


def _desk(request: Asking) -> TenantDesk:
    desk = parts_of(request).tenants
    if desk is None:
        raise Refused(503, "tenants are not kept")
    return desk


def _mine(request: Asking, named: str) -> str:
    """Give the tenant that a path names: to others than the operator, there is none but their own."""
    caller = caller_of(request)
    if not caller.is_operator and named != caller.tenant:
        raise not_found("tenant")
    return named


def _find(request: Asking, name: str) -> ProxyTenant:
    tenant = _desk(request).get(name)
    if tenant is None:
        raise not_found("tenant")
    return tenant


def _only_operator(caller: Caller) -> None:
    if not caller.is_operator:
        raise Refused(403, "only the operator may do this, by a token of [http] tokens")


def _shown(request: Asking, tenant: ProxyTenant) -> ShownTenant:
    pauses = parts_of(request).suspensions
    return ShownTenant(
        id=tenant.id,
        name=tenant.name,
        client_base_url=tenant.client_base_url or None,
        client_sync_path=tenant.client_sync_path or None,
        client_attachment_path=tenant.client_attachment_path or None,
        client_auth=ShownAuth(tenant.method, tenant.user or None),
        rate_limits=tenant.others.get("rate_limits"),
        large_file_config=tenant.others.get("large_file_config"),
        active=tenant.active,
        suspended_batches=pauses.suspended(tenant.id) if pauses is not None else [],
        created_at=int(tenant.created),
        updated_at=int(tenant.updated),
    )


_OTHERS = ("rate_limits", "large_file_config")
_FIELDS = ("name", "client_base_url", "client_sync_path", "client_attachment_path", "active")

TENANTS: tuple[HTTPRouteHandler, ...] = (
    keep_tenant,
    update_tenant,
    change_tenant,
    show_tenant,
    get_tenant,
    list_tenants,
    list_tenant_rows,
    delete_tenant,
    remove_tenant,
    make_tenant_key,
    revoke_tenant_key,
)
