"""Explains a site: its hosts in their order, which are left alone and why, what TLS must prove, and its limits."""

from collections.abc import Iterable

import msgspec

from smarthost.control_verbs import Row
from smarthost.delivery.connect import Connector
from smarthost.delivery.dispatcher import Dispatcher
from smarthost.delivery.pool import Pool
from smarthost.delivery.tls_policies import TlsPolicies
from smarthost.mail.route import Host, Route, Site
from smarthost.network.session import OpenFault
from smarthost.policy.limits import LimitTable
from smarthost.policy.restraints import Restraint
from smarthost.policy.security import TlsPolicy, plan
from smarthost.report.timestamp import format_end, format_time


def explain_state(dispatcher: Dispatcher | None, now: float) -> Row:
    """Say what a site is doing; nothing is known of one that has had no mail since the start."""
    if dispatcher is None:
        return {}
    ready = dispatcher.ready
    row: Row = {
        "state": str(ready.window.state),
        "sessions": len(dispatcher.transfers),
        "sessions_allowed": min(ready.window.limit, ready.window.maximum),
        "waiting": len(ready.todo),
    }
    if ready.suspended_until > now:
        row |= {"suspended_until": format_end(ready.suspended_until), "suspended_by": ready.suspended_by}
    if ready.window.until > now:
        row["throttled_until"] = format_time(ready.window.until)
    if ready.slowed_by:
        row["slowed_by"] = ready.slowed_by
    return row


def explain_upstreams(route: Route, pool: Pool | None, now: float) -> list[Row]:
    """Give the members of a pool in their order: their shares and quotas, and what keeps mail from one just now.

    Nothing is known of what keeps mail away before the first message has gone there.
    """
    rows = []
    for index, upstream in enumerate(route.pool):
        row: Row = {"name": upstream.name, "order": upstream.order, "weight": upstream.weight}
        row["quota"] = list(upstream.quota)
        until, because = pool.members[index].obstacle(now) if pool is not None else (0.0, "")
        if because:
            row |= {"unused_until": format_end(until), "because": because}
        rows.append(row)
    return rows


async def explain_hosts(site: Site, connector: Connector | None, policies: TlsPolicies) -> list[Row]:
    """Give the hosts in their order of trial, each with its addresses, its TLS policy, and why it is left alone.

    Hosts of one preference are shuffled for each session.
    """
    rows = []
    for host in site.hosts:
        row: Row = {
            "name": host.name,
            "port": host.port,
            "preference": host.preference,
            "addresses": [_explain_address(address, connector) for address in host.addresses],
            "tls": _explain_tls(await policies.of(site, host), host),
        }
        paused = connector.host_pause(site, host) if connector is not None else None
        if paused is not None:
            row |= {"left_alone_until": format_time(paused[0]), "because": paused[1].reason}
        rows.append(row)
    return rows


def _explain_address(address: str, connector: Connector | None) -> Row:
    until = connector.trouble(address) if connector is not None else None
    if until is None:
        return {"address": address}
    because = "it did not answer lately, so it is tried behind all others"
    return {"address": address, "last_until": format_time(until), "because": because}


def _explain_tls(policy: TlsPolicy | OpenFault, host: Host) -> Row:
    """Say what TLS must prove at a host, and who says so: the route, the domain's MTA-STS policy, or DANE."""
    if isinstance(policy, OpenFault):
        return {"level": "unknown", "source": "dane", "text": f"the host is not used: {policy.reason}"}
    terms = plan(policy, host)
    if not terms.attempt:
        text = "no TLS"
    elif terms.verify:
        text = f"required, with a certificate that is trusted and valid for {host.name}"
    elif policy.tlsa:
        text = "required, with a certificate that a TLSA record names"
    elif terms.required:
        text = "required; the certificate is not looked at"
    else:
        text = "used where it is offered, plain text otherwise; the certificate is not looked at"
    if host.implicit_tls:
        text = f"on connect, {text}"
    return {"level": str(policy.level), "source": str(policy.source), "text": text, "because": policy.sentence}


def explain_limits(table: LimitTable, site: Site, dispatcher: Dispatcher | None) -> list[Row]:
    """Give each limit that applies: its name, its value, and the [[limit]] that says so, "default" where none does."""
    sources = table.sources(site)
    limits = dispatcher.ready.limits if dispatcher is not None else table.for_site(site)
    rows = []
    for name, value in msgspec.structs.asdict(limits).items():
        written = [str(rate) for rate in value] if isinstance(value, tuple) else value
        if written != []:
            rows.append({"name": name, "value": written, "source": sources.get(name, "default")})
    capacity = dispatcher.ready.capacity if dispatcher is not None else None
    if capacity is not None and capacity.most:
        source = f"learned: the site refused one more; remembered until {format_time(capacity.until)}"
        rows.append({"name": "recipients_taken", "value": capacity.most, "source": source})
    return rows


def explain_restraints(restraints: Iterable[Restraint]) -> list[Row]:
    """Give each limit of a part of the mail that a message belongs to, with the [[limit]] that says so."""
    rows = []
    for restraint in restraints:
        for key in ("message_rate", "recipient_rate", "max_connections"):
            value = getattr(restraint, key)
            if value:
                written = [str(rate) for rate in value] if isinstance(value, tuple) else value
                rows.append({"name": key, "value": written, "source": restraint.label})
    return rows
