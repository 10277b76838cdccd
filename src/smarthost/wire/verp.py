"""Return paths that lead to a message and a recipient of ours, and that nobody else can make (VERP)."""

import hmac
from base64 import b32encode
from hashlib import sha256

import msgspec

from smarthost.mail.message import ID_LENGTH, format_id, parse_id

_CHECK = 16  # characters of base 32: 80 bits, of which a stranger would have to guess all
_TAG = 8  # characters that tell the recipients of one message from each other
_SEPARATOR = "+"


class ReturnPath(msgspec.Struct, frozen=True):
    """What a return path says: the message, and which of its recipients (`tag_of`)."""

    message: int
    tag: str


def make_return_path(mailbox: str, message: int, recipient: str, key: bytes) -> str:
    """Give the return path of a message to a recipient.

    `bounces@example.org` becomes `bounces+ID-TAG-CHECK@example.org`. No part of it depends on case, which
    mail hosts do not keep. Raises ValueError for a mailbox without "@".
    """
    local, at, domain = mailbox.rpartition("@")
    if not at or not local:
        raise ValueError("a return path is made of a mailbox")
    name = f"{format_id(message).lower()}-{tag_of(message, recipient, key)}"
    return f"{local}{_SEPARATOR}{name}-{_check(name, domain, key)}@{domain}"


def read_return_path(return_path: str, mailbox: str, key: bytes) -> ReturnPath | None:
    """Say what a return path says; None when it is of another mailbox, or was not made with the key."""
    local, _, domain = mailbox.rpartition("@")
    found_local, _, found_domain = return_path.strip().removeprefix("<").removesuffix(">").rpartition("@")
    prefix, found_local = f"{local}{_SEPARATOR}".lower(), found_local.lower()
    parts = found_local.removeprefix(prefix).split("-")
    if found_domain.lower() != domain.lower() or not found_local.startswith(prefix) or len(parts) != 3:
        return None
    identity, tag, check = parts
    if not found_local.isascii() or len(identity) != ID_LENGTH:
        return None
    message = parse_id(identity)
    if message is None or not hmac.compare_digest(check, _check(f"{identity}-{tag}", domain, key)):
        return None
    return ReturnPath(message, tag)


def tag_of(message: int, recipient: str, key: bytes) -> str:
    """Give by what a recipient is told from the others of its message; the address cannot be told from it."""
    return _letters(key, f"recipient {message} {recipient.lower()}", _TAG)


def _check(name: str, domain: str, key: bytes) -> str:
    """Give the keyed check of a name, for one domain."""
    return _letters(key, f"verp {name}@{domain.lower()}", _CHECK)


def _letters(key: bytes, text: str, length: int) -> str:
    digest = hmac.digest(key, text.encode("utf-8", "surrogateescape"), sha256)
    return b32encode(digest[: length * 5 // 8]).decode().lower()
