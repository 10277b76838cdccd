"""Keys over HTTP: make, list and revoke API keys of a tenant."""

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, JSONBody
from msgspec import Meta

from smarthost.mail.key import TENANT, Key, Scope
from smarthost.policy.rate import parse_rate
from smarthost.reception.http.asking import Asking, caller_of, parts_of, tenant_of
from smarthost.reception.http.problem import Refused, disk_full, not_found
from smarthost.reception.http.routes import NEEDS
from smarthost.reception.keys import KeysUnwritable


class NewKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key to be made; `tenant` is the caller's own unless the operator names another."""

    name: Annotated[str, Meta(max_length=200)] = ""
    scopes: Annotated[tuple[Scope, ...], Meta(min_length=1)] = (Scope.SEND,)
    expires_at: Annotated[datetime, Meta(tz=True)] | None = None
    message_rate: tuple[str, ...] = ()
    tenant: str = ""


class ShownKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key as it may be shown: never its token."""

    id: str
    tenant: str
    name: str
    scopes: tuple[Scope, ...]
    message_rate: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class MadeKey(ShownKey, frozen=True, kw_only=True):
    """A key that was just made, with its token, which is shown this once."""

    key: str


class KeyList(msgspec.Struct, frozen=True):
    """All keys of a tenant, oldest first."""

    keys: list[ShownKey]


@post("/api/v1/admin/keys", opt={NEEDS: Scope.ADMIN})
async def make_key(request: Asking, data: JSONBody[NewKey]) -> MadeKey:
    """Make a key. Its token is in the answer, and nowhere else."""
    caller, keys = caller_of(request), parts_of(request).keys
    if data.tenant and TENANT.fullmatch(data.tenant) is None:
        raise Refused(422, "a field is wrong", errors=[("tenant", "1 to 64 letters a-z, digits and dashes")])
    for place, rate in enumerate(data.message_rate):
        try:
            parse_rate(rate)
        except ValueError as error:
            raise Refused(422, "a field is wrong", errors=[(f"message_rate[{place}]", str(error))]) from None
    expires = data.expires_at.timestamp() if data.expires_at is not None else 0.0
    if data.expires_at is not None and expires <= parts_of(request).clock():
        raise Refused(422, "a field is wrong", errors=[("expires_at", "is in the past")])
    if not caller.is_operator and not caller.scopes.issuperset(data.scopes):
        raise Refused(403, "a key cannot make one that may do more than itself")
    tenant = tenant_of(caller, data.tenant)
    try:
        key, token = await keys.add(tenant, data.scopes, data.name, expires, data.message_rate)
    except KeysUnwritable:
        raise disk_full() from None
    return MadeKey(key=token, **_shown(key))


@get("/api/v1/admin/keys", opt={NEEDS: Scope.ADMIN})
async def list_keys(request: Asking) -> KeyList:
    """List the keys of a tenant, revoked and expired ones too."""
    keys = parts_of(request).keys.listed(caller_of(request).tenant)
    return KeyList([ShownKey(**_shown(key)) for key in keys])


@post("/api/v1/admin/keys/{key_id:str}/revoke", opt={NEEDS: Scope.ADMIN}, status_code=200)
async def revoke_key(request: Asking, key_id: FromPath[str]) -> ShownKey:
    """Revoke a key: it opens nothing from now on, and what is open by it ends."""
    try:
        key = await parts_of(request).keys.revoke(caller_of(request).tenant, key_id)
    except KeysUnwritable:
        raise disk_full() from None
    if key is None:
        raise not_found("key")
    return ShownKey(**_shown(key))


def _shown(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "tenant": key.tenant,
        "name": key.name,
        "scopes": key.scopes,
        "message_rate": key.message_rate,
        "created_at": _time(key.created),
        "expires_at": _time(key.expires),
        "revoked_at": _time(key.revoked),
        "last_used_at": _time(key.used),
    }


def _time(at: float) -> datetime | None:
    return datetime.fromtimestamp(at, UTC) if at else None


KEYS: tuple[HTTPRouteHandler, ...] = (make_key, list_keys, revoke_key)
