"""Edits a header section once, before signing: trace, missing and private fields, rewriting, completed addresses."""

import re
from datetime import datetime
from functools import lru_cache

import msgspec

from smarthost.mail.address import domain_of, to_a_label
from smarthost.mail.envelope import Envelope, Priority
from smarthost.mail.message import Arrival, format_id
from smarthost.mail.reply import TOO_MANY_HOPS, Reply, make_reply
from smarthost.policy.admission import SENDER_NOT_ALLOWED, Submission, User, check_sender
from smarthost.policy.rewriting import Rewriter
from smarthost.wire.header import (
    Field,
    complete_address,
    every_address,
    field_value,
    first_address,
    format_date,
    has_utf8,
    parse_fields,
    received,
    replace_address,
)

_Wishes = tuple[str, Priority | None, float]
"""What the X-Smarthost fields say: tag, priority, send-at time."""

# Removed from every message: RFC 5322 3.6.3 (Bcc), RFC 5321 4.4 (Return-Path is the final server's to write).
_PRIVATE = frozenset({b"bcc", b"resent-bcc", b"return-path"})
_OURS = b"x-smarthost-"
_COMPLETED = frozenset({b"from", b"sender", b"reply-to", b"to", b"cc"})
_ADDED = frozenset({b"date", b"from", b"message-id"})
_NO_WISHES: _Wishes = ("", None, 0.0)
_SHORT_FIELD = 512  # octets of a From field that is remembered
_LAST_YEAR = 2999  # of a send-at time: the expiry that is counted from it has to be a date, too
_TAG = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class EditRules(msgspec.Struct, frozen=True):
    """What an edit depends on besides the message: our names, the submission settings, and the users."""

    hostname: str
    default_domain: str
    submission: Submission
    rewriter: Rewriter
    users: dict[str, User]


class Edited(msgspec.Struct, gc=False):
    """An edited header section and what was learned from it.

    `fields` are in order, trace first; `from_domain` is the A-label domain of the first From address, "" if there is
    none; `utf8` says that the section needs SMTPUTF8; `send_at` is a Unix time or 0.
    """

    fields: list[Field]
    envelope: Envelope
    from_domain: str
    utf8: bool
    tag: str = ""
    send_at: float = 0.0

    @property
    def octets(self) -> bytes:
        """The section as it is sent, with the empty line that ends it."""
        return b"".join([raw for _, raw in self.fields]) + b"\r\n"


def edit_header(header: bytes, number: int, arrival: Arrival, envelope: Envelope, rules: EditRules) -> Edited | Reply:
    """Edit a message's header section; a Reply refuses the message (too many hops, a From that the user may not use).

    `header` is all that stands before the empty line; `number` is the message id.
    """
    fields = parse_fields(header)
    names = [name for name, _ in fields]
    if names.count(b"received") > rules.submission.max_hops:
        return TOO_MANY_HOPS
    # Asked of the whole section first: nearly no message has any of these.
    has_ours = _OURS in header.lower()
    wishes = _read_wishes(fields) if has_ours else _NO_WISHES
    if isinstance(wishes, Reply):
        return wishes
    envelope = _rewrite_envelope(envelope, wishes[1], rules.rewriter)
    if has_ours or not _PRIVATE.isdisjoint(names):
        fields = [field for field in fields if field[0] not in _PRIVATE and not field[0].startswith(_OURS)]
    author, domain = _complete_fields(fields, rules.default_domain)
    if rules.submission.add_missing_headers and not _ADDED.issubset(names):
        _add_missing(fields, names, number, arrival.at, envelope.reverse_path, rules.hostname)
        if b"from" not in names:
            author, domain = _read_author(fields)
    wanted = rules.rewriter.header_from(author) if author else author
    if wanted != author:
        _rewrite_author(fields, author, wanted)
        author, domain = wanted, to_a_label(domain_of(wanted)) or ""
    if arrival.identity:
        user = rules.users.get(arrival.identity)
        if user is not None and user.allowed_senders and (refusal := _check_authors(user, fields)) is not None:
            return refusal
    recipients = envelope.recipients
    only = recipients[0].address if len(recipients) == 1 else ""
    trace = received(arrival, rules.hostname, format_id(number), only, hide_client=rules.submission.hide_client)
    fields.insert(0, (b"received", trace))
    utf8 = has_utf8(b"".join([raw for _, raw in fields]))
    return Edited(fields, envelope, domain, utf8, wishes[0], wishes[2])


def _check_authors(user: User, fields: list[Field]) -> Reply | None:
    """Refuse unless the user may send as everybody whom a reader might take for the author: of each From, all."""
    for name, raw in fields:
        if name == b"from":
            authors = every_address(field_value(raw))
            if not authors or any(check_sender(user, author) is not None for author in authors):
                return SENDER_NOT_ALLOWED
    return None


