"""Works out from a plan alone in how many seconds mail for a site without faults is relayed: nobody starves."""

from sim_plan import GONE, HOME, LIFETIME, NULL, UNSURE, WELL, Plan
from sim_site import Site, Temper

from smarthost.mail.route import TlsLevel
from smarthost.policy.glob import compile_globs
from smarthost.policy.limits import Limit
from smarthost.policy.rate import parse_rate

PROMPT = 60.0  # seconds, for a site that nothing holds back
FAIL_OVER = 600.0  # seconds, for a pool: two retries, and connections that nobody answers
ROUND_TRIPS = 10  # a transaction, and the connection that it may need, without PIPELINING
FIRST_SESSIONS = 5  # that a site has before it has shown anything
# How a site may be without being faulty.
HARMLESS = ("latency", "wants_login", "by_token", "think", "split", "pipelining", "dsn", "chunking", "delay", "hint")
HARMLESS += ("eight_bit_mime", "smtputf8")


def patience_of(plan: Plan) -> dict[str, float]:
    """Give the seconds by domain; a domain of which nothing can be promised is not there.

    They do not count for recipients who are refused for a while.
    """
    if any(limit.match.sender_domain or limit.match.user for limit in plan.limits):
        return {}
    if plan.relayhosts and not plan.relayed:
        return dict.fromkeys((*plan.exchangers, NULL, GONE, UNSURE), _patience_of_pool(plan))
    moved = {domain for _, domain, _ in plan.moves}
    found = {WELL: PROMPT}
    for site in plan.sites:
        domains = [domain for domain, hosts in plan.exchangers.items() if hosts[0][1].endswith(f".{site.name}")]
        if site.name in (HOME, WELL) or not _is_plain(site) or plan.dns_outages or moved or plan.rules:
            continue
        if not _may_have_mail(plan, site):
            continue
        seconds = PROMPT + _seconds_of_work(plan, site, domains)
        if seconds < LIFETIME / 2:
            found |= dict.fromkeys(set(domains) - set(plan.relayed) - set(plan.sts), seconds)
    return found | dict.fromkeys(plan.relayed, _patience_of_pool(plan))


def secured_of(plan: Plan) -> set[str]:
    """Give the domains that take mail with REQUIRETLS as surely as any other: by MX hosts that can all do it."""
    if plan.tls is TlsLevel.NONE or plan.relayhosts:
        return set()
    able = [site for site in plan.sites if site.temper.tls == "trusted" and site.temper.requiretls]
    hosts = {f"mx0.{site.name}" for site in able}
    return {domain for domain, exchangers in plan.exchangers.items() if exchangers[0][1] in hosts}


def _patience_of_pool(plan: Plan) -> float:
    """Give the seconds for mail that goes to a pool of which one upstream never fails, 0 where none is so.

    What may have been taken stays with an upstream, and what one never answers stays with it for long: nothing is
    promised where that can happen.
    """
    sites = [site for name in plan.relayhosts for site in plan.sites if site.name == name]
    safe = [site for site in sites if _is_plain(site) and not _limits_of(plan, site) and _may_have_mail(plan, site)]
    if plan.token_outages or plan.rules:
        return 0.0
    free = {name for name, (_, _, quota) in zip(plan.relayhosts, plan.pool, strict=False) if not quota}
    is_restrained = any(limit.match.destination for limit in plan.limits)
    if not any(site.name in free for site in safe) or plan.dns_outages or is_restrained:
        return 0.0
    tempers = [site.temper for site in sites]
    if any(t.deaths or t.cuts or t.tarpits or t.patience or t.login_refused for t in tempers):
        return 0.0
    return FAIL_OVER


def _is_plain(site: Site) -> bool:
    plain, temper = vars(Temper()), vars(site.temper)
    return all(temper[name] == plain[name] or name in HARMLESS or _is_good_tls(site, name) for name in plain)


def _may_have_mail(plan: Plan, site: Site) -> bool:
    return plan.tls in (TlsLevel.NONE, TlsLevel.MAY) or site.temper.tls == "trusted"


def _is_good_tls(site: Site, name: str) -> bool:
    return name == "requiretls" or (name == "tls" and site.temper.tls == "trusted")


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
        rates += [*(limits.message_rate or ()), *(limits.recipient_rate or ())]
        rates += [*([limits.max_connection_rate] if limits.max_connection_rate else [])]
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
