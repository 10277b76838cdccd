"""Return paths by which a bounce is known to belong to a message of ours, and which nobody else can make (VERP)."""

import hmac
from base64 import b32encode
from hashlib import sha256

from smarthost.mail.message import ID_LENGTH, format_id, parse_id

_CHECK = 16  # characters of base 32: 80 bits, of which a stranger would have to guess all
_SEPARATOR = "+"


def make_return_path(mailbox: str, message: int, key: bytes) -> str:
    """Give the return path of a message: `bounces@example.org` becomes `bounces+ID-CHECK@example.org`.

    Neither part of it depends on case, which mail hosts do not keep. Raises ValueError for a mailbox without "@".
    """
    local, at, domain = mailbox.rpartition("@")
    if not at or not local:
        raise ValueError("a return path is made of a mailbox")
    name = format_id(message).lower()
    return f"{local}{_SEPARATOR}{name}-{_check(name, domain, key)}@{domain}"


def message_of(return_path: str, mailbox: str, key: bytes) -> int | None:
    """Give the message whose return path this is; None when it is of another mailbox, or was not made with the key."""
    local, _, domain = mailbox.rpartition("@")
    found_local, _, found_domain = return_path.strip().removeprefix("<").removesuffix(">").rpartition("@")
    prefix = f"{local}{_SEPARATOR}".lower()
    rest = found_local.lower().removeprefix(prefix)
    if found_domain.lower() != domain.lower() or not found_local.lower().startswith(prefix):
        return None
    name, dash, check = rest[:ID_LENGTH], rest[ID_LENGTH : ID_LENGTH + 1], rest[ID_LENGTH + 1 :]
    if dash != "-" or not rest.isascii():
        return None
    message = parse_id(name)
    if message is None or not hmac.compare_digest(check, _check(name, domain, key)):
        return None
    return message


def _check(name: str, domain: str, key: bytes) -> str:
    """Give the keyed check of a message's name, for one domain."""
    digest = hmac.digest(key, f"verp {name}@{domain.lower()}".encode(), sha256)
    return b32encode(digest[: _CHECK * 5 // 8]).decode().lower()
