"""Explains what would become of a message: who would take it, how, under whose name, and when; nothing is sent."""

from collections.abc import Callable
from ipaddress import ip_address
from random import Random

import msgspec

from smarthost.assembly import Relay
from smarthost.config import Config
from smarthost.control_verbs import Question, Refusal, Row
from smarthost.crypto.tls import TlsContexts
from smarthost.delivery.resolve import Sites, Unresolved
from smarthost.delivery.tls_policies import TlsPolicies
from smarthost.explain_author import AUTHENTICATED_FOR, PRIVATE, Sending, explain_author
from smarthost.explain_site import explain_hosts, explain_limits, explain_restraints, explain_state, explain_upstreams
from smarthost.from_config import hello_name, make_keyring, make_rules, make_sts
from smarthost.mail.address import domain_of, split_mailbox, to_a_label
from smarthost.mail.entry import Entry, Why
from smarthost.mail.envelope import Envelope, Recipient
from smarthost.mail.message import Arrival, Message
from smarthost.mail.outcome import Action
from smarthost.mail.route import Deliver, Route, Site, Source
from smarthost.network.dial import local_address
from smarthost.network.dns import Resolver
from smarthost.policy.admission import check_sender
from smarthost.policy.limits import LimitTable, OnLimit
from smarthost.policy.restraints import Restraints
from smarthost.policy.suppression import SUPPRESSED, SuppressionPoint
from smarthost.policy.waiting import SENTENCES
from smarthost.queue.intake import REJECTED
from smarthost.queue.rules import Rules, facts_of
from smarthost.report.timestamp import format_end, format_time

SOON = 0.1  # seconds: a wait that nobody notices, as for the disk's word on a quota
_DELIVERY = {
    Deliver.RELAYHOST: "by the route's next hops",
    Deliver.MX: "by the MX hosts of the recipient's domain",
    Deliver.DISCARD: "it is accepted and thrown away",
    Deliver.HOLD: "it is accepted and held until somebody releases it",
    Deliver.REJECT: f"it is refused: {REJECTED}",
}
_UNKNOWN = (
    "the relay is not running: pauses, suspensions, suppressed addresses, limits in use and what waits are not known"
)


class Known(msgspec.Struct, frozen=True):
    """What can be explained from: a configuration's parts, and the running relay where there is one."""

    config: Config
    rules: Rules
    resolver: Resolver
    sites: Sites
    limits: LimitTable
    clock: Callable[[], float]
    tls_policies: TlsPolicies
    relay: Relay | None = None


def known_of(relay: Relay) -> Known:
    """Explain from a running relay, with all that it remembers."""
    policies = relay.tls_policies
    return Known(relay.config, relay.rules, relay.resolver, relay.sites, relay.limits, relay.clock, policies, relay)


def known_from(config: Config, clock: Callable[[], float]) -> Known:
    """Explain from a configuration alone; raises KeyUnreadable."""
    resolver = Resolver(config.dns.servers, clock, lambda *_: None, dnssec=config.dns.dnssec)
    sts = make_sts(config, resolver, TlsContexts(), clock)
    sts.keeps = False
    sites = Sites(resolver, (config.hostname,), Random(), clock, sts)
    rules, limits = make_rules(config, make_keyring(config)), LimitTable(config.limits)
    return Known(config, rules, resolver, sites, limits, clock, TlsPolicies(resolver, clock))


