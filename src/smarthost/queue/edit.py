"""Edits a header section once, before signing: trace, missing and private fields, rewriting, completed addresses."""

from functools import lru_cache

import msgspec

from smarthost.mail.address import domain_of, to_a_label
from smarthost.mail.envelope import Envelope, Notify, Priority
from smarthost.mail.message import Arrival
from smarthost.mail.reply import TOO_MANY_HOPS, Reply, make_reply
from smarthost.policy.account import account_of
from smarthost.policy.admission import SENDER_NOT_ALLOWED, Submission, User, check_sender
from smarthost.policy.rewriting import Rewriter
from smarthost.wire.header import (
    Field,
    complete_address,
    drop_fields,
    every_address,
    field_value,
    first_address,
    format_date,
    has_utf8,
    received,
    replace_address,
)
from smarthost.wire.wishes import PREFIX, Wishes, read_wishes

# Removed from every message: RFC 5322 3.6.3 (Bcc), RFC 5321 4.4 (Return-Path is the final server's to write).
_PRIVATE = frozenset({b"bcc", b"resent-bcc", b"return-path"})
_TLS_REQUIRED = b"tls-required"
_LOOP_MARK = b"x-smarthost-report"  # of reports: one that comes back is never reported on
_COMPLETED = frozenset({b"from", b"sender", b"reply-to", b"to", b"cc"})
_ADDED = frozenset({b"date", b"from", b"message-id"})
NO_SUCH_ROUTE = make_reply(554, "5.7.1", "X-Smarthost-Route: this user has no route of that name to choose")
_NO_WISHES = Wishes()  # never written to
_SHORT_FIELD = 512  # octets of a From field that is remembered
_FEW_FIELDS, _SHORT_NAMES = 64, 1024  # fields, and octets of their names, in a section whose shape is remembered


class EditRules(msgspec.Struct, frozen=True):
    """What an edit depends on besides the message: our names, the submission settings, and the users."""

    hostname: str
    default_domain: str
    submission: Submission
    rewriter: Rewriter
    users: dict[str, User]
    routes: frozenset[str] = frozenset()

    def may_choose(self, identity: str, route: str) -> bool:
        """Say whether a user may name a route for its mail: one that it is allowed, or one of its own accounts."""
        owner = account_of(route)
        if owner is not None:
            return owner[0] == identity and route in self.routes
        user = self.users.get(identity)
        return user is not None and route in self.routes and user.may_choose(route)


class Edited(msgspec.Struct, gc=False):
    """An edited header section and what was learned from it.

    `fields` are in order, trace first; `octets` is the section as it is sent, with the empty line that ends it;
    `from_domain` is the A-label domain of the first From address, "" if there is none; `utf8` says that the section
    needs SMTPUTF8. The envelope has what the message itself asks for: a priority, and a time of sending. `key` is the
    one under which it is sent once.
    """

    fields: list[Field]
    octets: bytes
    envelope: Envelope
    from_domain: str
    utf8: bool
    tag: str = ""
    route: str = ""
    key: str = ""


class _Shape(msgspec.Struct, frozen=True, gc=False):
    """What follows from the names of a section's fields alone.

    `hops` counts Received fields; `addressed` are the places of the fields whose addresses are completed, and `author`
    is that of the first From, -1 without; `loses` says that some are taken out, `lacks` that some are to be added,
    and `is_about_tls` that there is TLS-Required (RFC 8689 3).
    """

    hops: int
    addressed: tuple[int, ...]
    author: int
    loses: bool
    lacks: bool
    is_about_tls: bool


def edit_header(
    fields: list[Field], name: str, arrival: Arrival, envelope: Envelope, rules: EditRules
) -> Edited | Reply:
    """Edit a message's header section; a Reply refuses the message (too many hops, a From that the user may not use).

    `fields` are all those before the empty line; `name` is the message id as it is written.
    """
    submission, rewriter = rules.submission, rules.rewriter
    shape = _find_shape(fields)
    if shape.hops > submission.max_hops:
        return TOO_MANY_HOPS
    wishes = _NO_WISHES
    if shape.loses:
        read = read_wishes(fields)
        if isinstance(read, Reply):
            return read
        wishes = read
        if wishes.route and not rules.may_choose(arrival.identity, wishes.route):
            return NO_SUCH_ROUTE
        marks = [field for field in fields if field[0] == _LOOP_MARK][:1]
        if marks:
            envelope = _silence(envelope)
        fields = drop_fields(fields, _PRIVATE, PREFIX) + marks
        shape = _find_shape(fields)
    if rewriter.has_rules or wishes.priority is not None:
        envelope = _rewrite_envelope(envelope, wishes.priority, rewriter)
    if shape.is_about_tls and not envelope.requiretls and _makes_tls_optional(fields):
        envelope = msgspec.structs.replace(envelope, tls_optional=True)
    if wishes.send_at > envelope.hold_until:
        envelope = msgspec.structs.replace(envelope, hold_until=wishes.send_at, hold_for=0)
    author, domain = _complete_fields(fields, shape, rules.default_domain)
    if shape.lacks and submission.add_missing_headers:
        _add_missing(fields, name, arrival.at, envelope.reverse_path, rules.hostname)
        if shape.author < 0:
            author, domain = _read_author(fields)
    if rewriter.has_rules and author:
        wanted = rewriter.header_from(author)
        if wanted != author:
            _rewrite_author(fields, author, wanted)
            domain = to_a_label(domain_of(wanted)) or ""
    if arrival.identity:
        user = rules.users.get(arrival.identity)
        if user is not None and user.allowed_senders and (refusal := _check_authors(user, fields)) is not None:
            return refusal
    recipients = envelope.recipients
    only = recipients[0].address if len(recipients) == 1 else ""
    fields.insert(0, (b"received", received(arrival, rules.hostname, name, only, hide_client=submission.hide_client)))
    octets = join_fields(fields)
    return Edited(fields, octets, envelope, domain, has_utf8(octets), wishes.tag, wishes.route, wishes.key)


