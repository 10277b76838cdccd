"""Reads the sections of the configuration: listeners, submission, users, signing keys, limits, retries and the rest."""

from collections.abc import Collection, Iterable
from enum import StrEnum
from ipaddress import ip_network

from smarthost.config_read import (
    Table,
    read_bool,
    read_choice,
    read_count,
    read_existing_file,
    read_positive_duration,
    read_positive_size,
    read_size,
    read_text,
)
from smarthost.config_routes import NOT_YET, check_route_name
from smarthost.config_types import DkimKey, Dns, Dnssec, Log, ReportSettings, TlsFiles
from smarthost.config_words import (
    check_hash,
    is_local_place,
    read_domain,
    read_glob,
    read_mailbox,
    read_network,
    read_optional,
    read_place,
    read_rate,
    read_resolver,
    read_selector,
    read_user_name,
    read_word,
)
from smarthost.mail.envelope import Priority
from smarthost.mail.route import Route, TlsLevel
from smarthost.policy.admission import Auth, BareNewlines, Listener, LongLines, Role, Submission, Tls, User
from smarthost.policy.backoff import Retry
from smarthost.policy.rewriting import Rewrite
from smarthost.report.maillog import LogFormat, LogLevel


class _Protocol(StrEnum):
    SMTP = "smtp"
    HTTP = "http"


def _refuse_repeats(pairs: Iterable[tuple[Table, object]], key: str, what: str) -> None:
    seen = set()
    for table, value in pairs:
        if value and value in seen:
            table.refuse(key, f"{what} is given twice")
        seen.add(value)


def read_listeners(top: Table) -> tuple[Listener, ...]:
    """Read the [[listener]] tables; none gives one on the loopback address."""
    tables = top.tables("listener")
    listeners = [_read_listener(table) for table in tables]
    _refuse_repeats(
        ((table, listener.address) for table, listener in zip(tables, listeners, strict=True)),
        "address",
        "the same address",
    )
    if not listeners:
        return (Listener(),)
    smtp = [each for each in listeners if each.protocol == _Protocol.SMTP and each.role is Role.SUBMISSION]
    if smtp and not any(listener.auth is Auth.REQUIRED or is_local_place(listener.address) for listener in smtp):
        top.warn("listener", 'auth = "required" stands nowhere: trusted networks relay without a login')
    return tuple(listeners)


def _read_listener(table: Table) -> Listener:
    default = Listener()
    protocol = table.take("protocol", read_choice(_Protocol), _Protocol.SMTP)
    is_http = protocol is _Protocol.HTTP
    role = table.take("role", read_choice(Role), default.role)
    listener = Listener(
        address=table.take("address", read_place, default.address),
        protocol=protocol.value,
        tls=table.take("tls", read_choice(Tls), Tls.IMPLICIT if is_http else default.tls),
        auth=table.take("auth", read_choice(Auth), Auth.NONE if role is Role.BOUNCES else default.auth),
        allow_plaintext_auth=table.take("allow_plaintext_auth", read_bool, default.allow_plaintext_auth),
        proxy_protocol=table.take("proxy_protocol", read_bool, default.proxy_protocol),
        trusted_proxies=table.take_list("trusted_proxies", read_network),
        role=role,
    )
    if is_http:
        _check_http(table, listener)
    elif role is Role.BOUNCES:
        _check_bounces(table, listener)
    if listener.proxy_protocol:
        table.refuse("proxy_protocol", f"is true, which {NOT_YET}; allowed is false")
    if listener.trusted_proxies:
        table.refuse("trusted_proxies", f"{NOT_YET}; leave it empty")
    if not is_local_place(listener.address) and not is_http:
        if listener.allow_plaintext_auth:
            table.warn("allow_plaintext_auth", f"lets passwords cross the network unprotected at {listener.address}")
        elif listener.tls is Tls.NONE and listener.auth is not Auth.NONE:
            table.warn("tls", 'is "none": AUTH is offered to trusted networks only, as it needs TLS')
    table.finish()
    return listener


