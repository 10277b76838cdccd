"""Reads where mail goes: the relayhost, the [[route]] rules, and the logins they need."""

from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from smarthost.config_egress import read_sources
from smarthost.config_oauth import read_grant, refuse_grant
from smarthost.config_read import (
    Table,
    from_environment,
    read_bool,
    read_choice,
    read_count,
    read_existing_file,
    read_name,
)
from smarthost.config_types import Login, Mechanism
from smarthost.config_words import is_loopback, read_glob, read_next_hop, read_rate, read_word
from smarthost.mail.route import Deliver, NextHop, Route, TlsLevel, Upstream
from smarthost.network.oauth_grant import Grant
from smarthost.policy.routing import Match, RouteRule

NOT_YET = "is not supported by this release"


class TlsOut(msgspec.Struct, frozen=True):
    """What holds for MX delivery: the TLS level, and whether MTA-STS policies are heeded."""

    level: TlsLevel
    mta_sts: bool


class Routing(msgspec.Struct, frozen=True):
    """The rules in their order, the route of what no rule matches, and the logins by the name of their route."""

    rules: tuple[RouteRule, ...]
    fallback: Route
    credentials: dict[str, Login]


def read_routing(top: Table) -> Routing:
    """Read relayhost, relayhost_tls, relayhost_auth, relayhost_ca and the [[route]] tables."""
    credentials: dict[str, Login] = {}
    mx = _read_tls_out(top.table("tls_out"))
    fallback = _read_fallback(top, mx, credentials)
    rules = []
    names = {fallback.name}
    for index, table in enumerate(top.tables("route")):
        rule = _read_rule(table, f"route{index + 1}", mx, credentials)
        if rule.route.name in names:
            reserved = rule.route.name == fallback.name
            table.refuse(
                "name",
                f'is "{rule.route.name}", which '
                + ("names the route of all other mail" if reserved else "another route has")
                + "; choose another name",
            )
        names.add(rule.route.name)
        rules.append(rule)
    return Routing(tuple(rules), fallback, credentials)


def _read_fallback(top: Table, mx: TlsOut, credentials: dict[str, Login]) -> Route:
    next_hops = _read_hops(top)
    if not next_hops and not top.values.get("relayhost"):
        keys = [f"relayhost_{each}" for each in ("tls", "auth", "ca", "client_certificate", "client_key")]
        for key in keys:
            if top.values.get(key) and "relayhost" not in top.values:
                top.refuse(key, "has no meaning without relayhost")
        top.know(*keys)
        return Route("mx", Deliver.MX, tls=mx.level, mta_sts=mx.mta_sts)
    name = Deliver.RELAYHOST.value
    tls = top.take("relayhost_tls", read_choice(TlsLevel), _default_tls(next_hops))
    certificate, key = _read_client_pair(top, "relayhost_client_certificate", "relayhost_client_key", tls)
    allow_plaintext = _read_login(top, "relayhost_auth", name, credentials)
    route = Route(
        name,
        Deliver.RELAYHOST,
        next_hops,
        tls,
        login=name if name in credentials else "",
        allow_plaintext_auth=allow_plaintext,
        ca_file=str(top.take("relayhost_ca", read_existing_file, None) or ""),
        client_certificate=certificate,
        client_key=key,
    )
    return _with_pool(top, ("relayhost_tls", "relayhost_auth"), route, credentials)


def _read_rule(table: Table, default_name: str, mx: TlsOut, credentials: dict[str, Login]) -> RouteRule:
    name = table.take("name", read_word, default_name)
    next_hops = _read_hops(table)
    deliver = table.take("deliver", read_choice(Deliver), Deliver.RELAYHOST)
    if table.has("deliver") == table.has("relayhost"):
        which = "and relayhost are both given" if table.has("relayhost") else "or relayhost must be given"
        table.refuse("deliver", f'{which}; write relayhost = [...] or deliver = "mx", "discard", "hold" or "reject"')
    elif deliver is Deliver.RELAYHOST and not next_hops and not table.values.get("relayhost"):
        table.refuse(
            "deliver" if table.has("deliver") else "relayhost", 'must name a next hop: relayhost = ["[host]:587"]'
        )
    default = _default_tls(next_hops) if deliver is Deliver.RELAYHOST else mx.level
    tls = table.take("tls", read_choice(TlsLevel), default)
    certificate, key = _read_client_pair(table, "client_certificate", "client_key", tls)
    mta_sts = table.take("mta_sts", read_bool, mx.mta_sts)
    allow_plaintext = _read_login(table, "auth", name, credentials)
    ca_file = table.take("ca", read_existing_file, None)
    sources = read_sources(table, "source_address")
    _refuse_meaningless(table, deliver)
    route = Route(
        name,
        deliver,
        next_hops,
        tls,
        login=name if name in credentials else "",
        allow_plaintext_auth=allow_plaintext,
        ca_file=str(ca_file or ""),
        source_address=sources,
        client_certificate=certificate,
        client_key=key,
        mta_sts=mta_sts and deliver is Deliver.MX,
    )
    route = _with_pool(table, ("tls", "auth"), route, credentials)
    match = _read_match(table.table("match"))
    table.finish()
    return RouteRule(match, route)


