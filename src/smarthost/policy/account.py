"""Accounts: upstreams that tenants name while the relay runs, and the routes and limits that they are."""

import re
from enum import StrEnum
from ipaddress import ip_address

import msgspec

from smarthost.mail.address import to_a_label
from smarthost.mail.route import Deliver, NextHop, Route, TlsLevel
from smarthost.policy.limits import Limit, LimitMatch
from smarthost.policy.routing import SUBMISSIONS_PORT

ROUTE_PREFIX = "account:"  # no configured route may begin so
_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,128}")
_MOST_PORT = 65535
_LONGEST_TEXT = 1024  # characters of a user name or password


class Behavior(StrEnum):
    """What becomes of mail beyond an account's limits: it waits, or is refused when it is handed in."""

    DEFER = "defer"
    ERROR = "error"
    REJECT = "reject"


class UpstreamAccount(msgspec.Struct, frozen=True):
    """An upstream of a tenant, and what it may be given; None is no limit, and `use_tls` None what the port suggests.

    `ttl` is seconds for which an idle connection is kept, `batch_size` messages on one connection.
    """

    id: str
    host: str
    port: int = 587
    user: str = ""
    use_tls: bool | None = None
    limit_per_minute: int | None = None
    limit_per_hour: int | None = None
    limit_per_day: int | None = None
    limit_behavior: Behavior = Behavior.DEFER
    ttl: int | None = None
    batch_size: int | None = None


class Fault(msgspec.Struct, frozen=True):
    """What is wrong with one field."""

    field: str
    message: str


def check_account(account: UpstreamAccount, password: str = "") -> list[Fault]:
    """Give everything that is wrong with an account, nothing when it can be used."""
    faults = []
    if not _NAME.fullmatch(account.id):
        faults.append(Fault("id", "must be 1 to 128 letters, digits or _ . @ -"))
    if not _is_host(account.host):
        faults.append(Fault("host", "must be a host name or an IP address"))
    if not 1 <= account.port <= _MOST_PORT:
        faults.append(Fault("port", "must be from 1 to 65535"))
    for name, text in (("user", account.user), ("password", password)):
        if len(text) > _LONGEST_TEXT or "\0" in text:
            faults.append(Fault(name, f"must have at most {_LONGEST_TEXT} characters, none of them NUL"))
    for name in ("limit_per_minute", "limit_per_hour", "limit_per_day", "ttl", "batch_size"):
        value = getattr(account, name)
        if value is not None and not 1 <= value <= 10**9:
            faults.append(Fault(name, "must be from 1 to 1000000000, or null"))
    return faults


def route_name(tenant: str, account: str) -> str:
    """Name the route of a tenant's account; neither name has a colon, so that no two accounts share one."""
    return f"{ROUTE_PREFIX}{tenant}:{account}"


def account_of(route: str) -> tuple[str, str] | None:
    """Give tenant and account of a route's name; None for any other route."""
    if not route.startswith(ROUTE_PREFIX):
        return None
    tenant, _, account = route.removeprefix(ROUTE_PREFIX).partition(":")
    return tenant, account


def route_of(tenant: str, account: UpstreamAccount, has_password: bool) -> Route:
    """Give the route to an account's host.

    Port 465 is TLS on connect (RFC 8314 3.3). Certificates are verified wherever TLS is used with a login; `use_tls`
    false sends in the clear, the login too: it is what was asked for. Without a word on it, a login needs TLS.
    """
    implicit = account.port == SUBMISSIONS_PORT and account.use_tls is not False
    if account.use_tls is False:
        level = TlsLevel.NONE
    elif account.use_tls or implicit or has_password:
        level = TlsLevel.VERIFY
    else:
        level = TlsLevel.MAY
    name = route_name(tenant, account.id)
    return Route(
        name,
        Deliver.RELAYHOST,
        (NextHop(_host(account.host), account.port, by_mx=False, implicit_tls=implicit),),
        level,
        login=name if account.user else "",
        allow_plaintext_auth=account.use_tls is False,
    )


def rates_of(account: UpstreamAccount) -> tuple[str, ...]:
    """Give an account's rates as `policy.rate.parse_rate` reads them."""
    pairs = (("min", account.limit_per_minute), ("h", account.limit_per_hour), ("d", account.limit_per_day))
    return tuple(f"{count}/{period}" for period, count in pairs if count is not None)


def limit_of(tenant: str, account: UpstreamAccount) -> Limit:
    """Give what sessions to an account's host are held to, whatever becomes of mail that is beyond it."""
    return Limit(
        LimitMatch(route=route_name(tenant, account.id)),
        message_rate=rates_of(account) or None,
        max_messages_per_connection=account.batch_size,
        idle_timeout=None if account.ttl is None else float(account.ttl),
        label=f"account {account.id}",
    )


def _host(text: str) -> str:
    return text if _is_address(text) else to_a_label(text) or text


def _is_host(text: str) -> bool:
    return _is_address(text) or ("/" not in text and to_a_label(text) is not None)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
