"""Turns one TOML file and the environment into one frozen Config, or says all that is wrong with them."""

import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from smarthost.compose.limits import SubmissionLimits
from smarthost.config_automation import read_automation
from smarthost.config_bounces import read_bounces
from smarthost.config_conversion import read_conversion
from smarthost.config_delivery import read_delivery
from smarthost.config_http import HTTP_ADDRESS, read_http
from smarthost.config_limits import read_limits
from smarthost.config_outreach import read_outreach
from smarthost.config_read import Findings, Table, read_bool, read_path, read_positive_duration, show
from smarthost.config_routes import read_routing
from smarthost.config_sections import (
    read_dkim,
    read_dns,
    read_history,
    read_listeners,
    read_log,
    read_report,
    read_retry,
    read_rewrites,
    read_submission,
    read_tls,
    read_users,
)
from smarthost.config_source import ConfigError, Problem, read_source
from smarthost.config_suppression import read_suppression
from smarthost.config_types import (
    DeliverySettings,
    DkimKey,
    Dns,
    Dnssec,
    Log,
    Login,
    Mechanism,
    ReportSettings,
    TlsFiles,
)
from smarthost.config_words import read_domain, read_host_name, read_mailbox, read_optional
from smarthost.mail.address import to_a_label
from smarthost.mail.route import Deliver, Route
from smarthost.policy.admission import Auth, Listener, Submission, User
from smarthost.policy.attachments import AttachmentTerms
from smarthost.policy.automation import AutomationRule
from smarthost.policy.backoff import Retry
from smarthost.policy.bounce_terms import BounceTerms
from smarthost.policy.client_sync import OutreachTerms
from smarthost.policy.conversion import Conversions
from smarthost.policy.http_terms import HttpTerms
from smarthost.policy.limits import Limit
from smarthost.policy.rewriting import Rewrite
from smarthost.policy.routing import RouteRule, RoutingTable
from smarthost.policy.suppression import SuppressionRules
from smarthost.report.maillog import LogFormat, LogLevel

__all__ = [
    "Config",
    "ConfigError",
    "DeliverySettings",
    "DkimKey",
    "Dns",
    "Dnssec",
    "Log",
    "LogFormat",
    "LogLevel",
    "Login",
    "Mechanism",
    "Problem",
    "ReportSettings",
    "TlsFiles",
    "load",
]

