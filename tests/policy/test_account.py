"""Accounts: what is wrong with one, and the route and limit that it is."""

import msgspec
import pytest

from smarthost.mail.route import TlsLevel
from smarthost.policy.account import (
    Behavior,
    UpstreamAccount,
    account_of,
    check_account,
    limit_of,
    rates_of,
    route_name,
    route_of,
)

ACCOUNT = UpstreamAccount("main", "smtp.example.net", user="u")


def test_a_good_account_has_no_faults() -> None:
    """Names, addresses and the whole range of numbers pass."""
    assert check_account(ACCOUNT, "secret") == []
    assert check_account(msgspec.structs.replace(ACCOUNT, host="::1", port=465, limit_per_day=1)) == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"id": ""}, "id"),
        ({"id": "a/b"}, "id"),
        ({"id": "x" * 129}, "id"),
        ({"host": ""}, "host"),
        ({"host": "a b"}, "host"),
        ({"host": "http://x.example/"}, "host"),
        ({"port": 0}, "port"),
        ({"port": 65536}, "port"),
        ({"user": "a\0b"}, "user"),
        ({"limit_per_minute": 0}, "limit_per_minute"),
        ({"limit_per_hour": -1}, "limit_per_hour"),
        ({"limit_per_day": 10**10}, "limit_per_day"),
        ({"ttl": 0}, "ttl"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_each_fault_names_its_field(changes: dict[str, object], field: str) -> None:
    """One fault, and the field that has it."""
    assert [fault.field for fault in check_account(msgspec.structs.replace(ACCOUNT, **changes))] == [field]


@pytest.mark.parametrize(
    ("port", "use_tls", "password", "level", "implicit"),
    [
        (587, None, True, TlsLevel.VERIFY, False),
        (587, None, False, TlsLevel.MAY, False),
        (587, True, False, TlsLevel.VERIFY, False),
        (587, False, True, TlsLevel.NONE, False),
        (465, None, False, TlsLevel.VERIFY, True),
        (465, True, True, TlsLevel.VERIFY, True),
        (465, False, True, TlsLevel.NONE, False),
    ],
)
def test_tls_follows_port_and_wish(
    port: int, use_tls: bool | None, password: bool, level: TlsLevel, implicit: bool
) -> None:
    """Port 465 is TLS on connect, a login wants TLS, and a password goes in the clear only where that was asked for."""
    route = route_of("acme", msgspec.structs.replace(ACCOUNT, port=port, use_tls=use_tls), password)
    assert (route.tls, route.next_hops[0].implicit_tls) == (level, implicit)
    assert route.allow_plaintext_auth is (use_tls is False)
    assert route.login == route.name == "account:acme:main" and not route.next_hops[0].by_mx


def test_the_name_of_a_route_tells_tenant_and_account() -> None:
    """Both come back from it, and no other route's name is taken for one."""
    assert account_of(route_name("acme", "a@b")) == ("acme", "a@b")
    assert account_of("relayhost") is None


def test_limits_hold_for_the_route() -> None:
    """Each number is a rate of its period; ttl and batch_size are a session's."""
    account = msgspec.structs.replace(
        ACCOUNT,
        limit_per_minute=60,
        limit_per_hour=100,
        limit_per_day=1000,
        limit_behavior=Behavior.REJECT,
        ttl=300,
        batch_size=7,
    )
    limit = limit_of("acme", account)
    assert rates_of(account) == limit.message_rate == ("60/min", "100/h", "1000/d")
    assert (limit.idle_timeout, limit.max_messages_per_connection) == (300.0, 7)
    assert limit.match.route == "account:acme:main" and limit.title == "account main"
    assert limit_of("acme", ACCOUNT).message_rate is None