def join_fields(fields: list[Field]) -> bytes:
    """Give a header section as it is sent, with the empty line that ends it."""
    return b"".join([raw for _, raw in fields]) + b"\r\n"


def _find_shape(fields: list[Field]) -> _Shape:
    names = tuple([name for name, _ in fields])
    is_usual = len(names) <= _FEW_FIELDS and len(b"".join(names)) <= _SHORT_NAMES
    return _shape_of(names) if is_usual else _shape_of.__wrapped__(names)


@lru_cache(maxsize=128)
def _shape_of(names: tuple[bytes, ...]) -> _Shape:
    """Look at the names of fields; remembered, as a program gives all its messages the same."""
    return _Shape(
        names.count(b"received"),
        tuple([place for place, name in enumerate(names) if name in _COMPLETED]),
        names.index(b"from") if b"from" in names else -1,
        any(name in _PRIVATE or name.startswith(PREFIX) for name in names),
        not _ADDED.issubset(names),
        _TLS_REQUIRED in names,
    )


def _makes_tls_optional(fields: list[Field]) -> bool:
    """Whether a message says TLS-Required: No, and nothing else of it (RFC 8689 3)."""
    return all(field_value(raw).lower() == b"no" for name, raw in fields if name == _TLS_REQUIRED)


def _check_authors(user: User, fields: list[Field]) -> Reply | None:
    """Refuse unless the user may send as everybody whom a reader might take for the author: of each From, all."""
    for name, raw in fields:
        if name == b"from":
            authors = every_address(field_value(raw))
            if not authors or any(check_sender(user, author) is not None for author in authors):
                return SENDER_NOT_ALLOWED
    return None


def _silence(envelope: Envelope) -> Envelope:
    """Let nobody hear of a report that comes by again: reports on reports would have no end (RFC 3461 5.2)."""
    recipients = tuple(msgspec.structs.replace(each, notify=int(Notify.NEVER)) for each in envelope.recipients)
    return msgspec.structs.replace(envelope, recipients=recipients)


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
                # The sender knows this address and no other (RFC 3461 5.2.1 d).
                kind = "rfc822" if recipient.address.isascii() else "utf-8"
                orcpt = recipient.orcpt or f"{kind};{recipient.address}"
                recipient = msgspec.structs.replace(recipient, address=address, domain=domain, orcpt=orcpt)
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


def _complete_fields(fields: list[Field], shape: _Shape, default_domain: str) -> tuple[str, str]:
    """Complete addresses without a domain in the address fields, as cron and printers write them.

    Gives the first From address, as completed, and its A-label domain; "" for what is not there.
    """
    author = domain = ""
    for place in shape.addressed:
        name, raw = fields[place]
        if place != shape.author:
            completed = complete_address(raw, default_domain)
        elif len(raw) <= _SHORT_FIELD:
            completed, author, domain = _complete_author(raw, default_domain)
        else:
            completed, author, domain = _complete_author.__wrapped__(raw, default_domain)
        if completed is not raw:
            fields[place] = (name, completed)
    return author, domain


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


def _add_missing(fields: list[Field], message_id: str, at: float, reverse_path: str, hostname: str) -> None:
    """Add Date, From and Message-ID where absent (RFC 6409 8)."""
    names = [name for name, _ in fields]
    if b"date" not in names:
        fields.append((b"date", f"Date: {format_date(at)}\r\n".encode()))
    if b"from" not in names:
        author = reverse_path or f"MAILER-DAEMON@{hostname}"
        fields.append((b"from", f"From: <{author}>\r\n".encode()))
    if b"message-id" not in names:
        fields.append((b"message-id", f"Message-ID: <{message_id.lower()}@{hostname}>\r\n".encode()))


def _rewrite_author(fields: list[Field], author: str, wanted: str) -> None:
    """Replace the author's address in the first From field."""
    for index, (name, raw) in enumerate(fields):
        if name == b"from":
            fields[index] = (name, replace_address(raw, author, wanted))
            return
