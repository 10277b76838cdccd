"""Decides whether a peer or a sender may come in: None means yes, a Reply is the refusal."""

from collections.abc import Iterable
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import msgspec

from smarthost.mail.envelope import Priority
from smarthost.mail.reply import AUTH_REQUIRED, RELAY_DENIED, Reply, make_reply
from smarthost.policy.glob import compile_globs

SENDER_NOT_ALLOWED = make_reply(553, "5.7.1", "Sender address is not allowed for this user")

_CACHED_ADDRESSES = 4096  # answers that Networks remembers before it starts afresh


class Tls(StrEnum):
    """How a listener speaks TLS."""

    STARTTLS = "starttls"
    IMPLICIT = "implicit"
    NONE = "none"


class Auth(StrEnum):
    """Who must log in at a listener: everybody, everybody but trusted networks, or nobody can."""

    REQUIRED = "required"
    OPTIONAL = "optional"
    NONE = "none"


class Role(StrEnum):
    """What a listener is for: mail that is relayed, or what other hosts say of mail that was."""

    SUBMISSION = "submission"
    BOUNCES = "bounces"


class BareNewlines(StrEnum):
    """What becomes of a CR or LF that stands alone in content."""

    NORMALIZE = "normalize"
    REJECT = "reject"


class LongLines(StrEnum):
    """What becomes of content with a line over 998 octets (RFC 5322 2.1.1)."""

    ENCODE = "encode"
    PASS = "pass"
    REJECT = "reject"


class Listener(msgspec.Struct, frozen=True):
    """One door. `address` is host:port, [v6]:port, unix:/path or systemd:NAME."""

    address: str = "127.0.0.1:2587"
    protocol: str = "smtp"
    tls: Tls = Tls.STARTTLS
    auth: Auth = Auth.OPTIONAL
    allow_plaintext_auth: bool = False
    proxy_protocol: bool = False
    trusted_proxies: tuple[str, ...] = ()
    role: Role = Role.SUBMISSION


class Submission(msgspec.Struct, frozen=True):
    """What every door allows; sizes are octets, `max_hops` counts Received fields."""

    trusted_networks: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    max_message_size: int = 35 * 1024 * 1024
    max_recipients: int = 1000
    max_hops: int = 50
    bare_newlines: BareNewlines = BareNewlines.NORMALIZE
    long_lines: LongLines = LongLines.ENCODE
    add_missing_headers: bool = True
    hide_client: bool = False
    max_connections: int = 2000
    max_connections_per_ip: int = 50
    min_free_space: int = 512 * 1024 * 1024


class User(msgspec.Struct, frozen=True):
    """Someone who may log in. `password` is an argon2id hash; no `allowed_senders` means any; rates are texts.

    `key` is the id of the API key that was shown instead of the password, or ""; then the name is its tenant's.
    `allowed_routes` are the names of routes that it may have its mail take by a field of the header; "*" is every one.
    """

    name: str
    password: str
    allowed_senders: tuple[str, ...] = ()
    message_rate: tuple[str, ...] = ()
    priority: Priority = Priority.MEDIUM
    allowed_routes: tuple[str, ...] = ()
    key: str = ""

    def may_choose(self, route: str) -> bool:
        """Say whether it may choose a route by its name."""
        return route in self.allowed_routes or "*" in self.allowed_routes

    def __repr__(self) -> str:
        """Show the name only: even a hash belongs in no log."""
        return f"User(name={self.name!r})"


class Networks:
    """A set of IP networks that answers `address in networks` for addresses written as text.

    An IPv4-mapped IPv6 address (RFC 4291 2.5.5.2) counts as the IPv4 address it holds; text that is no address, such
    as "" for a Unix socket, is in no network.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        """Read networks in CIDR notation; raises ValueError when a text is not one or has host bits set."""
        networks = [ip_network(text) for text in texts]
        self._v4 = tuple(network for network in networks if isinstance(network, IPv4Network))
        self._v6 = tuple(network for network in networks if isinstance(network, IPv6Network))
        self._known: dict[str, bool] = {}

    def __contains__(self, address: str) -> bool:
        """Whether the address is in one of the networks."""
        known = self._known.get(address)
        if known is None:
            if len(self._known) >= _CACHED_ADDRESSES:
                self._known.clear()
            known = self._known[address] = self._look_up(address)
        return known

    def _look_up(self, text: str) -> bool:
        try:
            address = ip_address(text.partition("%")[0])
        except ValueError:
            return False
        if isinstance(address, IPv6Address):
            if address.ipv4_mapped is None:
                return any(address in network for network in self._v6)
            address = address.ipv4_mapped
        return any(address in network for network in self._v4)


def may_relay(trusted: bool, identity: str, auth: Auth) -> Reply | None:
    """Decide whether a client may hand in mail: never an open relay.

    `identity` is the user who logged in, or "". Refusals are 530 5.7.0 where AUTH is offered, else 554 5.7.1.
    """
    if identity:
        return None
    if auth is Auth.REQUIRED:
        return AUTH_REQUIRED
    if trusted:
        return None
    return AUTH_REQUIRED if auth is Auth.OPTIONAL else RELAY_DENIED


def check_sender(user: User, address: str) -> Reply | None:
    """Decide whether a user may send as an address, of the reverse-path or the header From.

    The null reverse-path ("") passes: its header From is checked the same way. The refusal is 553 5.7.1.
    """
    if not address or not user.allowed_senders:
        return None
    return None if compile_globs(user.allowed_senders).fullmatch(address) else SENDER_NOT_ALLOWED
