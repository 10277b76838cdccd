"""Writes header fields with octets above 127 in ASCII: encoded words, parameters, A-labels (RFC 2047, 2231, 6857)."""

import re
from binascii import b2a_base64

from smarthost.mail.address import split_mailbox, to_a_label
from smarthost.wire.header_address import replace_addresses

# RFC 5322 3.4 and 3.6.2, RFC 8098 2.1: fields of addresses, whose names and comments alone may be encoded.
_ADDRESSES = frozenset(
    b"from sender reply-to to cc bcc resent-from resent-sender resent-reply-to resent-to resent-cc resent-bcc "
    b"disposition-notification-to return-receipt-to errors-to list-id".split()
)
_PARAMETERS = frozenset((b"content-type", b"content-disposition"))
# What no program would read as text: it is understood octet for octet, or not at all.
_MACHINE = frozenset(
    b"message-id resent-message-id content-id date resent-date mime-version content-transfer-encoding "
    b"list-help list-unsubscribe list-subscribe list-post list-owner list-archive list-unsubscribe-post".split()
)
_REFERENCES = frozenset((b"in-reply-to", b"references"))
_DROPPED = frozenset((b"dkim-signature", b"arc-seal", b"arc-message-signature", b"domainkey-signature"))

_LONGEST = 75  # characters of an encoded word, RFC 2047 2
_LINE = 76  # columns of a line that has one
_WORDS = re.compile(rb"[ \t]+|[^ \t]+")
# A quotation that is never closed goes on to the end: octets made to be slow cannot have each quote search for its own.
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"?|[ \t]+|[()<>\[\]:;,]|[^ \t()<>\[\]:;,"]+|.', re.DOTALL)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_PARAMETER = re.compile(rb"(;\s*)([!#$%&'*+.^_`|~\w-]+)\s*=\s*(\"(?:[^\"\\]|\\.)*\"?|[^;\s\"]*)")
_PLAIN_VALUE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$&+-.^_`|~")  # RFC 2231 7
# RFC 2047 5 (3): what may stand for itself in an encoded word of a name, and so anywhere.
_PLAIN_WORD = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/")
_FOR = re.compile(rb"[ \t]for[ \t]<[^<>]*>", re.IGNORECASE)


def downgrade_field(name: bytes, raw: bytes) -> bytes | None:
    """Give a field in ASCII, CRLF at its end; one that is in ASCII stays octet for octet.

    b"" means that the field goes, as a signature that holds no more; None that it cannot be written in ASCII: an
    address whose local-part is not (RFC 6857 3.1.8 would take away that it can be answered), or a machine's word.
    """
    if raw.isascii():
        return raw
    start = raw.index(b":") + 1
    value = raw[start:].replace(b"\r\n", b"")
    written: bytes | None
    if name in _DROPPED:
        return b""
    if name in _REFERENCES:
        written = b" " + b" ".join(word for word in value.split() if word.isascii())
    elif name in _MACHINE:
        return None
    elif name in _PARAMETERS:
        written = _encode_parameters(value)
    elif name in _ADDRESSES:
        written = _encode_addresses(value)
    elif name == b"received":
        written = _FOR.sub(lambda found: found[0] if found[0].isascii() else b"", value)
        written = written if written.isascii() else re.sub(rb"[\x80-\xff]+", b"?", written)
    else:
        written = _encode_runs(_WORDS.findall(value))
    return None if written is None else _fold(raw[:start] + written)


def _encode_parameters(value: bytes) -> bytes | None:
    def encode(found: re.Match[bytes]) -> bytes:
        lead, name, text = found.groups()
        if text.isascii() or name.endswith(b"*"):
            return found[0]
        if text.startswith(b'"'):
            text = _unquote(text)
        shown = b"".join(bytes((octet,)) if octet in _PLAIN_VALUE else b"%%%02X" % octet for octet in text)
        return lead + name + b"*=" + _charset(text) + b"''" + shown

    written = _PARAMETER.sub(encode, value)
    return written if written.isascii() else None