def _check_bounces(table: Table, listener: Listener) -> None:
    if listener.auth is not Auth.NONE:
        table.refuse("auth", f'is "{listener.auth}", but bounces come from strangers; allowed is none')
    if listener.allow_plaintext_auth:
        table.refuse("allow_plaintext_auth", "is true, but nobody logs in to send bounces; allowed is false")


def _check_http(table: Table, listener: Listener) -> None:
    if listener.tls is Tls.STARTTLS:
        table.refuse("tls", 'is "starttls", which HTTP does not have; allowed are implicit and none')
    elif listener.tls is Tls.NONE and not is_local_place(listener.address):
        table.warn("tls", f'is "none": keys cross the network unprotected at {listener.address}')
    for key in ("auth", "allow_plaintext_auth", "role"):
        if table.has(key):
            table.refuse(key, "is for smtp; by http every request needs a key, or a token of [http] tokens")


def read_tls(table: Table, listeners: Iterable[Listener]) -> TlsFiles:
    """Read [tls]; certificate and key are given both or not at all."""
    files = TlsFiles(table.take("certificate", read_existing_file, None), table.take("key", read_existing_file, None))
    for key, other in (("certificate", "key"), ("key", "certificate")):
        if table.values.get(key) and not table.values.get(other):
            table.refuse(key, f"is given without {other}; give both, or none for a self-signed certificate")
    if table.take("client_ca", read_text, ""):
        table.refuse("client_ca", f'{NOT_YET}; leave it ""')
    if not table.values.get("certificate") and any(listener.tls is not Tls.NONE for listener in listeners):
        table.warn("certificate", "is not given: listeners show a self-signed certificate, which clients may refuse")
    table.finish()
    return files


def read_submission(table: Table) -> Submission:
    """Read [submission]."""
    default = Submission()
    submission = Submission(
        trusted_networks=table.take_list("trusted_networks", read_network, default.trusted_networks),
        max_message_size=table.take("max_message_size", read_positive_size, default.max_message_size),
        max_recipients=table.take("max_recipients", read_count, default.max_recipients),
        max_hops=table.take("max_hops", read_count, default.max_hops),
        bare_newlines=table.take("bare_newlines", read_choice(BareNewlines), default.bare_newlines),
        long_lines=table.take("long_lines", read_choice(LongLines), default.long_lines),
        add_missing_headers=table.take("add_missing_headers", read_bool, default.add_missing_headers),
        hide_client=table.take("hide_client", read_bool, default.hide_client),
        max_connections=table.take("max_connections", read_count, default.max_connections),
        max_connections_per_ip=table.take("max_connections_per_ip", read_count, default.max_connections_per_ip),
        min_free_space=table.take("min_free_space", read_size, default.min_free_space),
    )
    for text in submission.trusted_networks:
        network = ip_network(text)
        if not network.is_private and network.prefixlen < (16 if network.version == 4 else 32):
            table.warn("trusted_networks", f"has {text} in it, which is much of the Internet: all of it may relay")
    table.finish()
    return submission


def read_users(top: Table, routes: Collection[str]) -> tuple[User, ...]:
    """Read the [[user]] tables; `routes` are the names of all routes."""
    tables = top.tables("user")
    users = tuple(_read_user(table) for table in tables)
    for table, user in zip(tables, users, strict=True):
        for name in user.allowed_routes:
            check_route_name(table, "allowed_routes", "" if name == "*" else name, routes)
    _refuse_repeats(((table, user.name) for table, user in zip(tables, users, strict=True)), "name", "the same user")
    return users


def _read_user(table: Table) -> User:
    problems = len(table.findings.problems)
    password = table.secret("password")
    if len(table.findings.problems) == problems:
        key = "password_file" if table.has("password_file") else "password"
        if not password:
            table.refuse("password", "is missing; make one with: smarthost user hash")
        elif wrong := check_hash(password):
            table.refuse(key, wrong)
    if not table.has("name"):
        table.refuse("name", "is missing")
    user = User(
        name=table.take("name", read_user_name, ""),
        password=password,
        allowed_senders=table.take_list("allowed_senders", read_glob),
        message_rate=table.take_list("message_rate", read_rate, or_one=True),
        priority=table.take("priority", read_choice(Priority), Priority.MEDIUM),
        allowed_routes=table.take_list("allowed_routes", read_text),
    )
    table.finish()
    return user


