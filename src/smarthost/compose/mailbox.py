"""Mailboxes as a request writes them: "a@b", "Name <a@b>", a list of these, or an address with a name."""

import re

import msgspec

from smarthost.compose.fault import excerpt
from smarthost.mail.address import MAX_LOCAL_PART, MAX_PATH, split_mailbox, to_a_label

_PLAIN = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.\-]{1,64}@[A-Za-z0-9.\-]{1,180}")
_WITH_NAME = re.compile(r'\s*+(?:"((?:[^"\\]|\\.)*+)"|([^<>"]*+))\s*+<([^<>]*+)>\s*+', re.DOTALL)
# A quote that is never closed takes all the rest, so that each character is looked at once.
_PARTS = re.compile(r'(?:"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|<[^<>]*+>|[^,"<]|<)+', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
# What ends a line for somebody, or shows as something else than it is.
CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
MAX_NAME = 256  # characters of a display name


class Mailbox(msgspec.Struct, frozen=True, gc=False):
    """An address and the name that is shown for it.

    `address` is in ASCII if its local-part is: a domain in Unicode has become its A-label. `domain` is the A-label.
    """

    address: str
    domain: str
    name: str = ""


def read_mailbox(text: str) -> Mailbox | str:
    """Read "a@b" or "Name <a@b>"; what is wrong is said in a sentence."""
    if _PLAIN.fullmatch(text) is not None:
        return make_mailbox(text, "")
    found = _WITH_NAME.fullmatch(text)
    if found is None:
        return make_mailbox(text.strip(), "")
    quoted, bare, address = found.groups()
    name = _ESCAPED.sub(r"\1", quoted) if quoted is not None else bare.strip()
    return make_mailbox(address.strip(), name)


def split_list(text: str) -> list[str]:
    """Cut a list of mailboxes at its commas, those in quotes and brackets left out."""
    if "," not in text:
        return [text]
    return [part for part in _PARTS.findall(text) if part.strip()]


def make_mailbox(address: str, name: str) -> Mailbox | str:
    """Check an address and its name; what is wrong is said in a sentence."""
    if name and CONTROL.search(name):
        return "the name has a line break or another control character"
    if len(name) > MAX_NAME:
        return f"the name has {len(name)} characters; {MAX_NAME} are allowed"
    parts = split_mailbox(address) if len(address) <= MAX_PATH else None
    if parts is None or not parts[1]:
        return _wrong_with(address)
    label = to_a_label(parts[1])
    if label is None:
        return f"the domain {excerpt(parts[1])} cannot be a domain of DNS"
    if not address.isascii() and parts[0].isascii():
        address = f"{parts[0]}@{label}"
    if len(address) > MAX_PATH or (not address.isascii() and len(address.encode()) > MAX_PATH):
        return _too_long(address)
    return Mailbox(address, label, name)


def _wrong_with(address: str) -> str:
    """Say why this is no mailbox of RFC 5321 4.1.2."""
    if not address:
        return "an address is missing"
    if len(address.encode("utf-8", "replace")) > MAX_PATH:
        return _too_long(address)
    local, at, _ = address.rpartition("@")
    if not at:
        return f"{excerpt(address)} is not an address: it has no @"
    if len(local.encode("utf-8", "replace")) > MAX_LOCAL_PART:
        return f"what stands before the @ has more than {MAX_LOCAL_PART} octets (RFC 5321 4.5.3.1.1)"
    return f"{excerpt(address)} is not an address of the form name@domain"


def _too_long(address: str) -> str:
    octets = len(address.encode("utf-8", "replace"))
    return f"the address has {octets} octets; {MAX_PATH} are allowed (RFC 5321 4.5.3.1.3)"