async def explain(known: Known, question: Question) -> Row:
    """Say all that can be said; raises Refusal for what is no address.

    `verdict` is sent, waits, held, discarded, refused, suppressed (accepted, and failed on send), fails (the domain
    takes no mail) or unresolved (DNS gives no answer now).
    """
    sending, notes = _read(known, question)
    recipient = sending.envelope.recipients[0]
    row: Row = {
        "basis": "relay" if known.relay is not None else "configuration",
        "time": format_time(known.clock()),
        "recipient": {"address": recipient.address, "domain": recipient.domain},
        "sender": {"reverse_path": sending.envelope.reverse_path, "author": sending.author, "user": question.user},
        "notes": notes,
    }
    if known.relay is None:
        notes.append(_UNKNOWN)
    route, row["route"] = _explain_route(known, question, sending)
    row["verdict"], site = "sent", None
    refusal = _refusal(known, question, sending)
    if refusal or route.deliver is Deliver.REJECT:
        row["verdict"], row["refusal"] = "refused", refusal or str(REJECTED)
    elif route.deliver in (Deliver.HOLD, Deliver.DISCARD):
        row["verdict"] = "held" if route.deliver is Deliver.HOLD else "discarded"
    elif _is_suppressed(known, question, recipient):
        at_rcpt = known.config.suppression.at is SuppressionPoint.RCPT
        row["verdict"] = "refused" if at_rcpt else "suppressed"
        row["refusal"] = str(SUPPRESSED)
    if route.deliver in (Deliver.RELAYHOST, Deliver.MX):
        site = await _explain_site(known, route, recipient, row)
    if site is not None:
        facts = facts_of(sending.message, recipient.domain, route.name)
        row["limits"] += explain_restraints(known.rules.restraints.of(facts))
        row["limits"] += explain_restraints(Restraints(known.config.limits, OnLimit.ERROR).of(facts))
        row["earliest"] = _explain_time(known, sending, site)
        if row["verdict"] == "sent" and row["earliest"]["why"]:
            row["verdict"] = "waits"
    given = _read_ip(question.address)
    sources = (Source(given),) if given else _sources(route, site)
    hello = hello_name(known.config)
    named = [msgspec.structs.replace(source, hello=source.hello or hello) for source in sources]
    leaving = _as_it_leaves(known, sending, route, notes)
    row |= await explain_author(known.rules.keyring, known.resolver, leaving, named)
    for spf in row["spf"]:
        if not given and not ip_address(spf["address"]).is_global:
            spf["notes"].append(PRIVATE)
        if route.deliver is Deliver.RELAYHOST:
            spf["notes"].append(AUTHENTICATED_FOR)
    return row


def _read(known: Known, question: Question) -> tuple[Sending, list[str]]:
    """Make the message that is asked about, with the rewriting that it would see."""
    notes: list[str] = []
    rewriter, config = known.rules.edit.rewriter, known.config
    assumed = not question.sender
    reverse_path = "" if question.sender == "<>" else _address(question.sender or config.postmaster, config)
    author = _address(question.author, config) if question.author else reverse_path
    if assumed:
        notes.append(f"no --sender was given: {reverse_path} is assumed")
    if not author:
        author = f"MAILER-DAEMON@{config.hostname}"
    address = _address(question.recipient, config)
    written = (("recipient", address), ("reverse_path", reverse_path), ("header_from", author))
    changed: dict[str, str] = {}
    for field, before in written:
        after = getattr(rewriter, field)(before)
        changed[field] = after
        if after != before:
            notes.append(f"[[rewrite]] makes {field} {after} of {before}")
    address = changed["recipient"]
    domain = to_a_label(domain_of(address))
    if domain is None:
        raise Refusal(400, "No such domain", f"{address}: this domain cannot exist in DNS")
    envelope = Envelope(changed["reverse_path"], (Recipient(address, domain),))
    message = Message(0, Arrival(known.clock(), identity=question.user), envelope, 0, tag=question.tag)
    return Sending(message, changed["header_from"]), notes


def _as_it_leaves(known: Known, sending: Sending, route: Route, notes: list[str]) -> Sending:
    """Give the message with the reverse-path that receivers see, which is another where bounces come back to us."""
    terms, envelope = known.config.bounces, sending.envelope
    user = sending.message.arrival.identity
    if not terms.domain or not envelope.reverse_path or not terms.mean(envelope.reverse_path, user, route.name):
        return sending
    notes.append(f"[bounces] has it leave with a return path of our own at {terms.domain}: SPF is judged there")
    seen = msgspec.structs.replace(envelope, reverse_path=terms.mailbox)
    return Sending(msgspec.structs.replace(sending.message, envelope=seen), sending.author)


def _address(text: str, config: Config) -> str:
    """Complete an address; raises Refusal when it is none."""
    split = split_mailbox(text.strip().removeprefix("<").removesuffix(">"))
    if split is None:
        raise Refusal(400, "No address", f"{text[:80]!r} is no address")
    return f"{split[0]}@{split[1] or config.default_domain}"


def _read_ip(text: str) -> str:
    """Check an IP address; raises Refusal when it is none."""
    try:
        return str(ip_address(text)) if text else ""
    except ValueError:
        raise Refusal(400, "No IP address", f"{text[:80]!r} is no IP address") from None


def _refusal(known: Known, question: Question, sending: Sending) -> str:
    """Give our reply to a user who may not send this, "" when the door would take it."""
    if not question.user:
        return ""
    user = known.rules.edit.users.get(question.user)
    if user is None:
        return f"there is no [[user]] named {question.user}"
    refusal = check_sender(user, sending.envelope.reverse_path) or check_sender(user, sending.author)
    return str(refusal) if refusal is not None else ""


