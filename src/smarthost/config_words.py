"""Reads the words of mail in the configuration: addresses, domains, globs, networks, rates and listeners' places."""

import re
from collections.abc import Callable
from ipaddress import ip_address, ip_network

from smarthost.config_read import read_name, read_text, show
from smarthost.crypto.password import is_hash
from smarthost.mail.address import split_mailbox, to_a_label
from smarthost.mail.route import NextHop
from smarthost.policy.rate import parse_rate
from smarthost.policy.routing import parse_next_hop

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_HOST_PORT = re.compile(r"(?:\[([^\[\]]+)\]|([^\[\]:/]+)):(\d{1,5})")
_HASH_START = "$argon2id$"
_PLACES = "host:port, [v6]:port, unix:/path or systemd:NAME"


def read_host_name(value: object) -> str:
    """Read a host name as its A-label form; raises ValueError."""
    name = _to_name(read_text(value))
    if name is None:
        raise ValueError(f'is {show(value)}, but must be a host name such as "relay.example.org"')
    return name


def read_domain(value: object) -> str:
    """Read a domain as its A-label form; raises ValueError."""
    name = _to_name(read_text(value))
    if name is None:
        raise ValueError(f'is {show(value)}, but must be a domain such as "example.org"')
    return name


def read_selector(value: object) -> str:
    """Read a selector, one or more labels which may be digits only (RFC 6376 3.1); raises ValueError."""
    label = to_a_label(read_text(value))
    if label is None or label.startswith("["):
        raise ValueError(f'is {show(value)}, but must be a selector such as "s2026a"')
    return label


def read_mailbox(value: object) -> str:
    """Read a mailbox with its domain; raises ValueError."""
    text = read_text(value)
    parts = split_mailbox(text)
    if parts is None or not parts[1] or to_a_label(parts[1]) is None:
        raise ValueError(f'is {show(value)}, but must be an address such as "alerts@example.org"')
    return text


def read_optional(read: Callable[[object], str]) -> Callable[[object], str]:
    """Give a reader that takes "" for "not given"."""
    return lambda value: "" if value == "" else read(value)


def read_glob(value: object) -> str:
    """Read a glob of addresses or names; raises ValueError."""
    glob = read_name(value)
    if glob != glob.strip():
        raise ValueError(f"is {show(value)}, but must not begin or end with a space")
    return glob


def read_word(value: object) -> str:
    """Read a name made of letters, digits, dot, hyphen and underscore; raises ValueError."""
    text = read_text(value)
    if not _WORD.fullmatch(text):
        raise ValueError(f"is {show(value)}, but must be letters, digits, '.', '-' and '_', with no space or '/'")
    return text


def read_user_name(value: object) -> str:
    """Read the name that a user logs in with; raises ValueError."""
    name = read_name(value)
    if name != name.strip():
        raise ValueError(f"is {show(value)}, but must not begin or end with a space")
    return name


def check_hash(text: str) -> str:
    """Give what is wrong with a password hash, without showing it; "" when nothing is."""
    made_by = "make one with: smarthost user hash"
    if not text.startswith(_HASH_START):
        return f"is not a hash that begins with {_HASH_START}; {made_by}"
    return "" if is_hash(text) else f"is a damaged or shortened {_HASH_START} hash; {made_by}"


def read_network(value: object) -> str:
    """Read a network in CIDR notation; raises ValueError."""
    text = read_text(value)
    try:
        network = ip_network(text)
    except ValueError:
        try:
            allowed = f'its first address: "{ip_network(text, strict=False)}"'
        except ValueError:
            allowed = '"10.0.0.0/8" or "2001:db8::/32"'
        raise ValueError(f"is {show(value)}, but must be a network as {allowed}") from None
    if network.prefixlen == 0:
        raise ValueError(f"is {show(value)}, which would make an open relay; name the networks that are yours")
    return text


def read_ip(value: object) -> str:
    """Read an IP address; raises ValueError."""
    text = read_text(value)
    try:
        return str(ip_address(text))
    except ValueError:
        raise ValueError(f'is {show(value)}, but must be an IP address such as "192.0.2.1"') from None


def read_resolver(value: object) -> str:
    """Read the address of a resolver, "IP", "IP:port" or "[v6]:port"; raises ValueError."""
    text = read_text(value)
    found = _HOST_PORT.fullmatch(text)
    try:
        ip_address((found[1] or found[2]) if found else text)
    except ValueError:
        raise ValueError(f'is {show(value)}, but must be "IP", "IP:port" or "[v6]:port"') from None
    if found and not 1 <= int(found[3]) <= 65535:
        raise ValueError(f"is {show(value)}, but its port must be from 1 to 65535")
    return text


def read_place(value: object) -> str:
    """Read where a listener listens; raises ValueError. Port 0 lets the system choose one."""
    text = read_text(value)
    if text.startswith("unix:"):
        if not text.startswith("unix:/"):
            raise ValueError(f"is {show(value)}, but a Unix socket must be unix:/path, with the whole path")
        return text
    if text.startswith("systemd:"):
        read_word(text.removeprefix("systemd:"))
        return text
    return _read_host_port(value, _PLACES)


def read_tcp_place(value: object) -> str:
    """Read host:port or [v6]:port, where something listens by TCP; raises ValueError."""
    return _read_host_port(value, "host:port or [v6]:port")


def is_local_place(place: str) -> bool:
    """Whether only this machine can reach a place: loopback, localhost or a Unix socket."""
    found = _HOST_PORT.fullmatch(place)
    return place.startswith("unix:") or (found is not None and is_loopback(found[1] or found[2]))


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine's own."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost" or host.lower().endswith(".localhost")


def read_next_hop(value: object) -> NextHop:
    """Read a next hop; raises ValueError."""
    return parse_next_hop(read_name(value))


def read_rate(value: object) -> str:
    """Read a rate, which stays a text; raises ValueError."""
    text = read_text(value)
    parse_rate(text)
    return text


def _read_host_port(value: object, allowed: str) -> str:
    text = read_text(value)
    found = _HOST_PORT.fullmatch(text)
    if found is None or int(found[3]) > 65535 or not _is_host(found[1], found[2]):
        raise ValueError(f"is {show(value)}, but must be {allowed}")
    return text


def _to_name(text: str) -> str | None:
    # An all-numeric last label is an IP address, maybe written wrong, and never a name (RFC 3696 2).
    name = to_a_label(text)
    return None if name is None or name.startswith("[") or name.rpartition(".")[2].isdigit() else name


def _is_host(literal: str | None, name: str | None) -> bool:
    try:
        return ip_address(literal or name or "").version == (6 if literal else 4)
    except ValueError:
        return literal is None and name is not None and _to_name(name) is not None
