"""Keys: API keys of the tenant, made, listed and revoked; this needs the scope admin."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from smarthost.client.call import Call, get, moment, post, reader, segment


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """An API key. `key` is the key itself, in the answer to `make` only."""

    id: str
    tenant: str = ""
    name: str = ""
    scopes: tuple[str, ...] = ()
    message_rate: tuple[str, ...] = ()
    created_at: datetime | None = None
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    key: str = ""

    def __repr__(self) -> str:
        """Show it without the key itself."""
        return f"ApiKey(id={self.id!r}, tenant={self.tenant!r}, name={self.name!r})"


class _KeyList(msgspec.Struct, frozen=True):
    keys: list[ApiKey]


_READ_ONE, _READ_LIST = reader(ApiKey), reader(_KeyList)


def make(
    name: str = "",
    *,
    scopes: Sequence[str] = ("send",),
    expires_at: datetime | None = None,
    message_rate: Sequence[str] = (),
    tenant: str = "",
) -> Call[ApiKey]:
    """Make a key with the scopes "send", "read" and "admin"; the key itself is in the answer, this once."""
    wish: dict[str, Any] = {"name": name, "scopes": scopes, "message_rate": message_rate, "tenant": tenant}
    if expires_at is not None:
        wish["expires_at"] = moment(expires_at)
    return post("/admin/keys", _READ_ONE, wish)


def list_keys() -> Call[list[ApiKey]]:
    """Give all keys of the tenant, oldest first."""
    return get("/admin/keys", lambda octets: _READ_LIST(octets).keys)


def revoke(id: str) -> Call[ApiKey]:
    """Make a key good for nothing, at once."""
    return post(f"/admin/keys/{segment(id)}/revoke", _READ_ONE)