def _read_match(table: Table) -> Match:
    fields = {key: table.take_list(key, read_glob, or_one=True) for key in ("sender", "recipient", "user", "tag")}
    for key in fields:
        if table.values.get(key) == []:
            table.refuse(key, "is an empty array, which would match nothing; leave it out to match everything")
    table.finish()
    return Match(**fields)


def _default_tls(next_hops: tuple[NextHop, ...]) -> TlsLevel:
    # On its own machine a relay can neither be listened to nor be someone else.
    is_local = bool(next_hops) and all(is_loopback(hop.host) for hop in next_hops)
    return TlsLevel.MAY if is_local else TlsLevel.VERIFY


def _read_tls_out(table: Table) -> TlsOut:
    """Read [tls_out]: what holds for MX delivery where no route says otherwise."""
    found = TlsOut(table.take("level", read_choice(TlsLevel), TlsLevel.MAY), table.take("mta_sts", read_bool, True))
    if found.level is TlsLevel.NONE and found.mta_sts and table.has("mta_sts"):
        table.refuse("mta_sts", 'is true, but level is "none"; allowed are may, encrypt, verify and dane')
    table.finish()
    return found


def _refuse_meaningless(table: Table, deliver: Deliver) -> None:
    """Refuse what says nothing about how a route delivers."""
    of_relayhost = {"auth"}
    of_mx = {"mta_sts"}
    of_both = {"tls", "ca", "source_address", "client_certificate", "client_key"}
    meant = {Deliver.RELAYHOST: of_relayhost | of_both, Deliver.MX: of_mx | of_both}.get(deliver, set())
    for key in sorted((of_relayhost | of_mx | of_both) - meant):
        if table.values.get(key):
            table.refuse(key, f'has no meaning with deliver = "{deliver.value}"')


def _read_client_pair(table: Table, certificate_key: str, key_key: str, tls: TlsLevel) -> tuple[str, str]:
    """Read the files of the certificate that we show, and of its key; ("", "") for none."""
    certificate = table.take(certificate_key, read_existing_file, None)
    key = table.take(key_key, read_existing_file, None)
    for one, other in ((certificate_key, key_key), (key_key, certificate_key)):
        if table.values.get(one) and not table.values.get(other):
            table.refuse(one, f"is given without {other}; give both")
    if certificate is not None and tls is TlsLevel.NONE:
        table.refuse(certificate_key, "is shown over TLS only, and TLS is off; choose another level than none")
    return (str(certificate), str(key)) if certificate is not None and key is not None else ("", "")


def _read_login(top: Table, key: str, route: str, credentials: dict[str, Login]) -> bool:
    """Put the login of a route into the credentials; give whether it may be sent without TLS."""
    if not top.has(key):
        top.know(key)
        return False
    problems = len(top.findings.problems)
    table = top.table(key)
    if len(top.findings.problems) > problems:
        return False
    mechanism = table.take("mechanism", read_choice(Mechanism), Mechanism.NEGOTIATED)
    username = table.take("username", read_name, "")
    if not table.has("username"):
        table.refuse("username", "is missing")
    grant: Grant | None = None
    password = ""
    if mechanism is Mechanism.XOAUTH2:
        grant = read_grant(table, route, username)
    else:
        refuse_grant(table)
        password = _read_password(table)
    allow_plaintext = table.take("allow_plaintext", read_bool, False)
    table.finish()
    credentials[route] = Login(username, password, mechanism, grant)
    return allow_plaintext


def _read_password(table: Table) -> str:
    problems = len(table.findings.problems)
    password = table.secret("password")
    if not password and len(table.findings.problems) == problems:
        table.refuse("password", "is missing; give password or password_file")
    if table.is_for_all("password"):
        table.warn("password", "stands in a file that every user of this machine can read; use password_file")
    return password


def _check_security(table: Table, keys: tuple[str, str], route: Route) -> None:
    tls_key, auth_key = keys
    implicit = [hop for hop in route.next_hops if hop.implicit_tls]
    if route.tls is TlsLevel.NONE and implicit:
        table.refuse(tls_key, f'is "none", but {implicit[0]} speaks TLS on connect; allowed are encrypt and verify')
    elif route.login and not route.allow_plaintext_auth and len(implicit) < len(route.next_hops):
        if route.tls is TlsLevel.NONE:
            allowed = f'set {tls_key} = "verify", or allow_plaintext = true in {auth_key}'
            table.refuse(auth_key, f"would send the password without TLS; {allowed}")
        elif route.tls is TlsLevel.MAY:
            table.warn(auth_key, "is used only where TLS can be had; mail waits while the next hop offers none")


def _upstreams(table: Table) -> list[object]:
    """Give what relayhost lists where one of it is a table, so that it is a pool; nothing where none is."""
    value = from_environment(table.values.get("relayhost"))
    values = value if isinstance(value, list) else [value]
    return values if any(isinstance(each, dict) for each in values) else []


