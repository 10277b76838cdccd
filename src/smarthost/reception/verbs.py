"""The verbs of a transaction: EHLO, HELO, MAIL, RCPT, DATA, RSET, NOOP as plain functions from words to a reply."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from smarthost.mail.envelope import Recipient
from smarthost.mail.outcome import Stage
from smarthost.mail.reply import (
    BAD_PARAMETER,
    BAD_SEQUENCE,
    BAD_SYNTAX,
    DISK_FULL,
    MAIL_OK,
    MESSAGE_TOO_BIG,
    NO_VALID_RECIPIENTS,
    OK,
    RCPT_OK,
    TOO_MANY_RECIPIENTS,
    Reply,
    make_reply,
)
from smarthost.policy.admission import check_sender
from smarthost.reception.content import Content
from smarthost.reception.dialogue import Dialogue
from smarthost.reception.terms import LONGEST_HOLD
from smarthost.wire.command import MailCommand, parse_mail, parse_rcpt

_OK = OK.encode()
_MAIL_OK = MAIL_OK.encode()
_RCPT_OK = RCPT_OK.encode()

HELLO_FIRST = make_reply(503, "5.5.1", "Send EHLO first")
NESTED_MAIL = make_reply(503, "5.5.1", "A transaction is open already")
MAIL_FIRST = make_reply(503, "5.5.1", "Send MAIL first")
BAD_SENDER_DOMAIN = make_reply(501, "5.1.7", "The domain of the reverse-path cannot exist")
BAD_RECIPIENT_DOMAIN = make_reply(501, "5.1.3", "The domain of the recipient cannot exist")
HELD_TOO_LONG = make_reply(501, "5.5.4", f"A message is held for {LONGEST_HOLD // 86400} days at most")
SENDS_TOO_FAST = make_reply(450, "4.7.1", "Message rate exceeded, try again later")

Verb = Callable[[Dialogue, bytes], bytes | Reply]


def ehlo(dialogue: Dialogue, argument: bytes) -> bytes | Reply:
    """Greet a client that speaks extended SMTP, and say what is offered (RFC 5321 4.1.1.1)."""
    name = argument.decode("utf-8", "replace").strip()
    if not name:
        return BAD_SYNTAX
    dialogue.greet(name, extended=True)
    reply = dialogue.terms.ehlo(dialogue.offers_starttls, dialogue.offers_auth, dialogue.parts.clock())
    return _with_requiretls(reply) if dialogue.tls else reply


def _with_requiretls(reply: bytes) -> bytes:
    """Offer REQUIRETLS, which is of use within TLS only (RFC 8689 3), right behind our name."""
    name, _, keywords = reply.partition(b"\r\n")
    return name + b"\r\n250-REQUIRETLS\r\n" + keywords


def helo(dialogue: Dialogue, argument: bytes) -> bytes | Reply:
    """Greet a client of the old kind; it gets no extensions."""
    name = argument.decode("utf-8", "replace").strip()
    if not name:
        return BAD_SYNTAX
    dialogue.greet(name, extended=False)
    return b"250 " + dialogue.terms.hostname.encode() + b"\r\n"


def mail(dialogue: Dialogue, argument: bytes) -> bytes | Reply:
    """Open a transaction."""
    if not dialogue.ehlo:
        return HELLO_FIRST
    if dialogue.mail is not None:
        return NESTED_MAIL
    dialogue.mail_refused = True
    command = parse_mail(argument.decode("utf-8", "surrogateescape").strip())
    if isinstance(command, Reply):
        return command
    terms = dialogue.terms
    path = _complete(command.reverse_path, terms.default_domain)
    line = MailLine(command, path, not path or terms.label_of(path.rpartition("@")[2]) is not None)
    terms.remember(b"MAIL " + argument + b"\r\n", line.say)
    return line.open(dialogue)


class MailLine:
    """What a MAIL line means that can be read, whoever says it; `can_be` is false if its domain cannot exist."""

    __slots__ = ("can_be", "command", "path")

    def __init__(self, command: MailCommand, path: str, can_be: bool) -> None:
        """Keep a command and its reverse-path, complete with a domain."""
        self.command, self.path, self.can_be = command, path, can_be

    def say(self, dialogue: Dialogue) -> bytes | Reply:
        """Do as `mail` does with this line."""
        if not dialogue.ehlo:
            return HELLO_FIRST
        if dialogue.mail is not None:
            return NESTED_MAIL
        dialogue.mail_refused = True
        return self.open(dialogue)

    def open(self, dialogue: Dialogue) -> bytes | Reply:
        """Open the transaction, if that is allowed."""
        dialogue.reverse_path = self.path
        refusal = _mail_refusal(dialogue, self)
        if refusal is not None:
            return dialogue.reject(Stage.MAIL, refusal)
        dialogue.mail = self.command
        dialogue.mail_refused = dialogue.rcpt_refused = False
        return _MAIL_OK


def _mail_refusal(dialogue: Dialogue, line: MailLine) -> Reply | None:
    refusal = dialogue.relay_refusal()
    if refusal is not None:
        return refusal
    parts = dialogue.parts
    if not line.can_be:
        return BAD_SENDER_DOMAIN
    if line.command.requiretls and not dialogue.tls:
        return BAD_PARAMETER  # what was not offered is not known (RFC 5321 4.1.1.11)
    if line.command.size > dialogue.terms.submission.max_message_size:
        return MESSAGE_TOO_BIG
    until = dialogue.hold_until(line.command)
    if until and until > parts.clock() + LONGEST_HOLD:
        return HELD_TOO_LONG
    if not parts.has_space():
        return DISK_FULL
    user = dialogue.user
    if parts.limits.active:
        refusal = parts.limits.refuse_sender(dialogue.identity, line.path)
        if refusal is not None:
            return refusal
    if user is None:
        return None
    refusal = check_sender(user, line.path)
    if refusal is None and parts.credentials.wait(user.name, user.key) > 0.0:
        refusal = SENDS_TOO_FAST
    return refusal


def rcpt(dialogue: Dialogue, argument: bytes) -> bytes | Reply:
    """Add a recipient to the transaction; one that is there already is accepted and kept once."""
    mail_command = dialogue.mail
    if mail_command is None:
        return _out_of_order(dialogue)
    text = argument.decode("utf-8", "surrogateescape").strip()
    command = parse_rcpt(text, smtputf8=mail_command.smtputf8)
    if isinstance(command, Reply):
        dialogue.rcpt_refused = True
        return command
    terms = dialogue.terms
    address, domain = command.address, command.domain
    if not domain:
        domain = terms.default_domain
        address = f"{address}@{domain}"
    label = terms.label_of(domain)
    if label is None:
        return _refuse_recipient(dialogue, BAD_RECIPIENT_DOMAIN, address)
    line = RcptLine(address[: -len(domain)] + label, Recipient(address, label, command.notify, command.orcpt))
    # What is not ASCII depends on the transaction's SMTPUTF8 too.
    if argument.isascii():
        terms.remember(b"RCPT " + argument + b"\r\n", line.say)
    return line.say(dialogue)


class RcptLine:
    """What a RCPT line means that can be read, whoever says it; `mailbox` has the domain's A-label."""

    __slots__ = ("mailbox", "recipient")

    def __init__(self, mailbox: str, recipient: Recipient) -> None:
        """Keep a recipient and what it is known by."""
        self.mailbox, self.recipient = mailbox, recipient

    def say(self, dialogue: Dialogue) -> bytes | Reply:
        """Do as `rcpt` does with this line."""
        if dialogue.mail is None:
            return _out_of_order(dialogue)
        recipients = dialogue.recipients
        if self.mailbox in recipients:
            return _RCPT_OK
        if len(recipients) >= dialogue.terms.submission.max_recipients:
            return _refuse_recipient(dialogue, TOO_MANY_RECIPIENTS, self.recipient.address)
        user = dialogue.user
        identity = user.name if user is not None else ""
        refusal = dialogue.parts.route_refusal(dialogue.reverse_path, self.recipient, identity)
        limits = dialogue.parts.limits
        if refusal is None and limits.active:
            path, count = dialogue.reverse_path, len(recipients)
            refusal = limits.refuse_recipient(identity, path, self.recipient.domain, count)
        if refusal is not None:
            return _refuse_recipient(dialogue, refusal, self.recipient.address)
        recipients[self.mailbox] = self.recipient
        return _RCPT_OK