def _read_wishes(fields: list[Field]) -> _Wishes | Reply:
    """Read the X-Smarthost fields: tag, priority, send-at time; a value that cannot be read refuses the message."""
    tag, priority, send_at = _NO_WISHES
    for name, raw in fields:
        if not name.startswith(_OURS):
            continue
        value = field_value(raw).decode("utf-8", "replace")
        if name == b"x-smarthost-tag":
            if _TAG.fullmatch(value) is None:
                return make_reply(554, "5.6.0", "X-Smarthost-Tag: up to 64 letters, digits, dots, dashes are allowed")
            tag = value
        elif name == b"x-smarthost-priority":
            if value.lower() not in {each.value for each in Priority}:
                return make_reply(554, "5.6.0", "X-Smarthost-Priority: immediate, high, medium or low are allowed")
            priority = Priority(value.lower())
        elif name == b"x-smarthost-send-at":
            try:
                when = datetime.fromisoformat(value)
            except ValueError:
                when = datetime.max
            send_at = when.timestamp() if when.tzinfo is not None and when.year <= _LAST_YEAR else 0.0
            if not send_at:
                return make_reply(554, "5.6.0", "X-Smarthost-Send-At: an RFC 3339 time with a zone is allowed")
    return tag, priority, send_at


def _rewrite_envelope(envelope: Envelope, priority: Priority | None, rewriter: Rewriter) -> Envelope:
    """Apply the rewriting rules to the reverse-path and each recipient; the same object if nothing changes."""
    reverse_path = rewriter.reverse_path(envelope.reverse_path) if envelope.reverse_path else ""
    recipients = []
    changed = False
    for recipient in envelope.recipients:
        address = rewriter.recipient(recipient.address)
        if address != recipient.address:
            domain = to_a_label(domain_of(address))
            if domain is not None:
                recipient = msgspec.structs.replace(recipient, address=address, domain=domain)
                changed = True
        recipients.append(recipient)
    if not changed and reverse_path == envelope.reverse_path and priority is None:
        return envelope
    return msgspec.structs.replace(
        envelope,
        reverse_path=reverse_path,
        recipients=tuple(recipients),
        priority=priority or envelope.priority,
    )


def _complete_fields(fields: list[Field], default_domain: str) -> tuple[str, str]:
    """Complete addresses without a domain in the address fields, as cron and printers write them.

    Gives the first From address, as completed, and its A-label domain; "" for what is not there.
    """
    author = None
    for index, (name, raw) in enumerate(fields):
        if name not in _COMPLETED:
            continue
        if name != b"from" or author is not None:
            completed = complete_address(raw, default_domain)
        else:
            read = _complete_author if len(raw) <= _SHORT_FIELD else _complete_author.__wrapped__
            author = read(raw, default_domain)
            completed = author[0]
        if completed is not raw:
            fields[index] = (name, completed)
    return ("", "") if author is None else author[1:]


@lru_cache(maxsize=1024)
def _complete_author(raw: bytes, default_domain: str) -> tuple[bytes, str, str]:
    """Give a From field with its addresses completed, its first address, and the A-label domain of that."""
    completed = complete_address(raw, default_domain)
    author = first_address(field_value(completed))
    return completed, author, to_a_label(domain_of(author)) or ""


def _read_author(fields: list[Field]) -> tuple[str, str]:
    """Give the first From address and its A-label domain; "" for what is not there."""
    for name, raw in fields:
        if name == b"from":
            author = first_address(field_value(raw))
            return author, to_a_label(domain_of(author)) or ""
    return "", ""


def _add_missing(
    fields: list[Field], names: list[bytes], number: int, at: float, reverse_path: str, hostname: str
) -> None:
    """Add Date, From and Message-ID where absent (RFC 6409 8)."""
    if b"date" not in names:
        fields.append((b"date", f"Date: {format_date(at)}\r\n".encode()))
    if b"from" not in names:
        author = reverse_path or f"MAILER-DAEMON@{hostname}"
        fields.append((b"from", f"From: <{author}>\r\n".encode()))
    if b"message-id" not in names:
        fields.append((b"message-id", f"Message-ID: <{format_id(number).lower()}@{hostname}>\r\n".encode()))


def _rewrite_author(fields: list[Field], author: str, wanted: str) -> None:
    """Replace the author's address in the first From field."""
    for index, (name, raw) in enumerate(fields):
        if name == b"from":
            fields[index] = (name, replace_address(raw, author, wanted))
            return