def read_dkim(top: Table) -> tuple[DkimKey, ...]:
    """Read the [[dkim]] tables; the key files must be there, reading them is the signer's business."""
    tables = top.tables("dkim")
    keys = []
    for table in tables:
        for key in ("domain", "selector", "key"):
            if not table.values.get(key):
                table.refuse(key, "is missing")
        domain = table.take("domain", read_optional(read_domain), "")
        selector = table.take("selector", read_optional(read_selector), "")
        file = table.take("key", read_existing_file, None)
        table.finish()
        if domain and selector and file:
            keys.append((table, DkimKey(domain, selector, file)))
    _refuse_repeats(((table, (key.domain, key.selector)) for table, key in keys), "selector", "the same key")
    return tuple(key for _, key in keys)


def read_rewrites(top: Table) -> tuple[Rewrite, ...]:
    """Read the [[rewrite]] tables."""
    rewrites = []
    for table in top.tables("rewrite"):
        if not table.has("match"):
            table.refuse("match", 'is missing; write a glob of addresses such as "root@*"')
        rule = Rewrite(
            match=table.take("match", read_glob, ""),
            reverse_path=table.take("reverse_path", read_optional(read_mailbox), ""),
            header_from=table.take("header_from", read_optional(read_mailbox), ""),
            recipient=table.take("recipient", read_optional(read_mailbox), ""),
        )
        if not any(table.values.get(key) for key in ("reverse_path", "header_from", "recipient")):
            table.refuse("match", "changes nothing; give reverse_path, header_from or recipient")
        table.finish()
        rewrites.append(rule)
    return tuple(rewrites)


def read_retry(table: Table) -> Retry:
    """Read [retry]."""
    default = Retry()
    retry = Retry(
        schedule=table.take_list("schedule", read_positive_duration, default.schedule),
        soft_bounce=table.take("soft_bounce", read_bool, default.soft_bounce),
        lifetime=table.take("lifetime", read_positive_duration, default.lifetime),
        report_lifetime=table.take("report_lifetime", read_positive_duration, default.report_lifetime),
        delay_warning=table.take_list("delay_warning", read_positive_duration, default.delay_warning),
    )
    if not retry.schedule:
        table.refuse("schedule", 'is empty, but must have at least one delay: ["5m"]')
    if list(retry.delay_warning) != sorted(retry.delay_warning):
        table.refuse("delay_warning", 'must be ascending ages of a message, as ["4h", "24h"]')
    table.finish()
    return retry


def read_report(table: Table, routes: Collection[str]) -> ReportSettings:
    """Read [report]; `routes` are the names that may be given."""
    report = ReportSettings(
        table.take("route", read_optional(read_word), ""),
        table.take("reverse_path", read_optional(read_mailbox), ""),
        table.take("max_returned_size", read_size, ReportSettings().max_returned_size),
    )
    check_route_name(table, "route", report.route, routes)
    table.finish()
    return report


def read_history(table: Table) -> float:
    """Read [history]; gives the seconds for which events are kept."""
    keep = table.take("keep", read_positive_duration, 7 * 86400.0)
    table.finish()
    return keep


def read_dns(table: Table, routes: Iterable[Route]) -> Dns:
    """Read [dns]; `routes` are all that there are."""
    dns = Dns(table.take_list("servers", read_resolver), table.take("dnssec", read_choice(Dnssec), Dnssec.AUTO))
    if dns.dnssec is Dnssec.OFF and any(route.tls is TlsLevel.DANE for route in routes):
        table.warn("dnssec", 'is "off", so that the TLS level dane proves nothing')
    table.finish()
    return dns


def read_log(table: Table) -> Log:
    """Read [log]."""
    log = Log(
        table.take("format", read_choice(LogFormat), LogFormat.JSON),
        table.take("level", read_choice(LogLevel), LogLevel.INFO),
    )
    table.finish()
    return log
