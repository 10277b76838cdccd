"""Diagnosis of what is outside: name servers, our own name, DKIM records, and upstreams, up to the login."""

import asyncio
import os
from collections.abc import Iterator
from ipaddress import ip_address
from random import Random

from smarthost.config import Config
from smarthost.crypto.dkim_published import judge_records
from smarthost.crypto.tls import TlsContexts
from smarthost.delivery.connect import Connector, Unreached
from smarthost.delivery.resolve import Unresolved
from smarthost.diagnosis import Finding, Verdict
from smarthost.explain import Known
from smarthost.from_config import hello_name
from smarthost.logins import Logins
from smarthost.mail.route import Deliver, Route, Site
from smarthost.network.dial import local_address
from smarthost.network.dns import DnsFault
from smarthost.network.session import SessionSettings, Timeouts

PATIENCE = 30.0  # seconds for one upstream in all
_TIMEOUTS = Timeouts(connect=10.0, greeting=15.0, ehlo=15.0, starttls=10.0, auth=15.0)
_FAR = "192.0.2.1"  # RFC 5737: to see which address we would go out from, nothing is sent


async def check_outside(known: Known) -> list[Finding]:
    """Look at everything beyond this machine; no message is sent."""
    config = known.config
    logins = Logins(config, TlsContexts(), known.clock, Random())
    try:
        checks = [_check_name(known), *(_check_key(known, number) for number in range(len(known.rules.keyring.keys)))]
        checks += [_check_upstream(known, logins, route) for route in upstreams_of(config)]
        return list(await asyncio.gather(*checks))
    finally:
        await logins.close()


def upstreams_of(config: Config) -> Iterator[Route]:
    """Give every route to a configured next hop, the members of pools each by itself."""
    for route in (config.fallback, *(rule.route for rule in config.route_rules)):
        if route.deliver is Deliver.RELAYHOST:
            yield from (upstream.route for upstream in route.pool) if route.pool else (route,)


async def _check_name(known: Known) -> Finding:
    """See whether our name leads to the address that we go out from, and back: receivers of MX delivery look."""
    config, resolver, check = known.config, known.resolver, "name"
    name = config.hostname
    found = await resolver.addresses(name)
    routes = (config.fallback, *(rule.route for rule in config.route_rules))
    if found is DnsFault.TEMPORARY:
        hint = "see [dns] servers and /etc/resolv.conf"
        return Finding(check, Verdict.FAIL, "the name servers do not answer", hint, os.EX_TEMPFAIL)
    if not any(route.deliver is Deliver.MX for route in routes):
        return Finding(check, Verdict.OK, f"{name}: all mail goes by upstreams, so nobody asks DNS for it")
    if isinstance(found, DnsFault):
        hint = "many receivers refuse a name without an address: add an A record, or set hostname"
        return Finding(check, Verdict.WARN, f"{name} has no address in DNS", hint)
    own = local_address(_FAR, 25).partition("%")[0]
    addresses = (*found.v4, *found.v6)
    if not own or not ip_address(own).is_global:
        text = f"{name} has {', '.join(addresses)}; the address that others see is not known here ({own or 'none'})"
        return Finding(check, Verdict.OK, text, "see that its PTR record names the relay")
    pointer = await resolver.records(ip_address(own).reverse_pointer, "PTR")
    named = {each.rstrip(".").lower() for each in pointer.names}
    if own not in addresses:
        hint = "receivers compare both: set hostname to the name of the address that mail leaves from"
        return Finding(check, Verdict.WARN, f"{name} has {', '.join(addresses)}, but mail leaves from {own}", hint)
    if name.lower() not in named:
        text = f"the PTR record of {own} names {', '.join(sorted(named)) or 'nobody'}, not {name}"
        return Finding(check, Verdict.WARN, text, "whoever owns the address can set it: your provider as a rule")
    return Finding(check, Verdict.OK, f"{name} and {own} name each other")


async def _check_key(known: Known, number: int) -> Finding:
    """See whether receivers can find the key that we sign with."""
    key = known.rules.keyring.keys[number]
    records = await known.resolver.records(key.record_name, "TXT")
    check = f"dkim {key.record_name}"
    if records.fault is DnsFault.TEMPORARY:
        return Finding(check, Verdict.FAIL, "DNS did not answer", "see [dns] servers", os.EX_TEMPFAIL)
    judged = judge_records(key, [text.decode("utf-8", "replace") for text in records.texts])
    if judged.fits:
        return Finding(check, Verdict.OK, judged.sentence)
    return Finding(check, Verdict.FAIL, judged.sentence, "smarthost dkim show prints the record")


async def _check_upstream(known: Known, logins: Logins, route: Route) -> Finding:
    """See whether an upstream can be reached, and takes our login; then say goodbye."""
    check = f"upstream {route.name}" + (f" {route.upstream}" if route.upstream else "")
    site = await known.sites.resolve(route, known.config.default_domain)
    if isinstance(site, Unresolved):
        hint = "see relayhost in the configuration, and the name servers"
        return Finding(check, Verdict.FAIL, site.reason, hint, os.EX_UNAVAILABLE)

    def settings_for(asked: Site) -> SessionSettings:
        return SessionSettings(
            hello=hello_name(known.config),
            tls=asked.route.tls,
            ca_file=asked.route.ca_file,
            credentials=logins.of(asked.route.login) if asked.route.login else None,
            allow_plaintext_auth=asked.route.allow_plaintext_auth,
            client=(asked.route.client_certificate, asked.route.client_key),
        )

    connector = Connector(settings_for, TlsContexts(), known.clock, Random(), _TIMEOUTS, known.tls_policies)
    try:
        async with asyncio.timeout(PATIENCE):
            opened = await connector.connect(site)
    except TimeoutError:
        return Finding(
            check, Verdict.FAIL, "no session within 30 s", "smarthost explain says whom it asks", os.EX_UNAVAILABLE
        )
    if isinstance(opened, Unreached):
        where = f"{opened.host} ({opened.address}): " if opened.host else ""
        text = f"{where}{opened.reason} (at {opened.fault.stage})"
        return Finding(check, Verdict.FAIL, text, _hint_for(opened), os.EX_UNAVAILABLE)
    opened.abandon()
    tls, login = opened.tls or "no TLS", "with login" if route.login else "without login"
    return Finding(check, Verdict.OK, f"{opened.host.name} ({opened.address}) takes us, {login}, {tls}")


def _hint_for(unreached: Unreached) -> str:
    match str(unreached.fault.stage).lower():
        case "connect":
            return "see the address and the port, and whether a firewall lets it out"
        case "auth":
            return "see the user name and the password, or where its tokens come from"
        case "starttls":
            return "see relayhost_tls and relayhost_ca: the certificate or the handshake was refused"
        case _:
            return "the upstream says why; its operator knows more"
