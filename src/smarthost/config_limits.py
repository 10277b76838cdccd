"""Reads the [[limit]] tables: what they are about, and what they allow."""

from collections.abc import Collection

from smarthost.config_read import Table, read_choice, read_count, read_positive_duration
from smarthost.config_routes import check_route_name
from smarthost.config_words import read_glob, read_optional, read_rate, read_word
from smarthost.policy.limits import Limit, LimitMatch, OnLimit

_OF_MAIL = ("destination", "sender_domain", "user", "tag")
_OF_SITES = ("max_connection_rate", "max_messages_per_connection", "max_recipients_per_transaction", "idle_timeout")
_KNOWN_AT_THE_DOOR = ("destination", "sender_domain", "user")


def read_limits(top: Table, routes: Collection[str]) -> tuple[Limit, ...]:
    """Read the [[limit]] tables; `routes` are the names that may be matched."""
    return tuple(_read_limit(table, routes, number) for number, table in enumerate(top.tables("limit"), 1))


def _read_limit(table: Table, routes: Collection[str], number: int) -> Limit:
    limit = Limit(
        match=_read_match(table.table("match"), routes),
        max_connections=table.take("max_connections", read_count, None),
        max_connection_rate=table.take("max_connection_rate", read_rate, None),
        message_rate=_read_rates(table, "message_rate"),
        max_messages_per_connection=table.take("max_messages_per_connection", read_count, None),
        max_recipients_per_transaction=table.take("max_recipients_per_transaction", read_count, None),
        idle_timeout=table.take("idle_timeout", read_positive_duration, None),
        recipient_rate=_read_rates(table, "recipient_rate"),
        on_limit=table.take("on_limit", read_choice(OnLimit), OnLimit.DEFER),
        number=number,
    )
    if not limit.match.is_of_site:
        for key in _OF_SITES:
            if table.has(key):
                table.refuse(key, "is for whole sites; it is allowed where match has site and route only")
    if limit.on_limit is OnLimit.ERROR:
        _check_error(table, limit)
    table.finish()
    return limit


def _read_rates(table: Table, key: str) -> tuple[str, ...] | None:
    rates = table.take_list(key, read_rate, or_one=True)
    return rates if table.has(key) else None


def _read_match(table: Table, routes: Collection[str]) -> LimitMatch:
    match = LimitMatch(
        site=table.take("site", read_optional(read_glob), ""),
        route=table.take("route", read_optional(read_word), ""),
        destination=table.take("destination", read_optional(read_glob), ""),
        sender_domain=table.take("sender_domain", read_optional(read_glob), ""),
        user=table.take("user", read_optional(read_glob), ""),
        tag=table.take("tag", read_optional(read_glob), ""),
    )
    check_route_name(table, "route", match.route, routes)
    if match.site and not match.is_of_site:
        given = next(key for key in _OF_MAIL if getattr(match, key))
        table.refuse("site", f"stands beside {given}; a limit with {given} may have a route, and no site")
    table.finish()
    return match


def _check_error(table: Table, limit: Limit) -> None:
    """What is refused at the door is counted there: it has to be known there, and is no matter of connections."""
    match = limit.match
    if match.site or match.route or match.tag or not any(getattr(match, key) for key in _KNOWN_AT_THE_DOOR):
        allowed = ", ".join(_KNOWN_AT_THE_DOOR)
        table.refuse("on_limit", f'is "error", which is for limits whose match has nothing but {allowed}')
    if table.has("max_connections"):
        table.refuse("max_connections", 'does not go with on_limit = "error"; allowed are message_rate, recipient_rate')
