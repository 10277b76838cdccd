"""Gives from a configuration what the parts of the relay follow: rules, keys, certificates, terms."""

from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path

from smarthost.accounts import KEY_FILE
from smarthost.config import Config
from smarthost.crypto.dkim_keys import Keyring
from smarthost.crypto.sealing import derive_key, load_master_key
from smarthost.crypto.tls import ServerTls, TlsContexts, ensure_self_signed
from smarthost.delivery.reporting import ReportTerms
from smarthost.mail.address import to_literal
from smarthost.mail.route import Route, TlsLevel
from smarthost.network.dns import Resolver
from smarthost.network.sts import StsPolicies
from smarthost.policy.admission import Tls
from smarthost.policy.restraints import Restraints
from smarthost.policy.rewriting import Rewriter
from smarthost.queue.edit import EditRules
from smarthost.queue.return_paths import ReturnPaths
from smarthost.queue.rules import Rules
from smarthost.reception.terms import Terms


def make_rules(config: Config, keyring: Keyring, return_paths: ReturnPaths | None = None) -> Rules:
    """Give what intake follows."""
    routing = config.routes()
    edit = EditRules(
        hostname=config.hostname,
        default_domain=config.default_domain,
        submission=config.submission,
        rewriter=Rewriter(config.rewrites),
        users={user.name: user for user in config.users},
        routes=frozenset(routing.routes),
    )
    report = _report_route(config, routing.routes)
    return Rules(edit, routing, config.retry, keyring, report, Restraints(config.limits), return_paths)


def make_return_paths(config: Config) -> ReturnPaths | None:
    """Give the return paths of mail whose bounces come back to us, None where no domain is configured.

    Their key follows from `[bounces] secret`, else from the relay's own key, which is made when there is none. Raises
    OSError and ValueError where that cannot be read.
    """
    terms = config.bounces
    if not terms.domain:
        return None
    secret = terms.secret.encode()
    master = sha256(secret).digest() if secret else load_master_key(Path(config.data_directory) / KEY_FILE)
    return ReturnPaths(terms, derive_key(master, "return paths"))


def _report_route(config: Config, routes: Mapping[str, Route]) -> Route | None:
    return routes.get(config.report.route) if config.report.route else None


def make_keyring(config: Config) -> Keyring:
    """Read the DKIM keys; raises KeyUnreadable."""
    return Keyring([(key.domain, key.selector, key.key) for key in config.dkim])


def make_tls(config: Config, clock: Callable[[], float]) -> ServerTls | None:
    """Read what the listeners show, or make a self-signed certificate; None when no listener uses TLS."""
    if all(listener.tls is Tls.NONE for listener in config.listeners):
        return None
    certificate, key = config.tls.certificate, config.tls.key
    if certificate is None or key is None:
        certificate, key = ensure_self_signed(Path(config.data_directory) / "tls", config.hostname, clock())
    return ServerTls(certificate, key)


def make_sts(config: Config, resolver: Resolver, contexts: TlsContexts, clock: Callable[[], float]) -> StsPolicies:
    """Give where the MTA-STS policies of domains come from; they are kept in the data directory."""
    folder = Path(config.data_directory) / "mta-sts"
    return StsPolicies(resolver, folder, lambda: contexts.for_level(TlsLevel.VERIFY), clock)


def make_terms(config: Config) -> Terms:
    """Give what sessions follow."""
    return Terms(config.hostname, config.default_domain, config.submission)


def make_report_terms(config: Config) -> ReportTerms:
    """Give how reports are written."""
    report = config.report
    return ReportTerms(
        config.hostname,
        config.postmaster,
        report.reverse_path,
        report.max_returned_size,
        config.submission.hide_client,
    )


def hello_name(config: Config) -> str:
    """Give our name in EHLO: an address literal when the hostname is none (RFC 5321 4.1.4)."""
    return config.hostname if "." in config.hostname else to_literal("127.0.0.1")
