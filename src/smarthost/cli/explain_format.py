"""How an explanation looks to a person: one fact a line, in the order of a message's way."""

from collections.abc import Iterator
from typing import Any

from smarthost.cli.queue_format import time_left
from smarthost.cli.table import printable

Row = dict[str, Any]
Line = tuple[str, str]

_VERDICTS = {
    "sent": "it would be accepted and sent at once",
    "waits": "it would be accepted, and wait",
    "held": "it would be accepted, and held until somebody releases it",
    "discarded": "it would be accepted and thrown away",
    "refused": "it would be refused",
    "suppressed": "it would be accepted, and fail: the recipient is on the suppression list",
    "fails": "it would be accepted, and fail: the domain takes no mail",
    "unresolved": "it would be accepted, and wait: DNS gives no answer about where to deliver",
}
_BASES = {
    "relay": "the running relay",
    "configuration": "the configuration alone: no relay is running",
}


def format_explanation(row: Row, now: float) -> str:
    """Lay out an explanation, each line with a newline at its end."""
    lines = [*_message(row), *_route(row), *_site(row, now), *_author(row), *_limits(row), *_time(row, now)]
    width = max(len(name) for name, _ in lines)
    return "".join(f"{name:>{width}}  {printable(text)}\n" for name, text in lines)


def _message(row: Row) -> Iterator[Line]:
    verdict: str = row["verdict"]
    is_sent = verdict == "sent" and row["basis"] == "configuration"
    yield "verdict", "it would be accepted and sent" if is_sent else _VERDICTS.get(verdict, verdict)
    if row.get("refusal"):
        yield "", row["refusal"]
    yield "known from", _BASES[row["basis"]]
    yield "recipient", row["recipient"]["address"]
    sender = row.get("sender", {})
    if sender:
        by = f", handed in by {sender['user']}" if sender["user"] else ""
        yield "sender", f"<{sender['reverse_path']}>, header From {sender['author']}{by}"
    for note in row.get("notes", ()):
        yield "note", note


def _route(row: Row) -> Iterator[Line]:
    route = row.get("route")
    if route is None:
        return
    rule = route["rule"]
    if rule is None:
        why = "no [[route]] matches"
    elif rule["match"]:
        why = f"[[route]] {rule['number']}: " + ", ".join(f"{key} {' '.join(v)}" for key, v in rule["match"].items())
    else:
        why = f"[[route]] {rule['number']}, which matches everything"
    yield "route", f"{route['name']} ({why})"
    if "instead_of" in route:
        yield "", f"instead of {route['instead_of']}: a rule on replies leads its mail here for now"
    yield "", route["text"]
    for hop in () if "upstreams" in route else route["next_hops"]:
        yield "next hop", hop
    for upstream in route.get("upstreams", ()):
        quota = f", quota {', '.join(upstream['quota'])}" if upstream["quota"] else ""
        yield "upstream", f"{upstream['name']}, order {upstream['order']}, weight {upstream['weight']}{quota}"
        if "because" in upstream:
            until = f" until {upstream['unused_until']}" if upstream["unused_until"] else ""
            yield "", f"not used{until}: {upstream['because']}"
    if route["login"]:
        yield "login", route["login"]


def _site(row: Row, now: float) -> Iterator[Line]:
    site = row.get("site")
    if site is None:
        return
    if "fault" in site:
        yield "site", f"none: {site['fault']} ({site['status']})"
        return
    yield "site", site["name"]
    if "state" in site:
        allowed = f" of {site['sessions_allowed']} allowed now" if site["state"] == "ready" else ""
        yield "", f"{site['state']}: {site['sessions']} sessions open{allowed}, {site['waiting']} messages ready to go"
    for key, word in (("suspended_until", "suspended"), ("throttled_until", "left alone")):
        if key in site:
            by = f" by {site['suspended_by']}" if key == "suspended_until" else ""
            until = f" until {site[key]} ({time_left(site[key], now)})" if site[key] else ""
            yield "", f"{word}{until}{by}"
    if "slowed_by" in site:
        yield "", f"slowed down by {site['slowed_by']}"
    for number, host in enumerate(row.get("hosts", ()), 1):
        yield f"host {number}", f"{host['name']}:{host['port']}, preference {host['preference']}"
        if "left_alone_until" in host:
            yield "", f"left alone until {host['left_alone_until']}: {host['because']}"
        for address in host["addresses"]:
            until = f": {address['because']}, until {address['last_until']}" if "last_until" in address else ""
            yield "", address["address"] + until
        tls = host["tls"]
        yield "TLS", f"{tls['level']} ({tls['source']}): {tls['text']}"


def _author(row: Row) -> Iterator[Line]:
    if "signatures" in row and not row["signatures"]:
        yield "signature", "none: no [[dkim]] key is for the From domain"
    for key in row.get("signatures", ()):
        yield "signature", f"{key['selector']}._domainkey.{key['domain']}, {key['algorithm']}: {key['text']}"
    for spf in row.get("spf", ()):
        decided = f" by {spf['mechanism']}" if spf["mechanism"] else ""
        yield "SPF", f"{spf['result']}{decided} for {spf['domain']} from {spf['address']} ({spf['explanation']})"
        for note in spf["notes"]:
            yield "", note
    dmarc = row.get("dmarc")
    if dmarc is None:
        return
    yield "DMARC", dmarc["text"]
    if "author_domain" in dmarc:
        dkim = ", ".join(dmarc["dkim_aligned"]) or "none"
        yield "", f"aligned signatures: {dkim}; SPF is {'aligned' if dmarc['spf_aligned'] else 'not aligned'}"
    if dmarc["policy"] is not None:
        modes = {"r": "relaxed", "s": "strict"}
        where = f"{dmarc['at']} asks for {dmarc['policy']}, DKIM {modes[dmarc['adkim']]}, SPF {modes[dmarc['aspf']]}"
        yield "", f"{where}; organisation {dmarc['organisation']}"


def _limits(row: Row) -> Iterator[Line]:
    for index, limit in enumerate(row.get("limits", ())):
        value = ", ".join(limit["value"]) if isinstance(limit["value"], list) else limit["value"]
        source = f" ({limit['source']})" if limit.get("source") else ""
        yield "limits" if index == 0 else "", f"{limit['name']} {value}{source}"


def _time(row: Row, now: float) -> Iterator[Line]:
    earliest = row.get("earliest")
    if earliest is None:
        return
    at = earliest["at"]
    yield "earliest", f"{at} ({time_left(at, now)})" if at else "nobody can say"
    if earliest["why"]:
        yield "because", f"{earliest['why']}: {earliest['text']}"
    else:
        yield "", earliest["text"]