def _is_suppressed(known: Known, question: Question, recipient: Recipient) -> bool:
    """Whether nothing is sent to a recipient; a list that only the running relay has read is not asked without it."""
    relay = known.relay
    return relay is not None and relay.suppression.is_suppressed(question.user, recipient)


def _explain_route(known: Known, question: Question, sending: Sending) -> tuple[Route, Row]:
    """Say which route is taken, which rule says so, and whether a rule on replies leads elsewhere for now."""
    recipient, routing = sending.envelope.recipients[0], known.rules.routing
    asked = (sending.envelope.reverse_path, recipient, question.user, question.tag)
    chosen = routing.choose(*asked)
    index = routing.first_match(*asked)
    rule: Row | None = None
    if index is not None:
        match = msgspec.structs.asdict(known.config.route_rules[index].match)
        rule = {"number": index + 1, "match": {key: list(globs) for key, globs in match.items() if globs}}
    relay = known.relay
    route = relay.settler.detours.follow(chosen, recipient.domain) if relay is not None else chosen
    row: Row = {
        "name": route.name,
        "rule": rule,
        "deliver": str(route.deliver),
        "text": _DELIVERY[route.deliver],
        "next_hops": [str(hop) for hop in route.next_hops],
        "login": known.config.credentials[route.login].username if route.login else "",
        "queue": known.rules.queue_for(sending.message, route, recipient.domain),
    }
    if route is not chosen:
        row["instead_of"] = chosen.name
    if route.pool:
        pool = relay.promoter.pool_of(route.queue_for(recipient.domain)) if relay is not None else None
        upstream = (pool.first_usable() if pool is not None else None) or route.pool[0]
        row["upstreams"] = explain_upstreams(route, pool, known.clock())
        row["upstream"] = upstream.name
        return upstream.route, row
    return route, row


async def _explain_site(known: Known, route: Route, recipient: Recipient, row: Row) -> Site | None:
    """Find the site and its hosts; None when there is none, and why is in the row."""
    found = await known.sites.resolve(route, recipient.domain)
    if isinstance(found, Unresolved):
        row["site"] = {"fault": found.reason, "status": str(found.status)}
        if row["verdict"] == "sent":
            row["verdict"] = "fails" if found.action is Action.FAILED else "unresolved"
        return None
    dispatcher = known.relay.dispatchers.get(found.name) if known.relay is not None else None
    row["site"] = {"name": found.name} | explain_state(dispatcher, known.clock())
    connector = known.relay.connector if known.relay is not None else None
    row["hosts"] = await explain_hosts(found, connector, known.tls_policies)
    row["limits"] = explain_limits(known.limits, found, dispatcher)
    return found


def _explain_time(known: Known, sending: Sending, site: Site) -> Row:
    """Say when the message would be tried, and what it would wait for until then."""
    relay, now = known.relay, known.clock()
    if relay is None:
        return {"at": format_time(now), "why": "", "text": "At once, unless the running relay knows better."}
    recipient = sending.envelope.recipients[0]
    queue = known.rules.queue_for(sending.message, site.route, recipient.domain)
    entry = Entry(sending.message, 0, queue, (recipient,), now, now + known.config.retry.lifetime, now)
    reason = relay.reasons.of_new(entry, site, relay.dispatchers.get(site.name))
    suspended = relay.suspender.suspensions.of_mail(sending.message.arrival.identity, sending.message.tag)
    if suspended is not None:
        at = format_end(suspended.until)
        text = f"{SENTENCES[Why.SUSPENDED]} Reason: {suspended.text}."
        return {"at": at, "why": str(Why.SUSPENDED), "text": text}
    if relay.settler.is_stuck:
        return {"at": None, "why": "disk_full", "text": "Nothing is sent until results can be written to the disk."}
    if reason.why is entry.why or (reason.until is not None and reason.until - now < SOON):
        return {"at": format_time(now), "why": "", "text": "At once."}
    until = format_end(reason.until)
    return {"at": until, "why": str(reason.why), "text": reason.text}


def _sources(route: Route, site: Site | None) -> tuple[Source, ...]:
    """Give the addresses that the message may leave from, () where that is unknown."""
    if route.source_address:
        return route.source_address
    for host in site.hosts if site is not None else ():
        for address in host.addresses:
            if found := local_address(address, host.port):
                return (Source(str(ip_address(found.partition("%")[0]))),)
    return ()
