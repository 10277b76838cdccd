"""Works out from a plan alone in how many seconds mail for a site without faults is relayed: nobody starves."""

from sim_plan import HOME, LIFETIME, WELL, Plan
from sim_site import Site, Temper

from smarthost.policy.glob import compile_globs
from smarthost.policy.limits import Limit
from smarthost.policy.rate import parse_rate

PROMPT = 60.0  # seconds, for a site that nothing holds back
ROUND_TRIPS = 10  # a transaction, and the connection that it may need, without PIPELINING
FIRST_SESSIONS = 5  # that a site has before it has shown anything
# How a site may be without being faulty.
HARMLESS = ("latency", "think", "split", "pipelining", "dsn", "chunking", "delay")


def patience_of(plan: Plan) -> dict[str, float]:
    """Give the seconds by domain; a domain of which nothing can be promised is not there."""
    if (plan.relayhosts and not plan.relayed) or any(limit.match.sender_domain for limit in plan.limits):
        return {}
    moved = {domain for _, domain, _ in plan.moves}
    found = {WELL: PROMPT}
    for site in plan.sites:
        domains = [domain for domain, hosts in plan.exchangers.items() if hosts[0][1].endswith(f".{site.name}")]
        if site.name in (HOME, WELL) or not _is_plain(site) or plan.dns_outages or moved:
            continue
        if any(recipient.endswith(tuple(f"@{domain}" for domain in domains)) for recipient in plan.refusals):
            continue
        seconds = PROMPT + _seconds_of_work(plan, site, domains)
        if seconds < LIFETIME / 2:
            found |= dict.fromkeys(set(domains) - set(plan.relayed), seconds)
    return found


def _is_plain(site: Site) -> bool:
    plain, temper = vars(Temper()), vars(site.temper)
    return all(temper[name] == plain[name] or name in HARMLESS for name in plain)


def _seconds_of_work(plan: Plan, site: Site, domains: list[str]) -> float:
    """Add up what all mail for a site takes, one recipient a transaction, with the fewest sessions."""
    count = sum(recipient.rpartition("@")[2] in domains for mail in plan.mails for recipient in mail.recipients)
    temper = site.temper
    limits = _limits_of(plan, site)
    reply = 8 * temper.latency + 2 * temper.think
    most = limits.max_connections if limits and limits.max_connections else FIRST_SESSIONS
    seconds = count * ROUND_TRIPS * reply / min(most, FIRST_SESSIONS)
    restraints = _restraints_of(plan, domains)
    rates = [text for each in restraints for text in (*(each.message_rate or ()), *(each.recipient_rate or ()))]
    if any(each.max_connections for each in restraints):
        seconds += count * ROUND_TRIPS * reply
    if limits is None and not rates:
        return seconds
    if limits is not None:
        rates += [*(limits.message_rate or ()), *([limits.max_connection_rate] if limits.max_connection_rate else [])]
    for text in rates:
        rate = parse_rate(text)
        if rate.is_quota and count > rate.count / 2:
            return LIFETIME
        seconds += count * rate.period / rate.count
    return seconds * (1 + len(plan.crashes))


def _limits_of(plan: Plan, site: Site) -> Limit | None:
    return next((limit for limit in plan.limits if limit.match.site == f"mx0.{site.name}"), None)


def _restraints_of(plan: Plan, domains: list[str]) -> list[Limit]:
    """Give the limits of destinations of a site."""
    globs = [(limit, compile_globs((limit.match.destination,))) for limit in plan.limits if limit.match.destination]
    return [limit for limit, glob in globs if any(map(glob.fullmatch, domains))]
