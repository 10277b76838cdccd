"""Edits a header section once, before signing: trace, missing and private fields, rewriting, completed addresses."""

import re
from datetime import datetime

import msgspec

from smarthost.mail.address import domain_of, to_a_label
from smarthost.mail.envelope import Envelope, Priority
from smarthost.mail.message import Arrival, format_id
from smarthost.mail.reply import TOO_MANY_HOPS, Reply, make_reply
from smarthost.policy.admission import Submission, User, check_sender
from smarthost.policy.rewriting import Rewriter
from smarthost.wire.header import (
    Field,
    complete_address,
    field_value,
    first_address,
    format_date,
    has_utf8,
    parse_fields,
    received,
    replace_address,
)

# Removed from every message: RFC 5322 3.6.3 (Bcc), RFC 5321 4.4 (Return-Path is the final server's to write).
_PRIVATE = frozenset({b"bcc", b"resent-bcc", b"return-path"})
_OURS = b"x-smarthost-"
_COMPLETED = frozenset({b"from", b"sender", b"reply-to", b"to", b"cc"})
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
    wishes = _read_wishes(fields, names)
    if isinstance(wishes, Reply):
        return wishes
    envelope = _rewrite_envelope(envelope, wishes[1], rules.rewriter)
    fields = [field for field in fields if field[0] not in _PRIVATE and not field[0].startswith(_OURS)]
    _complete_fields(fields, rules.default_domain)
    if rules.submission.add_missing_headers:
        _add_missing(fields, names, number, arrival.at, envelope.reverse_path, rules.hostname)
    author = _rewrite_author(fields, rules.rewriter)
    user = rules.users.get(arrival.identity) if arrival.identity else None
    if user is not None and author and (refusal := check_sender(user, author)) is not None:
        return refusal
    only = envelope.recipients[0].address if len(envelope.recipients) == 1 else ""
    trace = received(arrival, rules.hostname, format_id(number), only, hide_client=rules.submission.hide_client)
    fields.insert(0, (b"received", trace))
    utf8 = any(not raw.isascii() for _, raw in fields) and has_utf8(b"".join([raw for _, raw in fields]))
    return Edited(fields, envelope, to_a_label(domain_of(author)) or "", utf8, wishes[0], wishes[2])


def _read_wishes(fields: list[Field], names: list[bytes]) -> tuple[str, Priority | None, float] | Reply:
    """Read the X-Smarthost fields: tag, priority, send-at time; a value that cannot be read refuses the message."""
    tag, priority, send_at = "", None, 0.0
    if not any(name.startswith(_OURS) for name in names):
        return tag, priority, send_at
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
                send_at = datetime.fromisoformat(value).timestamp()
            except ValueError:
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


def _complete_fields(fields: list[Field], default_domain: str) -> None:
    """Complete addresses without a domain in the address fields, as cron and printers write them."""
    for index, (name, raw) in enumerate(fields):
        if name in _COMPLETED:
            completed = complete_address(raw, default_domain)
            if completed is not raw:
                fields[index] = (name, completed)


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


def _rewrite_author(fields: list[Field], rewriter: Rewriter) -> str:
    """Apply the header_from rules; give the first From address as it now stands, "" if there is none."""
    for index, (name, raw) in enumerate(fields):
        if name == b"from":
            author = first_address(field_value(raw))
            wanted = rewriter.header_from(author) if author else author
            if wanted != author:
                fields[index] = (name, replace_address(raw, author, wanted))
            return wanted
    return ""