def _encode_addresses(value: bytes) -> bytes | None:
    """Encode names and comments; an address gets its domain's A-label."""
    value = replace_addresses(value, _to_a_label_address)
    tokens: list[bytes] = []
    is_in_angle = False
    for token in _TOKENS.findall(value):
        if token in (b"<", b">"):
            is_in_angle = token == b"<"
        elif not token.isascii() and (is_in_angle or (b"@" in token and not token.startswith(b'"'))):
            return None
        tokens.append(token)
    return _encode_runs(tokens)


def _to_a_label_address(address: str) -> str:
    mailbox = split_mailbox(address)
    if address.isascii() or mailbox is None or not mailbox[0].isascii():
        return address
    label = to_a_label(mailbox[1])
    return address if label is None else f"{mailbox[0]}@{label}"


def _encode_runs(tokens: list[bytes]) -> bytes:
    """Encode each run of tokens with octets above 127, the white space within it included: between encoded words none
    is shown (RFC 2047 6.2).
    """
    written: list[bytes] = []
    run: list[bytes] = []
    space = b""
    for token in tokens:
        if not token.isascii():
            text = _unquote(token) if token.startswith(b'"') else token
            run += [space, text] if run else [text]
            space = b""
        elif run and not token.strip(b" \t") and not space:
            space = token
        else:
            if run:
                written += [_encode(b"".join(run)), space]
                run, space = [], b""
            written.append(token)
    if run:
        written += [_encode(b"".join(run)), space]
    return b"".join(written)


def _unquote(text: bytes) -> bytes:
    return _ESCAPED.sub(rb"\1", text[1:].removesuffix(b'"'))


def _charset(text: bytes) -> bytes:
    try:
        text.decode()
    except UnicodeDecodeError:
        return b"unknown-8bit"  # RFC 1428
    return b"utf-8"


def _encode(text: bytes) -> bytes:
    """Give text as encoded words with a space between them, none of which divides a character (RFC 2047 5)."""
    charset = _charset(text)
    special = sum(octet not in _PLAIN_WORD and octet != 32 for octet in text)
    is_q = special * 3 <= len(text)  # people can read Q, and then it is hardly longer than B
    room = _LONGEST - len(charset) - len(b"=??Q??=")
    words: list[bytes] = []
    held = b""
    for character in _characters(text, charset):
        if held and _size(held + character, is_q=is_q) > room:
            words.append(held)
            held = b""
        held += character
    words.append(held)
    mark = b"Q" if is_q else b"B"
    return b" ".join(b"=?%b?%b?%b?=" % (charset, mark, (_to_q if is_q else _to_b)(word)) for word in words)


def _characters(text: bytes, charset: bytes) -> list[bytes]:
    if charset == b"utf-8":
        return [character.encode() for character in text.decode()]
    return [bytes((octet,)) for octet in text]


def _size(text: bytes, *, is_q: bool) -> int:
    if is_q:
        return sum(1 if octet in _PLAIN_WORD or octet == 32 else 3 for octet in text)
    return -(-len(text) // 3) * 4


def _to_q(text: bytes) -> bytes:
    return b"".join(
        b"_" if octet == 32 else bytes((octet,)) if octet in _PLAIN_WORD else b"=%02X" % octet for octet in text
    )


def _to_b(text: bytes) -> bytes:
    return b2a_base64(text, newline=False)


def _fold(field: bytes) -> bytes:
    """Fold a field at white space where its lines would be over 76 columns; never within a word."""
    lines: list[bytes] = []
    line = b""
    for piece in re.findall(rb"[ \t]*[^ \t]+", field.rstrip(b" \t")):
        if len(line) + len(piece) > _LINE and line and not line.endswith(b":") and piece[:1] in b" \t":
            lines.append(line)
            line = piece
        else:
            line += piece
    return b"\r\n".join([*lines, line]) + b"\r\n"
