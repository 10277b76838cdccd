"""Reads [bounces]: whose bounces come back to the relay itself, and what its listeners take of them."""

from collections.abc import Collection, Sequence

from smarthost.config_read import Table, read_bool, read_count, read_positive_duration, read_positive_size, read_text
from smarthost.config_routes import check_route_name
from smarthost.config_words import read_domain, read_glob, read_optional, read_rate, read_user_name
from smarthost.policy.admission import Listener, Role
from smarthost.policy.bounce_terms import BounceTerms

_SHORTEST_SECRET = 16  # characters


def read_bounces(table: Table, listeners: Sequence[Listener], routes: Collection[str]) -> BounceTerms:
    """Read [bounces]; `routes` are the names of all routes."""
    default = BounceTerms()
    terms = BounceTerms(
        domain=table.take("domain", read_optional(read_domain), ""),
        secret=table.secret("secret"),
        http=table.take("http", read_bool, default.http),
        replaces_return_path=table.take("replaces_return_path", read_bool, default.replaces_return_path),
        senders=table.take_list("senders", read_glob),
        users=table.take_list("users", read_user_name),
        routes=table.take_list("routes", read_text),
        lifetime=table.take("lifetime", read_positive_duration, default.lifetime),
        max_message_size=table.take("max_message_size", read_positive_size, default.max_message_size),
        max_connections=table.take("max_connections", read_count, default.max_connections),
        message_rate=table.take_list("message_rate", read_rate, default.message_rate, or_one=True),
    )
    if terms.secret and len(terms.secret) < _SHORTEST_SECRET:
        key = "secret_file" if table.has("secret_file") else "secret"
        table.refuse(key, f"has less than {_SHORTEST_SECRET} characters; make one by: openssl rand -hex 32")
    for name in terms.routes:
        check_route_name(table, "routes", name, routes)
    hears = any(listener.role is Role.BOUNCES for listener in listeners)
    if not terms.domain:
        for key in ("secret", "secret_file", "senders", "users", "routes"):
            if table.has(key) and table.values[key]:
                table.refuse(key, "is given without domain, so that it means nothing; give the domain of return paths")
        if hears and not table.values.get("domain"):
            table.refuse("domain", 'is missing: a [[listener]] has role = "bounces"; give the domain whose MX it is')
    elif not hears:
        table.warn("domain", 'is given, but no [[listener]] has role = "bounces": another relay has to take them')
    table.finish()
    return terms
