"""Verifies the DKIM signatures of a message, with dkimpy as the library; only the demo and `dkim check` need it."""

from collections.abc import Callable

import dkim
import msgspec

# Takes a name such as "s1._domainkey.example.org" (no final dot), gives the text of its TXT record, None if none.
Lookup = Callable[[str], bytes | None]


class VerifiedSignature(msgspec.Struct, frozen=True):
    """What became of one DKIM-Signature field; `reason` is "" when `ok`, and says why not otherwise."""

    domain: str
    selector: str
    ok: bool
    reason: str = ""


class _Remarks:
    """Stands in for a logger: keeps the last error, since dkimpy tells some reasons only there."""

    def __init__(self) -> None:
        self.last = ""

    def error(self, text: str, *values: object) -> None:
        self.last = text % values if values else text

    def debug(self, text: str, *values: object) -> None:
        """Ignore it."""


def verify(content: bytes, lookup: Lookup) -> list[VerifiedSignature]:
    """Check every DKIM-Signature of a message, topmost first; [] when it has none or cannot be read as a message.

    `lookup` finds key records; what it raises is passed on.
    """
    remarks = _Remarks()
    try:
        message = dkim.DKIM(content, logger=remarks, minkey=1024)
    except dkim.DKIMException:
        return []
    count = sum(1 for name, _ in message.headers if name.lower().rstrip() == b"dkim-signature")
    return [_verify_one(message, number, lookup, remarks) for number in range(count)]


def _verify_one(message: dkim.DKIM, number: int, lookup: Lookup, remarks: _Remarks) -> VerifiedSignature:
    remarks.last = ""
    message.signature_fields = {}
    names: list[str] = []

    def find(name: bytes, timeout: int = 5) -> bytes | None:
        names.append(name.decode("ascii", "replace").rstrip("."))
        return lookup(names[-1])

    try:
        ok = bool(message.verify(idx=number, dnsfunc=find))
        reason = "" if ok else remarks.last or "the signature does not match the header"
    except dkim.DKIMException as fault:
        ok, reason = False, str(fault)
    if not ok and names and lookup(names[-1]) is None:
        reason = f"no key record at {names[-1]}"
    domain, selector = (message.signature_fields.get(tag, b"").decode("ascii", "replace") for tag in (b"d", b"s"))
    return VerifiedSignature(domain, selector, ok, reason)
