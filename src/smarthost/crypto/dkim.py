"""Signs mail: canonicalises the signed header fields and the body (relaxed), and writes DKIM-Signature fields."""

import hashlib
from base64 import b64encode
from collections.abc import Sequence
from functools import lru_cache

import msgspec

from smarthost.crypto.dkim_keys import SigningKey
from smarthost.crypto.signer import sign_digest

# Fields that RFC 5322 3.6 and RFC 2045 allow once. Each that is there is named once more in h= than it occurs, so that
# nobody can put a second one on top. An absent one is left open: a later hop may rightly add it. From never is.
SINGLE_FIELDS = (
    b"from",
    b"sender",
    b"reply-to",
    b"subject",
    b"date",
    b"message-id",
    b"to",
    b"cc",
    b"in-reply-to",
    b"references",
    b"mime-version",
    b"content-type",
    b"content-transfer-encoding",
)
# RFC 6376 5.4.1, with what else describes the content or tells programs what to do with the mail: one-click
# unsubscription (RFC 8058 4 demands a signature over both fields), Gmail's Feedback-ID, RFC 3834, RFC 8689.
REPEATABLE_FIELDS = (
    b"content-id",
    b"content-description",
    b"content-disposition",
    b"content-language",
    b"resent-date",
    b"resent-from",
    b"resent-sender",
    b"resent-to",
    b"resent-cc",
    b"resent-message-id",
    b"list-id",
    b"list-help",
    b"list-unsubscribe",
    b"list-unsubscribe-post",
    b"list-subscribe",
    b"list-post",
    b"list-owner",
    b"list-archive",
    b"feedback-id",
    b"auto-submitted",
    b"tls-required",
)
_SIGNED = frozenset(SINGLE_FIELDS + REPEATABLE_FIELDS)
_SINGLE = frozenset(SINGLE_FIELDS)
_WIDTH = 76  # columns of a folded line; RFC 5322 2.1.1 advises at most 78
_FEW_NAMES = 50
_LONGEST_HELD = 4096  # octets of white space that are held as they are; more is kept as a number of empty lines


class BodyHash:
    """SHA-256 over a body in relaxed canonical form (RFC 6376 3.4.4), fed block by block.

    The body's line ends are CRLF; blocks may be cut anywhere. White space and line ends at the end of a block are held
    back until something else follows, so that every run is seen whole and empty lines at the body's end never count.
    """

    def __init__(self) -> None:
        """Start with an empty body."""
        self._sha256 = hashlib.sha256()
        self._held = b""
        self._empty_lines = 0  # line ends that were held before `_held`
        self._is_empty = True

    def update(self, block: bytes) -> None:
        """Add the next octets of the body."""
        octets = self._held + block if self._held else block
        text = octets.rstrip(b" \t\r\n")
        if not text:
            self._hold(octets)
            return
        self._held = octets[len(text) :]
        if self._empty_lines:
            self._write_empty_lines()
        if b"\t" in text:
            text = text.replace(b"\t", b" ")
        if b" " in text:
            while b"  " in text:
                text = text.replace(b"  ", b" ")
            text = text.replace(b" \r\n", b"\r\n")
        self._is_empty = False
        self._sha256.update(text)

    def digest(self) -> bytes:
        """Give the hash of what was fed so far; more may follow."""
        if self._is_empty:
            return self._sha256.digest()
        whole = self._sha256.copy()
        whole.update(b"\r\n")
        return whole.digest()

    def _hold(self, octets: bytes) -> None:
        """Keep octets that are all white space, as a number when they are many: a body may be nothing else."""
        if len(octets) > _LONGEST_HELD:
            octets = octets.replace(b"\t", b" ")
            while b"  " in octets:
                octets = octets.replace(b"  ", b" ")
            octets = octets.replace(b" \r\n", b"\r\n")
            lines = octets.count(b"\r\n")
            if octets.startswith(b"\r\n" * lines):
                self._empty_lines += lines
                octets = octets[2 * lines :]
        self._held = octets

    def _write_empty_lines(self) -> None:
        while self._empty_lines:
            lines = min(self._empty_lines, 32 * 1024)
            self._sha256.update(b"\r\n" * lines)
            self._empty_lines -= lines


def canonical_field(name: bytes, raw: bytes) -> bytes:
    """Write a field in relaxed form, CRLF at its end (RFC 6376 3.4.2). `name` is its lower-case name."""
    value = raw[raw.index(b":") + 1 :].rstrip(b"\r\n").strip(b" ")
    if b"  " in value or b"\t" in value or b"\r\n" in value:
        value = b" ".join(filter(None, value.replace(b"\r\n", b"").replace(b"\t", b" ").split(b" ")))
    return b"%b:%b\r\n" % (name, value)


