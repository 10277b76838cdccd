"""Accounts over HTTP: a tenant's upstreams, made, changed, listed and removed while the relay runs."""

from typing import Annotated

import msgspec
from litestar import delete, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import Meta

from smarthost.mail.key import Scope
from smarthost.policy.account import Behavior, UpstreamAccount, check_account
from smarthost.reception.http.asking import Asking, caller_of, parts_of, tenant_named
from smarthost.reception.http.desks import AccountDesk, Unwritten
from smarthost.reception.http.problem import Refused, disk_full, not_found
from smarthost.reception.http.routes import NEEDS

Count = Annotated[int, Meta(ge=1, le=10**9)]


class NewAccount(msgspec.Struct, frozen=True):
    """An upstream, whole: what is left out has its default again, but for the password, which stays.

    `tenant_id` is the caller's own unless the operator names another. Fields that are not known are passed over, for
    clients of mail proxies send some.
    """

    id: str
    host: str
    port: int = 587
    user: str | None = None
    password: str | None = None
    use_tls: bool | None = None
    limit_per_minute: Count | None = None
    limit_per_hour: Count | None = None
    limit_per_day: Count | None = None
    limit_behavior: Behavior | None = None
    ttl: Count | None = None
    batch_size: Count | None = None
    tenant_id: str | None = None


class ShownAccount(msgspec.Struct, frozen=True, kw_only=True):
    """An account as it may be shown: never its password."""

    id: str
    tenant_id: str
    host: str
    port: int
    user: str
    use_tls: bool | None
    limit_per_minute: int | None
    limit_per_hour: int | None
    limit_per_day: int | None
    limit_behavior: Behavior
    ttl: int | None
    batch_size: int | None


class AccountKept(msgspec.Struct, frozen=True):
    """What became of an account; `created` is false where one of that id was there."""

    id: str
    created: bool
    ok: bool = True


class AccountList(msgspec.Struct, frozen=True):
    """The accounts of a tenant, by id."""

    accounts: list[ShownAccount]
    ok: bool = True


class WhichAccount(msgspec.Struct, frozen=True):
    """An account to be removed."""

    account_id: str
    tenant_id: str | None = None


class Done(msgspec.Struct, frozen=True):
    """That it was done."""

    ok: bool = True


@post(["/account", "/accounts/add", "/api/v1/accounts"], opt={NEEDS: Scope.ADMIN}, status_code=200)
async def keep_account(request: Asking, data: JSONBody[NewAccount]) -> AccountKept:
    """Make an upstream, or put this one in the place of that with the same id. It is used at once."""
    tenant = _tenant(request, data.tenant_id or "")
    account = UpstreamAccount(
        id=data.id,
        host=data.host,
        port=data.port,
        user=data.user or "",
        use_tls=data.use_tls,
        limit_per_minute=data.limit_per_minute,
        limit_per_hour=data.limit_per_hour,
        limit_per_day=data.limit_per_day,
        limit_behavior=data.limit_behavior or Behavior.DEFER,
        ttl=data.ttl,
        batch_size=data.batch_size,
    )
    if faults := check_account(account, data.password or ""):
        raise Refused(422, "a field is wrong", errors=[(fault.field, fault.message) for fault in faults])
    try:
        created = await _desk(request).upsert(tenant, account, data.password)
    except Unwritten:
        raise disk_full() from None
    return AccountKept(account.id, created)


@get(["/accounts", "/api/v1/accounts"], opt={NEEDS: Scope.ADMIN})
async def list_accounts(request: Asking, tenant_id: Annotated[str, QueryParameter()] = "") -> AccountList:
    """List a tenant's upstreams."""
    return AccountList(_listed(request, tenant_id))


@get("/accounts/list", opt={NEEDS: Scope.ADMIN})
async def list_account_rows(request: Asking, tenant_id: Annotated[str, QueryParameter()] = "") -> list[ShownAccount]:
    """List a tenant's upstreams, and nothing beside them."""
    return _listed(request, tenant_id)


@get("/accounts/get", opt={NEEDS: Scope.ADMIN})
async def show_account(
    request: Asking,
    account_id: Annotated[str, QueryParameter(max_length=128)],
    tenant_id: Annotated[str, QueryParameter()] = "",
) -> ShownAccount:
    """Show an upstream."""
    for account in _listed(request, tenant_id):
        if account.id == account_id:
            return account
    raise not_found("account")


@post("/accounts/delete", opt={NEEDS: Scope.ADMIN}, status_code=200)
async def delete_account(request: Asking, data: JSONBody[WhichAccount]) -> Done:
    """Remove an upstream. Mail that waits for it is held, for nobody else's may have it."""
    return await _remove(request, data.account_id, data.tenant_id or "")


@delete(["/account/{account_id:str}", "/api/v1/accounts/{account_id:str}"], opt={NEEDS: Scope.ADMIN}, status_code=200)
async def remove_account(
    request: Asking, account_id: FromPath[str], tenant_id: Annotated[str, QueryParameter()] = ""
) -> Done:
    """Remove an upstream. Mail that waits for it is held, for nobody else's may have it."""
    return await _remove(request, account_id, tenant_id)


async def _remove(request: Asking, account_id: str, tenant_id: str) -> Done:
    try:
        found = await _desk(request).remove(_tenant(request, tenant_id), account_id)
    except Unwritten:
        raise disk_full() from None
    if not found:
        raise not_found("account")
    return Done()


def _listed(request: Asking, tenant_id: str) -> list[ShownAccount]:
    tenant = _tenant(request, tenant_id)
    return [_shown(tenant, account) for account in _desk(request).of(tenant)]


def _desk(request: Asking) -> AccountDesk:
    return parts_of(request).accounts


def _tenant(request: Asking, named: str) -> str:
    return tenant_named(caller_of(request), named)


def _shown(tenant: str, account: UpstreamAccount) -> ShownAccount:
    return ShownAccount(tenant_id=tenant, **msgspec.structs.asdict(account))


ACCOUNTS: tuple[HTTPRouteHandler, ...] = (
    keep_account,
    list_accounts,
    list_account_rows,
    show_account,
    delete_account,
    remove_account,
)
