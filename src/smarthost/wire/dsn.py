"""Builds delivery status notifications, "reports": RFC 3464, and RFC 6533 where addresses or header are UTF-8."""

import re
from binascii import b2a_qp
from ipaddress import ip_address

import msgspec

from smarthost.mail.address import to_a_label, to_literal
from smarthost.mail.message import Message, format_id
from smarthost.mail.outcome import Action, Outcome
from smarthost.mail.reply import EnhancedStatus, Reply
from smarthost.wire.data import has_long_line
from smarthost.wire.dsn_text import clean, explain, wrap
from smarthost.wire.header import field_value, fold_long_field, has_utf8, parse_fields, split_header
from smarthost.wire.submission import format_date_time
from smarthost.wire.trace import format_date
from smarthost.wire.xtext import encode_orcpt

_CONVERSION = 6  # the subject of X.6.3 and X.6.7 (RFC 3463 3.7)
_MESSAGE_ID = re.compile(rb"<[!-;=?-~]{1,900}>")
_SUBJECTS = {
    Action.FAILED: "Your message could not be delivered",
    Action.DELAYED: "Your message is delayed",
    Action.RELAYED: "Your message was relayed",
    Action.EXPANDED: "Your message was relayed",
}
# The worst that happened gives a report its subject.
_GRAVITY = (Action.FAILED, Action.DELAYED, Action.RELAYED, Action.EXPANDED)


class LastAttempt(msgspec.Struct, frozen=True):
    """What the last attempt brought that this report is not about: a Unix time, a status, and who said what.

    `host` is "" and `reply` None where nobody was reached.
    """

    at: float
    status: EnhancedStatus
    host: str = ""
    reply: Reply | None = None


class ReportRecipient(msgspec.Struct, frozen=True, kw_only=True):
    """One recipient of a report: what became of it, and when (Unix seconds, 0.0 where there is nothing to say).

    `retry_until` is when we shall give up, for a delay; `before` is the attempt before a decision of our own, such as
    giving up for age, None where the outcome is an attempt's or none was made.
    """

    outcome: Outcome
    last_attempt: float = 0.0
    retry_until: float = 0.0
    before: LastAttempt | None = None


class ReportFacts(msgspec.Struct, frozen=True, kw_only=True):
    """All that a report says; the same facts always give the same octets.

    `message` is the one reported on, and the report goes to its reverse-path; `hostname` is the Reporting-MTA;
    `postmaster` is the address in From; `received_from` is what the client called itself in EHLO, "" to leave that
    out; `at` is the report's date in Unix seconds; `message_id` is its own Message-ID
    without angle brackets; `returned` is the original content, or its header at least, with CRLF line ends;
    `whole` asks for all of it to be returned and not the header only (RFC 3461 4.3).
    """

    message: Message
    recipients: tuple[ReportRecipient, ...]
    hostname: str
    postmaster: str
    at: float
    message_id: str
    boundary: str
    returned: bytes
    whole: bool = False
    received_from: str = ""


def build_report(facts: ReportFacts) -> bytes:
    """Write a report's whole content, header included, with CRLF line ends.

    No line is over 998 octets: an original with a longer one in its body is returned as its header only. So is one
    that is not 7-bit when the next hop could not take it (X.6.3, X.6.7), and the rest is encoded, since the report may
    have to go the same way: a message cannot be encoded within another (RFC 2046 5.2.1), but text can. A boundary
    that occurs in the original is lengthened. Control characters in any text become spaces.
    """
    body_at = split_header(facts.returned, whole=True)
    header = b"".join(raw for _, raw in parse_fields(facts.returned[:body_at]))
    body = facts.returned[body_at:]
    plain = any(recipient.outcome.status.subject == _CONVERSION for recipient in facts.recipients)
    whole = facts.whole and not has_long_line(body) and not (plain and not (header + body).isascii())
    is_global = has_utf8(header) or not all(text.isascii() for text in _addresses(facts))
    header = _fold_header(header)
    original = header + b"\r\n" + body if whole else header
    parts = [
        _text_part(facts, plain),
        _status_part(facts, is_global, plain),
        _original_part(original, whole, is_global, plain),
    ]
    boundary = facts.boundary
    while any(boundary.encode() in part for part in parts):
        boundary += "x"
    eight_bit = not all(part.isascii() for part in parts)
    head = _report_header(facts, boundary, header, is_global, eight_bit)
    mark = f"\r\n--{boundary}".encode()
    return head + b"".join(mark + b"\r\n" + part for part in parts) + mark + b"--\r\n"