class Unsigned(msgspec.Struct, frozen=True):
    """DKIM-Signature fields that lack their signatures, one a key: each a field up to its empty b=, and its digest."""

    keys: tuple[SigningKey, ...]
    heads: tuple[bytes, ...]
    digests: tuple[bytes, ...]

    def complete(self, signatures: Sequence[bytes]) -> bytes:
        """Write the fields with their signatures, each folded and with CRLF at its end."""
        return b"".join(
            [head + _fold_signature(signature) for head, signature in zip(self.heads, signatures, strict=True)]
        )


def prepare(
    keys: tuple[SigningKey, ...], fields: Sequence[tuple[bytes, bytes]], body_hash: bytes, now: int
) -> Unsigned:
    """Write all of a message's DKIM-Signature fields but the signatures, and the digests that these are made of.

    `fields` are the header as it will be sent: lower-case name, and the octets with folds and CRLF. `body_hash` is
    `BodyHash.digest()`; `now` is a Unix time in seconds.
    """
    names, canonical = _select(fields)
    digest_so_far = hashlib.sha256(canonical)
    signed = _remembered_names(names) if len(names) <= _FEW_NAMES else _fold_names(names)
    body = b64encode(body_hash)
    heads, digests = [], []
    for key in keys:
        value = _unsigned(key, signed, body, now)
        digest = digest_so_far.copy()
        digest.update(b"dkim-signature:" + value.replace(b"\r\n\t", b" "))
        heads.append(b"DKIM-Signature: " + value)
        digests.append(digest.digest())
    return Unsigned(keys, tuple(heads), tuple(digests))


def sign(keys: tuple[SigningKey, ...], fields: Sequence[tuple[bytes, bytes]], body_hash: bytes, now: int) -> bytes:
    """Give the DKIM-Signature fields of a message; b"" without keys. The arguments are those of `prepare`.

    It may run in any thread: the RSA part, 0.5 ms for 2048 bits, releases the interpreter.
    """
    return sign_here(prepare(keys, fields, body_hash, now))


def sign_here(unsigned: Unsigned) -> bytes:
    """Make the signatures in the thread that calls, and give the whole fields."""
    pairs = zip(unsigned.keys, unsigned.digests, strict=True)
    return unsigned.complete([sign_digest(key.private, digest) for key, digest in pairs])


def _select(fields: Sequence[tuple[bytes, bytes]]) -> tuple[tuple[bytes, ...], bytes]:
    """Choose what is signed: the names for h=, and the canonical fields in the same order.

    Fields of one name are taken from the bottom of the header up (RFC 6376 5.4.2).
    """
    found: dict[bytes, list[bytes]] = {b"from": []}
    for name, raw in reversed(fields):
        if name in found:
            found[name].append(canonical_field(name, raw))
        elif name in _SIGNED:
            found[name] = [canonical_field(name, raw)]
    names: list[bytes] = []
    canonical: list[bytes] = []
    for name, instances in found.items():
        canonical += instances
        names += [name] * (len(instances) + (name in _SINGLE))
    return tuple(names), b"".join(canonical)


def _fold_names(names: tuple[bytes, ...]) -> bytes:
    """Join names by colons, folded into lines (white space is allowed around a colon, RFC 6376 3.5)."""
    lines = []
    line = b"h=" + names[0]
    for name in names[1:]:
        if len(line) + len(name) + 2 > _WIDTH:
            lines.append(line + b":")
            line = name
        else:
            line += b":" + name
    lines.append(line)
    return b"\r\n\t".join(lines)


# Applications write the same few fields in the same order.
_remembered_names = lru_cache(maxsize=1000)(_fold_names)


def _unsigned(key: SigningKey, signed: bytes, body: bytes, now: int) -> bytes:
    """Write a DKIM-Signature field's value up to an empty b=, which is the form that is signed (RFC 6376 3.7).

    Its relaxed form is the same with a space for each fold.
    """
    return b"v=1; a=%b; c=relaxed/relaxed; t=%d;\r\n\td=%b; s=%b;\r\n\t%b;\r\n\tbh=%b;\r\n\tb=" % (
        key.algorithm.encode("ascii"),
        now,
        key.domain.encode("ascii"),
        key.selector.encode("ascii"),
        signed,
        body,
    )


def _fold_signature(signature: bytes) -> bytes:
    text = b64encode(signature)
    return b"\r\n\t".join([text[start : start + 72] for start in range(0, len(text), 72)]) + b"\r\n"
