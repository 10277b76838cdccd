"""Accounts: upstreams of the tenant with their logins and limits, which messages name as `account_id`."""

import msgspec

from smarthost.client.call import Call, as_json, get, no_answer, reader, segment


class NewAccount(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An upstream, whole: what is left out has its default again, but for the password, which stays.

    `limit_behavior` is "defer" (mail beyond a limit waits), "error" or "reject" (it is refused).
    """

    id: str
    host: str
    port: int = 587
    user: str | None = None
    password: str | None = None
    use_tls: bool | None = None
    limit_per_minute: int | None = None
    limit_per_hour: int | None = None
    limit_per_day: int | None = None
    limit_behavior: str | None = None
    ttl: int | None = None
    batch_size: int | None = None

    def __repr__(self) -> str:
        """Show it without its password."""
        return f"NewAccount(id={self.id!r}, host={self.host!r})"


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """An upstream as it is shown: never its password."""

    id: str
    host: str
    port: int
    tenant_id: str = ""
    user: str = ""
    use_tls: bool | None = None
    limit_per_minute: int | None = None
    limit_per_hour: int | None = None
    limit_per_day: int | None = None
    limit_behavior: str = ""
    ttl: int | None = None
    batch_size: int | None = None


class AccountKept(msgspec.Struct, frozen=True):
    """What became of an account; `created` is false where one of that id was there."""

    id: str
    created: bool


class _AccountList(msgspec.Struct, frozen=True):
    accounts: list[Account]


_READ_KEPT, _READ_LIST = reader(AccountKept), reader(_AccountList)


def keep(account: NewAccount) -> Call[AccountKept]:
    """Make an account, or put this one in the place of that with the same id. It is used at once."""
    # The same again is the same: a lost answer does no harm.
    return Call(method="POST", path="/accounts", read=_READ_KEPT, content=as_json(account), repeats=True)


def list_accounts() -> Call[list[Account]]:
    """Give the accounts of the tenant."""
    return get("/accounts", lambda octets: _READ_LIST(octets).accounts)


def remove(id: str) -> Call[None]:
    """Remove an account. Mail that waits for it is held."""
    return Call(method="DELETE", path=f"/accounts/{segment(id)}", read=no_answer)