def _refuse_recipient(dialogue: Dialogue, refusal: Reply, address: str) -> Reply:
    dialogue.rcpt_refused = True
    return dialogue.reject(Stage.RCPT, refusal, recipient=address)


def data(dialogue: Dialogue, argument: bytes) -> Content | Reply:
    """Begin the content of the transaction, or say why not."""
    if argument.strip():
        return BAD_SYNTAX
    mail_command = dialogue.mail
    if mail_command is None:
        return _out_of_order(dialogue)
    if not dialogue.recipients:
        return NO_VALID_RECIPIENTS if dialogue.rcpt_refused else BAD_SEQUENCE
    parts, user = dialogue.parts, dialogue.user
    # Asked again: many sessions of one user may have passed MAIL together.
    if user is not None and parts.credentials.wait(user.name, user.key) > 0.0:
        return dialogue.reject(Stage.DATA, SENDS_TOO_FAST)
    if parts.limits.active:
        refusal = parts.limits.take(dialogue.identity, dialogue.reverse_path, dialogue.recipients.values())
        if refusal is not None:
            return dialogue.reject(Stage.DATA, refusal)
    if user is not None:
        parts.credentials.take(user.name, user.key)
    draft = parts.intake.begin(dialogue.arrival(), dialogue.envelope(mail_command))
    return Content(draft, dialogue.terms.submission)


def rset(dialogue: Dialogue, argument: bytes) -> bytes | Reply:
    """End the transaction without mail."""
    if argument.strip():
        return BAD_SYNTAX
    dialogue.reset()
    return _OK


def noop(dialogue: Dialogue, argument: bytes) -> bytes | Reply:
    """Do nothing."""
    return _OK


def _out_of_order(dialogue: Dialogue) -> Reply:
    if not dialogue.ehlo:
        return HELLO_FIRST
    return dialogue.relay_refusal() or MAIL_FIRST


def _complete(mailbox: str, default_domain: str) -> str:
    # A quoted local-part may hold an @, but no domain ends in a quote.
    if not mailbox or ("@" in mailbox and not mailbox.endswith('"')):
        return mailbox
    return f"{mailbox}@{default_domain}"


VERBS: Mapping[bytes, Verb] = MappingProxyType(
    {b"MAIL": mail, b"RCPT": rcpt, b"RSET": rset, b"EHLO": ehlo, b"HELO": helo, b"NOOP": noop}
)
# Verbs that bring no mail nearer; a session that says nothing else is ended.
IDLE_TALK = frozenset({b"RSET", b"EHLO", b"HELO", b"NOOP"})