DATA_DIRECTORY = Path("./smarthost-data")
SHUTDOWN_TIMEOUT = 8.0  # seconds; containers are killed after 10


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a person can set, with every default filled in; times are seconds, sizes octets.

    `account_routes` are laid over it by the running relay (`accounts`) and stand in no file;
    `credentials` are the logins by the name of their route; `source` is the file, None when there is none;
    `warnings` are lines for people about what works but may not be meant.
    """

    hostname: str = "localhost"
    data_directory: Path = DATA_DIRECTORY
    postmaster: str = "postmaster@localhost"
    default_domain: str = "localhost"
    shutdown_timeout: float = SHUTDOWN_TIMEOUT
    listeners: tuple[Listener, ...] = (Listener(),)
    tls: TlsFiles = TlsFiles()
    submission: Submission = Submission()
    users: tuple[User, ...] = ()
    dkim: tuple[DkimKey, ...] = ()
    rewrites: tuple[Rewrite, ...] = ()
    route_rules: tuple[RouteRule, ...] = ()
    fallback: Route = Route("mx", Deliver.MX)
    account_routes: tuple[Route, ...] = ()
    credentials: dict[str, Login] = {}
    limits: tuple[Limit, ...] = ()
    automation: tuple[AutomationRule, ...] = ()
    automation_presets: bool = True
    retry: Retry = Retry()
    report: ReportSettings = ReportSettings()
    suppression: SuppressionRules = SuppressionRules()
    conversion: Conversions = Conversions()
    outreach: OutreachTerms = OutreachTerms()
    bounces: BounceTerms = BounceTerms()
    delivery: DeliverySettings = DeliverySettings()
    history_keep: float = 7 * 86400.0
    dns: Dns = Dns()
    http_address: str = HTTP_ADDRESS
    http: HttpTerms = HttpTerms()
    http_limits: SubmissionLimits = SubmissionLimits()
    attachments: AttachmentTerms = AttachmentTerms()
    log: Log = Log()
    source: Path | None = None
    warnings: tuple[str, ...] = ()

    def routes(self) -> RoutingTable:
        """Give the rules, and the route named "relayhost" or "mx" for what no rule matches."""
        return RoutingTable(self.route_rules, self.fallback, self.account_routes)


def load(
    path: Path | None,
    environ: Mapping[str, str],
    fqdn: Callable[[], str] | None = None,
    *,
    needs_tokens: bool = True,
) -> Config:
    """Read the file at `path`, else the one SMARTHOST_CONFIG names, else /etc/smarthost/smarthost.toml if it is there.

    Variables named SMARTHOST__SECTION__KEY are laid over it. `fqdn` gives this machine's name where none is set.
    Without `needs_tokens` the files of refresh tokens may be missing, as before the first `smarthost oauth login`.
    Raises ConfigError with everything that is wrong.
    """
    findings = Findings(read_source(path, environ), needs_tokens)
    top = Table(findings.source.values, (), findings)
    hostname = _read_hostname(top, fqdn)
    listeners = read_listeners(top)
    routing = read_routing(top)
    http = read_http(top.table("http"))
    names = [routing.fallback.name, *(rule.route.name for rule in routing.rules)]
    users = read_users(top, names)
    config = Config(
        hostname=hostname,
        data_directory=top.take("data_directory", read_path, None) or DATA_DIRECTORY,
        postmaster=top.take("postmaster", read_optional(read_mailbox), "") or f"postmaster@{hostname}",
        default_domain=top.take("default_domain", read_optional(read_domain), "") or hostname,
        shutdown_timeout=top.take("shutdown_timeout", read_positive_duration, SHUTDOWN_TIMEOUT),
        listeners=listeners,
        tls=read_tls(top.table("tls"), listeners),
        submission=read_submission(top.table("submission")),
        users=users,
        dkim=read_dkim(top),
        rewrites=read_rewrites(top),
        route_rules=routing.rules,
        fallback=routing.fallback,
        credentials=routing.credentials,
        limits=read_limits(top, names),
        automation=read_automation(top, names),
        automation_presets=top.take("automation_presets", read_bool, True),
        retry=read_retry(top.table("retry")),
        report=read_report(top.table("report"), names),
        suppression=read_suppression(top.table("suppression")),
        conversion=read_conversion(top.table("conversion")),
        outreach=read_outreach(top.table("outreach")),
        bounces=read_bounces(top.table("bounces"), listeners, names),
        delivery=read_delivery(top.table("delivery")),
        history_keep=read_history(top.table("history")),
        dns=read_dns(top.table("dns"), [routing.fallback, *(rule.route for rule in routing.rules)]),
        http_address=http.address,
        http=http.terms,
        http_limits=http.limits,
        attachments=http.attachments,
        log=read_log(top.table("log")),
        source=findings.source.path,
    )
    top.finish()
    _look_at_logins(top, users, listeners)
    if findings.problems:
        raise ConfigError(tuple(findings.problems))
    return msgspec.structs.replace(config, warnings=tuple(str(warning) for warning in findings.warnings))


def _look_at_logins(top: Table, users: tuple[User, ...], listeners: tuple[Listener, ...]) -> None:
    if not users and any(listener.auth is Auth.REQUIRED for listener in listeners):
        top.warn("user", "nobody is given, so nobody can log in where a listener requires it")


def _read_hostname(top: Table, fqdn: Callable[[], str] | None) -> str:
    hostname = top.take("hostname", read_optional(read_host_name), "")
    if not hostname and not top.values.get("hostname"):
        hostname = to_a_label((fqdn or _machine_name)()) or "localhost"
    if hostname and "." not in hostname:
        top.warn(
            "hostname",
            f"is {show(hostname)}, which has no dot, so that EHLO says an address literal; give the whole name",
        )
    return hostname or "localhost"


def _machine_name() -> str:
    # getfqdn says "localhost" on a machine whose own name is beside it in /etc/hosts.
    name = socket.getfqdn()
    return socket.gethostname() if name.startswith("localhost") else name