def _read_hops(table: Table) -> tuple[NextHop, ...]:
    """Read the next hops of relayhost: names, and the hosts of tables."""
    values = _upstreams(table)
    if not values:
        return table.take_list("relayhost", read_next_hop, or_one=True)
    table.know("relayhost")
    hops = []
    for index, value in enumerate(values):
        place = table if not isinstance(value, dict) else _upstream_table(table, index, value)
        key = "relayhost" if place is table else "host"
        if place is not table and not place.has(key):
            place.refuse(key, 'is missing; write host = "[smtp.example.net]:587"')
            continue
        try:
            hops.append(read_next_hop(value if place is table else place.values[key]))
        except ValueError as error:
            path = (*table.path, key, index) if place is table else (*place.path, key)
            table.findings.refuse(path, str(error))
    return tuple(hops) if len(hops) == len(values) else ()


def _upstream_table(table: Table, index: int, value: dict[str, Any]) -> Table:
    is_one = isinstance(from_environment(table.values["relayhost"]), dict)
    return Table(value, (*table.path, "relayhost", *(() if is_one else (index,))), table.findings)


def _with_pool(table: Table, keys: tuple[str, str], route: Route, credentials: dict[str, Login]) -> Route:
    """Check that a route's logins are safe; give it the upstreams of its pool, if relayhost is one."""
    values = _upstreams(table)
    if not values or len(route.next_hops) < len(values):
        _check_security(table, keys, route)
        return route
    pool: list[Upstream] = []
    places = [_upstream_table(table, at, value if isinstance(value, dict) else {}) for at, value in enumerate(values)]
    orders = _read_orders(table, places)
    for index, (value, hop, place, order) in enumerate(zip(values, route.next_hops, places, orders, strict=True)):
        tls = route.tls if table.has(keys[0]) else _default_tls((hop,))
        alone = msgspec.structs.replace(route, next_hops=(hop,), tls=tls)
        upstream = _read_upstream(place, alone, order, f"{route.name}/{index + 1}", credentials)
        pool.append(upstream)
        check = (place, ("tls", "auth")) if isinstance(value, dict) else (table, keys)
        _check_security(*check, upstream.route)
    named = sorted(_named(table, pool, credentials), key=lambda upstream: upstream.order)
    return msgspec.structs.replace(route, pool=tuple(named))


def _read_orders(table: Table, places: Sequence[Table]) -> list[int]:
    """Say for each member of a pool when its turn comes: by its `order`, which all have or none has.

    Without it that is their place in the list, but neighbours with a weight share theirs.
    """
    if not any(place.has("order") for place in places):
        found: list[int] = []
        for place, before in zip(places, (None, *places), strict=False):
            shares = before is not None and before.has("weight") and place.has("weight")
            found.append(found[-1] + (not shares) if found else 0)
        return found
    for index, place in enumerate(places):
        if not place.has("order"):
            what = "has no order, but another upstream has; write a table with host and order for each"
            table.findings.refuse((*table.path, "relayhost", index), what)
    return [place.take("order", read_count, 1) for place in places]


def _read_upstream(table: Table, route: Route, order: int, login: str, credentials: dict[str, Login]) -> Upstream:
    """Read one member of a pool, and its login by its name; what it leaves out is the route's."""
    table.know("host", "order")
    weight = table.take("weight", read_count, 1)
    quota = table.take_list("quota", read_rate, or_one=True)
    allow_plaintext = _read_login(table, "auth", login, credentials)
    if table.has("auth"):
        route = msgspec.structs.replace(
            route, login=login if login in credentials else "", allow_plaintext_auth=allow_plaintext
        )
    tls = table.take("tls", read_choice(TlsLevel), route.tls)
    certificate, key = _read_client_pair(table, "client_certificate", "client_key", tls)
    route = msgspec.structs.replace(
        route,
        tls=tls,
        ca_file=str(table.take("ca", read_existing_file, None) or route.ca_file),
        client_certificate=certificate or route.client_certificate,
        client_key=key or route.client_key,
    )
    table.finish()
    return Upstream(route, order, weight, quota)


def _named(table: Table, pool: Sequence[Upstream], credentials: dict[str, Login]) -> tuple[Upstream, ...]:
    """Name the members of a pool by their next hops, and by their user names where they have the same one."""
    hops = [str(upstream.route.next_hops[0]) for upstream in pool]
    names: dict[str, Upstream] = {}
    for index, (hop, upstream) in enumerate(zip(hops, pool, strict=True)):
        login = credentials.get(upstream.route.login)
        name = f"{login.username}@{hop}" if login is not None and hops.count(hop) > 1 else hop
        if name in names:
            table.findings.refuse((*table.path, "relayhost", index), f"is {name}, which is given twice")
        route = msgspec.structs.replace(upstream.route, upstream=name)
        names[name] = msgspec.structs.replace(upstream, route=route)
    return tuple(names.values())


def check_route_name(table: Table, key: str, name: str, names: Collection[str]) -> None:
    """Refuse the name of a route that does not exist."""
    if name and name not in names:
        table.refuse(key, f'is "{name}", but there is no such route; there are: {", ".join(sorted(names))}')