def _report_header(facts: ReportFacts, boundary: str, original: bytes, is_global: bool, eight_bit: bool) -> bytes:
    actions = {recipient.outcome.action for recipient in facts.recipients}
    worst = next((action for action in _GRAVITY if action in actions), Action.FAILED)
    lines = [
        f"Date: {format_date(facts.at)}",
        f'From: "Mail Delivery System" <{clean(facts.postmaster)}>',
        f"To: <{clean(facts.message.envelope.reverse_path)}>",
        f"Subject: {_SUBJECTS[worst]}",
        f"Message-ID: <{clean(facts.message_id)}>",
    ]
    message_id = _original_message_id(original)
    if message_id:
        lines += [f"In-Reply-To: {message_id}", f"References: {message_id}"]
    lines += [
        "Auto-Submitted: auto-replied",
        f"X-Smarthost-Report: {clean(facts.hostname)}",
        "MIME-Version: 1.0",
        # RFC 6522 3: report-type is the subtype of the second part.
        f"Content-Type: multipart/report; report-type={'global-' if is_global else ''}delivery-status;",
        f'\tboundary="{boundary}"',
    ]
    if eight_bit:
        lines.append("Content-Transfer-Encoding: 8bit")
    return _join([*lines, "", "This is a delivery status notification in MIME format."])


def _part(content_type: str, content: bytes, plain: bool) -> bytes:
    """Write one part with its header; what is not 7-bit is encoded where it has to be."""
    lines = [f"Content-Type: {content_type}"]
    if not content.isascii():
        lines.append(f"Content-Transfer-Encoding: {'quoted-printable' if plain else '8bit'}")
        content = b2a_qp(content, istext=True) if plain else content
    return _join([*lines, ""]) + content


def _text_part(facts: ReportFacts, plain: bool) -> bytes:
    outcomes = [recipient.outcome for recipient in facts.recipients]
    text = _join(explain(outcomes, facts.hostname, _retry_until(facts)))
    return _part(f"text/plain; charset={'us-ascii' if text.isascii() else 'utf-8'}", text, plain)


def _status_part(facts: ReportFacts, is_global: bool, plain: bool) -> bytes:
    """Write the part for programs; the fields of the message in the order of RFC 3464 2.2."""
    message = facts.message
    lines: list[str] = []
    if envid := clean(message.envelope.envid):
        lines += wrap(f"Original-Envelope-Id: {envid}", indent=" ")
    lines.append(f"Reporting-MTA: dns; {_mta_name(facts.hostname) or 'localhost'}")
    if came_from := _mta_name(facts.received_from):
        lines.append(f"Received-From-MTA: dns; {came_from}")
    lines += [f"Arrival-Date: {format_date(message.arrival.at)}", f"X-Smarthost-Id: {format_id(message.id)}"]
    if until := message.envelope.hold_until:  # in the words of MAIL, RFC 4865 5.1.2
        interval = message.envelope.hold_for
        asked = f"for;{interval}" if interval else f"until;{format_date_time(until)}"
        lines.append(f"Future-Release-Request: {asked}")
    for recipient in facts.recipients:
        lines += ["", *_recipient_fields(recipient, format_id(message.id), is_global)]
    if not is_global:
        lines = [line.encode("ascii", "backslashreplace").decode() for line in lines]
    return _part(f"message/{'global-' if is_global else ''}delivery-status", _join(lines), plain)


