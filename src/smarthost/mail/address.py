"""Mailboxes and domains: parse, validate, and bring a domain into its A-label form."""

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

import idna

# RFC 5321 4.1.2 (Mailbox), widened by RFC 6531 3.3 (UTF-8 in atoms, quoted strings and labels).
_ATEXT = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\u0080-\U0010ffff]+"
_DOT_STRING = rf"{_ATEXT}(?:\.{_ATEXT})*"
_QUOTED = r'"(?:[\x20\x21\x23-\x5b\x5d-\x7e\u0080-\U0010ffff]|\\[\x20-\x7e])*"'
_LABEL = r"[A-Za-z0-9_\u0080-\U0010ffff](?:[A-Za-z0-9_\-\u0080-\U0010ffff]*[A-Za-z0-9_\u0080-\U0010ffff])?"
_DOMAIN = rf"{_LABEL}(?:\.{_LABEL})*\.?"
_LITERAL = r"\[[\x21-\x5a\x5e-\x7e]+\]"
_MAILBOX = re.compile(rf"({_DOT_STRING}|{_QUOTED})(?:@({_DOMAIN}|{_LITERAL}))?")
_DOMAIN_ONLY = re.compile(_DOMAIN)

MAX_LOCAL_PART = 64  # octets, RFC 5321 4.5.3.1.1
MAX_DOMAIN = 255  # octets, RFC 5321 4.5.3.1.2
MAX_PATH = 254  # octets of a mailbox: a path of 256 less its angle brackets, RFC 5321 4.5.3.1.3


def split_mailbox(text: str) -> tuple[str, str] | None:
    """Split a mailbox into local-part and domain; the domain is "" where none was written.

    Returns None when the text is not a Mailbox of RFC 5321 4.1.2 (with RFC 6531's UTF-8) or is too long.
    """
    found = _MAILBOX.fullmatch(text)
    if found is None:
        return None
    local, domain = found.group(1), found.group(2) or ""
    if not text.isascii():
        if any(len(part.encode()) > most for part, most in ((local, MAX_LOCAL_PART), (domain, MAX_DOMAIN))):
            return None
    elif len(local) > MAX_LOCAL_PART or len(text) > MAX_PATH:
        return None
    return local, domain


def domain_of(mailbox: str) -> str:
    """Give what stands behind the last @ of a mailbox, or "" where there is none."""
    return mailbox.rpartition("@")[2] if "@" in mailbox else ""


def to_a_label(domain: str) -> str | None:
    """Give the lower-case A-label form of a domain or address literal (RFC 5890 2.3.2.1), without a final dot.

    Returns None when the domain cannot be written in DNS: a label over 63 octets, an empty label, a U-label that
    IDNA 2008 (with UTS 46 mapping) refuses, or a literal that names no address.
    """
    return _to_a_label(domain) if len(domain) <= MAX_DOMAIN else _to_a_label.__wrapped__(domain)


@lru_cache(maxsize=4096)
def _to_a_label(domain: str) -> str | None:
    if domain.startswith("["):
        return domain.lower() if literal_address(domain) is not None else None
    domain = domain.rstrip(".").lower() if domain.endswith(".") else domain.lower()
    if not domain.isascii():
        try:
            domain = idna.encode(domain, uts46=True).decode("ascii")
        except idna.IDNAError:
            return None
    if not domain or len(domain) > MAX_DOMAIN or _DOMAIN_ONLY.fullmatch(domain) is None:
        return None
    if any(len(label) > 63 for label in domain.split(".")):
        return None
    return domain


def to_ascii_mailbox(mailbox: str) -> str | None:
    """Give a mailbox with its domain's A-label if it is not in ASCII; None when its local-part is not, either."""
    if mailbox.isascii():
        return mailbox
    local, _, domain = mailbox.rpartition("@")
    label = to_a_label(domain) if local.isascii() else None
    return None if label is None else f"{local}@{label}"


def literal_address(domain: str) -> IPv4Address | IPv6Address | None:
    """Read an address literal, "[192.0.2.1]" or "[IPv6:2001:db8::1]" (RFC 5321 4.1.3); None when it is not one."""
    if not (domain.startswith("[") and domain.endswith("]")):
        return None
    text = domain[1:-1]
    if text[:5].lower() == "ipv6:":
        text = text[5:]
        if ":" not in text:
            return None
    elif ":" in text:
        return None
    try:
        return ip_address(text)
    except ValueError:
        return None


def to_literal(address: str) -> str:
    """Write an IP address as an address literal (RFC 5321 4.1.3)."""
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"
