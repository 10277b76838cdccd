"""Finds the mailboxes in address fields as people and programs really write them, and changes nothing else."""

import re
from collections.abc import Iterator
from itertools import islice

from smarthost.mail.address import split_mailbox

_PLAIN = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.\-]{1,64}@[A-Za-z0-9.\-]{1,180}"
# One mailbox, bare or behind a simple display name: nearly every From field.
_USUAL = re.compile(
    rb"\s*+(?:(?:\"[^\"\\]*+\"|[^\x00-\x08\"<>(),:;@\\]*+)\s*+<(" + _PLAIN + rb")>|(" + _PLAIN + rb"))\s*+"
)
# Quoted strings are bounded, so that octets made to be slow cannot make each quote search the whole header.
_QUOTED = rb'"(?:[^"\\]|\\.){0,256}+"'
_TOKEN = re.compile(rb"[ \t\r\n]+|" + _QUOTED + rb'|[^ \t\r\n",:;<>()]+|.', re.DOTALL)
_ANGLE = re.compile(rb'<[ \t\r\n]*+(?:@[^<>":]*+:)?((?:' + _QUOTED + rb'|[^"<>])*+)>', re.DOTALL)
_OPEN_ANGLE = re.compile(rb"<[ \t\r\n]*+([^ \t\r\n<>,;]*+)")
_COMMENT_MARK = re.compile(rb"[()]|\\.", re.DOTALL)
_MAX_COMMENT_MARKS = 64  # parentheses and escapes in one comment; one that has more is not read as a comment
_SPACE_OR_COMMENT = re.compile(rb"(" + _QUOTED + rb")|[ \t\r\n]+|\([^()]*+\)", re.DOTALL)
_MAX_WRITTEN = 998  # octets of an address with the white space and comments within it

_Span = tuple[int, int]


def first_address(value: bytes) -> str:
    """Give the first addr-spec of an address field's value (RFC 5322 3.4), "" if there is none.

    Display names, comments, quoted strings, groups and source routes are passed over; brackets may be missing. An
    address without a domain is given as it is: "root".
    """
    usual = _USUAL.fullmatch(value)
    if usual is not None:
        address = (usual.group(1) or usual.group(2)).decode()
        if split_mailbox(address) is not None:
            return address
    for _, address in _mailboxes(value, 0):
        return address
    return ""


def replace_address(raw: bytes, old: str, new: str) -> bytes:
    """Give a whole field in which each addr-spec equal to `old`, case aside, is `new`; all else stays as it is."""
    wanted = old.lower()
    spans = [span for span, address in _mailboxes(raw, raw.find(b":") + 1) if address.lower() == wanted]
    for start, end in reversed(spans):
        raw = raw[:start] + new.encode() + raw[end:]
    return raw


def complete_address(raw: bytes, default_domain: str) -> bytes:
    """Give a whole field in which each mailbox without a domain has got the default one; all else stays as it is."""
    value_at = raw.find(b":") + 1
    if _USUAL.fullmatch(raw, value_at):
        return raw
    spans = [span for span, address in _mailboxes(raw, value_at) if _has_no_domain(address)]
    for _, end in reversed(spans):
        raw = raw[:end] + b"@" + default_domain.encode() + raw[end:]
    return raw


def _has_no_domain(address: str) -> bool:
    mailbox = split_mailbox(address)
    return mailbox is not None and not mailbox[1] and address.isascii()


def _mailboxes(value: bytes, position: int) -> Iterator[tuple[_Span, str]]:
    """Walk over an address list and give each addr-spec with its place."""
    words: list[_Span] = []
    angle: _Span | None = None
    joins = False
    while position < len(value):
        token = _TOKEN.match(value, position)
        assert token is not None, "the expression matches any octet"
        start, position = token.span()
        mark = value[start : start + 1]
        if mark == b"<":
            if angle is not None:
                yield from _choose(value, words, angle)
            words = []
            angle, position = _read_angle(value, start)
        elif mark in (b",", b";"):
            yield from _choose(value, words, angle)
            words, angle = [], None
        elif mark == b":":
            words = []
        elif mark == b"(":
            position = _end_of_comment(value, start)
        elif mark not in b" \t\r\n)>":
            if joins:
                words[-1] = (words[-1][0], position)
            else:
                words.append((start, position))
            joins = True
            continue
        joins = False
    yield from _choose(value, words, angle)


def _read_angle(value: bytes, start: int) -> tuple[_Span, int]:
    """Give the place of what stands in angle brackets, without white space, and where to go on; ">" may be missing."""
    found = _ANGLE.match(value, start) or _OPEN_ANGLE.match(value, start)
    assert found is not None, "an angle bracket is there"
    inner = found.group(1)
    begin = found.start(1) + len(inner) - len(inner.lstrip())
    return (begin, begin + len(inner.strip())), found.end()


def _end_of_comment(value: bytes, start: int) -> int:
    """Give the place behind a comment, which may hold others; behind its first parenthesis if it is never closed."""
    depth = 0
    for mark in islice(_COMMENT_MARK.finditer(value, start), _MAX_COMMENT_MARKS):
        if mark.group() == b"(":
            depth += 1
        elif mark.group() == b")":
            depth -= 1
            if not depth:
                return mark.end()
    return start + 1


def _choose(value: bytes, words: list[_Span], angle: _Span | None) -> Iterator[tuple[_Span, str]]:
    """Give the addr-spec of one mailbox: what is in brackets, else the first word that is an address."""
    if angle is not None:
        address = _text(value, angle)
        if address and split_mailbox(address) is not None:
            yield angle, address
        return
    for span in words:
        address = _text(value, span)
        mailbox = split_mailbox(address)
        if mailbox is not None and mailbox[1]:
            yield span, address
            return
    if not words:
        return
    # "root", or the obsolete "root @ example.org"; a lone encoded word or quoted string is a name and no address.
    span = words[0][0], words[-1][1]
    address = _text(value, span)
    mailbox = split_mailbox(address)
    if mailbox is not None and (mailbox[1] or (len(words) == 1 and not address.startswith(("=?", '"')))):
        yield span, address


def _text(value: bytes, span: _Span) -> str:
    """Give the octets of a place as text, without white space and comments outside of quoted strings."""
    if span[1] - span[0] > _MAX_WRITTEN:
        return ""
    octets = value[span[0] : span[1]]
    if b" " in octets or b"(" in octets or b"\t" in octets or b"\n" in octets:
        octets = _SPACE_OR_COMMENT.sub(lambda found: found.group(1) or b"", octets)
    return octets.decode("utf-8", "replace")