def _recipient_fields(recipient: ReportRecipient, log_id: str, is_global: bool) -> list[str]:
    """Write the fields of one recipient, in the order of RFC 3464 2.3.

    What a peer said stands as it did (2.3.6), though we may have decided by ourselves: it is the reason of the reason.
    """
    outcome, before = recipient.outcome, recipient.before
    host, reply = outcome.host, outcome.reply
    if reply is None and before is not None:
        host, reply = before.host, before.reply
    address = outcome.recipient.address
    orcpt = outcome.recipient.orcpt
    lines = []
    written = encode_orcpt(orcpt) if orcpt[:6].lower() == "utf-8;" and not is_global else orcpt
    kind, _, original = written.partition(";")
    if original := clean(original):
        lines += wrap(f"Original-Recipient: {clean(kind)}; {original}", indent=" ")
    lines += wrap(f"Final-Recipient: {'rfc822' if address.isascii() else 'utf-8'}; {clean(address)}", indent=" ")
    lines += [f"Action: {outcome.action}", f"Status: {outcome.status}"]
    if reply is not None and (name := _mta_name(host)):
        lines.append(f"Remote-MTA: dns; {name}")
    if reply is not None:
        lines += wrap(f"Diagnostic-Code: smtp; {clean(str(reply))}", indent=" ")
    else:
        lines += wrap(f"Diagnostic-Code: X-Smarthost; {clean(outcome.reason) or 'unknown'}", indent=" ")
    if outcome.tls:
        lines += wrap(f"X-Smarthost-TLS: {clean(outcome.tls)}", indent=" ")
    if recipient.last_attempt:
        lines.append(f"Last-Attempt-Date: {format_date(recipient.last_attempt)}")
    lines.append(f"Final-Log-ID: {log_id}")
    if recipient.retry_until and outcome.action is Action.DELAYED:
        lines.append(f"Will-Retry-Until: {format_date(recipient.retry_until)}")
    return lines


def _mta_name(name: str) -> str:
    """Write a name of the type dns (RFC 3464 2.1.2): a domain, or an address literal; "" for what is neither."""
    try:
        return to_literal(str(ip_address(name)))
    except ValueError:
        label = to_a_label(name)
        return label if label is not None else ""


def _original_part(original: bytes, whole: bool, is_global: bool, plain: bool) -> bytes:
    if whole:
        content_type = "message/global" if is_global else "message/rfc822"
    else:
        content_type = "message/global-headers" if is_global else "text/rfc822-headers"
    end = b"" if original.endswith(b"\r\n") else b"\r\n"
    return _part(content_type, original + end, plain)


def _fold_header(header: bytes) -> bytes:
    if not has_long_line(header):
        return header
    return b"".join(fold_long_field(raw) for _, raw in parse_fields(header))


def _original_message_id(header: bytes) -> str:
    for name, raw in parse_fields(header):
        if name == b"message-id":
            found = _MESSAGE_ID.fullmatch(field_value(raw))
            return found.group().decode() if found is not None else ""
    return ""


def _addresses(facts: ReportFacts) -> list[str]:
    recipients = [recipient.outcome.recipient for recipient in facts.recipients]
    texts = [text for recipient in recipients for text in (recipient.address, recipient.orcpt)]
    return [facts.message.envelope.reverse_path, facts.postmaster, *texts]


def _retry_until(facts: ReportFacts) -> str:
    """Give the date of the last try for the delayed, "" where none is known."""
    until = max((recipient.retry_until for recipient in facts.recipients), default=0.0)
    return format_date(until) if until else ""


def _join(lines: list[str]) -> bytes:
    return "".join(f"{line}\r\n" for line in lines).encode("utf-8", "backslashreplace")
