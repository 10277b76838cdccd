"""Finds the mailboxes in address fields as people and programs really write them, and changes nothing else."""

import re
from collections.abc import Callable, Iterator

from smarthost.mail.address import split_mailbox

_PLAIN = rb"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.\-]{1,64}@[A-Za-z0-9.\-]{1,180}"
# One mailbox, bare or behind a simple display name: nearly every From field.
_USUAL = re.compile(
    rb"\s*+(?:(?:\"[^\"\\]*+\"|[^\x00-\x08\"<>(),:;@\\]*+)\s*+<(" + _PLAIN + rb")>|(" + _PLAIN + rb"))\s*+"
)
_QUOTED = rb'"(?:[^"\\]|\\.)*+"'
_TOKEN = re.compile(rb"[ \t\r\n]+|" + _QUOTED + rb'|[^ \t\r\n",:;<>()]+|.', re.DOTALL)
_ANGLE = re.compile(rb'<[ \t\r\n]*+(?:@[^<>":]*+:)?((?:' + _QUOTED + rb'|[^"<>])*+)>', re.DOTALL)
_OPEN_TOKEN = re.compile(rb'[ \t\r\n]+|[^ \t\r\n",:;<>()]+|.', re.DOTALL)
_OPEN_ANGLE = re.compile(rb"<[ \t\r\n]*+([^ \t\r\n<>,;]*+)")
_COMMENT_MARK = re.compile(rb"[()]|\\.", re.DOTALL)
_SPACE_OR_COMMENT = re.compile(rb"(" + _QUOTED + rb")|[ \t\r\n]+|\([^()]*+\)", re.DOTALL)
_MAX_WRITTEN = 998  # octets of an address with the white space and comments within it

_MAX_TOKENS = 20_000  # of one field, about 2,000 mailboxes; what is behind them is left as it is

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


def every_address(value: bytes) -> list[str]:
    """Give all the addr-specs of an address field's value, those of groups too; a very long list is cut short."""
    return [address for _, address in _mailboxes(value, 0)]


def replace_address(raw: bytes, old: str, new: str) -> bytes:
    """Give a whole field in which each addr-spec equal to `old`, case aside, is `new`; all else stays as it is."""
    wanted = old.lower()
    spans = [span for span, address in _mailboxes(raw, raw.find(b":") + 1) if address.lower() == wanted]
    for start, end in reversed(spans):
        raw = raw[:start] + new.encode() + raw[end:]
    return raw


def replace_addresses(value: bytes, change: Callable[[str], str]) -> bytes:
    """Give an address field's value in which each addr-spec is what `change` makes of it; all else stays as it is."""
    for (start, end), address in reversed(list(_mailboxes(value, 0))):
        changed = change(address)
        if changed != address:
            value = value[:start] + changed.encode() + value[end:]
    return value


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
    pieces = _Pieces(value, position)
    while (span := pieces.next()) is not None:
        mark = value[span[0] : span[0] + 1]
        if mark == b"<":
            if angle is not None:
                yield from _choose(value, words, angle)
            words = []
            angle = pieces.read_angle(span[0])
        elif mark in (b",", b";"):
            yield from _choose(value, words, angle)
            words, angle = [], None
        elif mark == b":":
            words = []
        elif mark == b"(":
            pieces.pass_comment(span[0])
        elif mark not in b" \t\r\n)>":
            if joins:
                words[-1] = (words[-1][0], span[1])
            else:
                words.append(span)
            joins = True
            continue
        joins = False
    yield from _choose(value, words, angle)


class _Pieces:
    """Cuts an address list into tokens.

    A quote, bracket or comment that is never closed counts as an ordinary octet, and from then on so does each of its
    kind: octets made to be slow cannot make every one of them search the whole header.
    """

    def __init__(self, value: bytes, position: int) -> None:
        self._value = value
        self._position = position
        self._token = _TOKEN
        self._tokens_left = _MAX_TOKENS
        self._has_open_angle = False
        self._has_open_comment = False

    def next(self) -> _Span | None:
        """Give the place of the next token, None at the end; of a bracket or comment, that of its first octet."""
        found = self._token.match(self._value, self._position)
        if found is None or not self._tokens_left:
            return None
        self._tokens_left -= 1
        self._position = found.end()
        if found.group() == b'"':
            self._token = _OPEN_TOKEN
        return found.span()

    def read_angle(self, start: int) -> _Span:
        """Pass over what stands in angle brackets and give its place, without white space; ">" may be missing."""
        found = None if self._has_open_angle else _ANGLE.match(self._value, start)
        if found is None:
            self._has_open_angle = True
            found = _OPEN_ANGLE.match(self._value, start)
            assert found is not None, "an angle bracket is there"
        self._position = found.end()
        inner = found.group(1)
        begin = found.start(1) + len(inner) - len(inner.lstrip())
        return begin, begin + len(inner.strip())

    def pass_comment(self, start: int) -> None:
        """Go on behind a comment, which may hold others."""
        depth = 0
        for mark in () if self._has_open_comment else _COMMENT_MARK.finditer(self._value, start):
            depth += {b"(": 1, b")": -1}.get(mark.group(), 0)
            if not depth:
                self._position = mark.end()
                return
        self._has_open_comment = True


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
