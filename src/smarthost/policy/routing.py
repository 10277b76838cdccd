"""Decides where a recipient's mail goes: rules in their order, the first match wins, else the fallback."""

import re
from collections.abc import Sequence
from ipaddress import ip_address

import msgspec

from smarthost.mail.address import to_a_label
from smarthost.mail.envelope import Recipient
from smarthost.mail.route import NextHop, Route
from smarthost.policy.glob import compile_globs

SMTP_PORT = 25
SUBMISSIONS_PORT = 465  # TLS on connect, RFC 8314 3.3
_SERVICES = {"smtp": SMTP_PORT, "submission": 587, "submissions": SUBMISSIONS_PORT, "smtps": SUBMISSIONS_PORT}
_NEXT_HOP = re.compile(
    r"(?:(?P<scheme>smtps?)://)?(?:\[(?P<bracketed>[^\[\]\s]+)\]|(?P<bare>[^\[\]\s:/]+))(?::(?P<port>[A-Za-z0-9]+))?",
    re.IGNORECASE,
)
_ALLOWED = "write host, [host], host:port, [host]:port or smtps://host; brackets mean no MX lookup"


class Match(msgspec.Struct, frozen=True):
    """Which mail a rule is about: globs, of which one must match in each field that has any.

    `sender` is matched with the reverse-path, where "<>" stands for the null one.
    """

    sender: tuple[str, ...] = ()
    recipient: tuple[str, ...] = ()
    user: tuple[str, ...] = ()
    tag: tuple[str, ...] = ()


class RouteRule(msgspec.Struct, frozen=True):
    """One rule: the mail that matches takes the route."""

    match: Match
    route: Route


class RoutingTable:
    """All rules, compiled. `routes` gives every route by its name, the fallback too, and those that no rule chooses."""

    def __init__(self, rules: Sequence[RouteRule], fallback: Route, others: Sequence[Route] = ()) -> None:
        """Compile the rules; of two routes with one name the first is in `routes`."""
        self._rules = tuple(_CompiledRule(rule) for rule in rules)
        self.fallback = fallback
        self.routes = {route.name: route for route in reversed((*(rule.route for rule in rules), fallback, *others))}

    def choose(self, reverse_path: str, recipient: Recipient, user: str, tag: str) -> Route:
        """Give the route of one recipient; `user` and `tag` are "" where there is none."""
        for rule in self._rules:
            if rule.is_about(reverse_path, recipient, user, tag):
                return rule.route
        return self.fallback

    def first_match(self, reverse_path: str, recipient: Recipient, user: str, tag: str) -> int | None:
        """Give which rule chooses the route of one recipient, counted from 0; None when none does."""
        for index, rule in enumerate(self._rules):
            if rule.is_about(reverse_path, recipient, user, tag):
                return index
        return None


class _CompiledRule:
    """A rule whose globs are regular expressions; None stands for a field that does not restrict."""

    def __init__(self, rule: RouteRule) -> None:
        match = rule.match
        self.route = rule.route
        self._sender = _pattern(tuple("" if glob == "<>" else glob for glob in match.sender))
        self._recipient = _pattern(match.recipient)
        self._user = _pattern(match.user)
        self._tag = _pattern(match.tag)

    def is_about(self, reverse_path: str, recipient: Recipient, user: str, tag: str) -> bool:
        return (
            (self._sender is None or self._sender.fullmatch(reverse_path) is not None)
            and (self._recipient is None or _is_recipient(self._recipient, recipient))
            and (self._user is None or self._user.fullmatch(user) is not None)
            and (self._tag is None or self._tag.fullmatch(tag) is not None)
        )


def _pattern(globs: tuple[str, ...]) -> re.Pattern[str] | None:
    return compile_globs(globs) if globs else None


def _is_recipient(pattern: re.Pattern[str], recipient: Recipient) -> bool:
    if pattern.fullmatch(recipient.address):
        return True
    # A rule may name an internationalised domain by its A-label, whichever form the client wrote.
    local = recipient.address.rpartition("@")[0]
    return not recipient.address.isascii() and pattern.fullmatch(f"{local}@{recipient.domain}") is not None


def parse_next_hop(text: str) -> NextHop:
    """Read a next hop in Postfix's relayhost syntax; raises ValueError with a sentence.

    Without brackets a name is looked up as MX; an IP address and localhost never are. smtps:// (port 465 unless
    given) and port 465 mean TLS on connect.
    """
    text = text.strip()
    if _is_ip(text):
        return NextHop(text)
    found = _NEXT_HOP.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no next hop; {_ALLOWED}")
    bracketed = found["bracketed"]
    implicit_tls = (found["scheme"] or "").lower() == "smtps"
    port = _parse_port(text, found["port"] or ("smtps" if implicit_tls else "smtp"))
    host = _parse_host(text, bracketed or found["bare"])
    by_mx = not (bracketed or _is_ip(host) or host == "localhost" or host.endswith(".localhost"))
    return NextHop(host, port, by_mx, implicit_tls or port == SUBMISSIONS_PORT)


def _parse_host(text: str, host: str) -> str:
    if host[:5].lower() == "ipv6:":
        host = host[5:]
    if _is_ip(host):
        return host
    # An all-numeric last label is an IP address written wrong, never a name (RFC 3696 2).
    label = None if host.rstrip(".").rpartition(".")[2].isdigit() else to_a_label(host)
    if label is None:
        raise ValueError(f"{text!r} is no next hop: {host!r} is neither a host name nor an IP address; {_ALLOWED}")
    return label


def _parse_port(text: str, port: str) -> int:
    number = _SERVICES.get(port.lower())
    if number is None and port.isascii() and port.isdigit() and len(port) <= 5:
        number = int(port)
    if number is None or not 1 <= number <= 65535:
        raise ValueError(f"{text!r} is no next hop: port {port!r} is not a number from 1 to 65535")
    return number


def _is_ip(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
