"""The verbs of a transaction: EHLO, HELO, MAIL, RCPT, DATA, RSET, NOOP as plain functions from words to a reply."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from smarthost.mail.envelope import Recipient
from smarthost.mail.outcome import Stage
from smarthost.mail.reply import (
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
from smarthost.wire.command import MailCommand, parse_mail, parse_rcpt

_OK = OK.encode()
_MAIL_OK = MAIL_OK.encode()
_RCPT_OK = RCPT_OK.encode()

HELLO_FIRST = make_reply(503, "5.5.1", "Send EHLO first")
NESTED_MAIL = make_reply(503, "5.5.1", "A transaction is open already")
MAIL_FIRST = make_reply(503, "5.5.1", "Send MAIL first")
BAD_SENDER_DOMAIN = make_reply(501, "5.1.7", "The domain of the reverse-path cannot exist")
BAD_RECIPIENT_DOMAIN = make_reply(501, "5.1.3", "The domain of the recipient cannot exist")
SENDS_TOO_FAST = make_reply(450, "4.7.1", "Message rate exceeded, try again later")

Verb = Callable[[Dialogue, bytes], bytes | Reply]


def ehlo(dialogue: Dialogue, argument: bytes) -> bytes | Reply:
    """Greet a client that speaks extended SMTP, and say what is offered (RFC 5321 4.1.1.1)."""
    name = argument.decode("utf-8", "replace").strip()
    if not name:
        return BAD_SYNTAX
    dialogue.greet(name, extended=True)
    return dialogue.terms.ehlo(dialogue.offers_starttls, dialogue.offers_auth)


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
    path = dialogue.reverse_path = _complete(command.reverse_path, dialogue.terms.default_domain)
    refusal = _mail_refusal(dialogue, command, path)
    if refusal is not None:
        return dialogue.reject(Stage.MAIL, refusal)
    dialogue.mail = command
    dialogue.mail_refused = dialogue.rcpt_refused = False
    return _MAIL_OK


def _mail_refusal(dialogue: Dialogue, command: MailCommand, path: str) -> Reply | None:
    refusal = dialogue.relay_refusal()
    if refusal is not None:
        return refusal
    parts = dialogue.parts
    if path and dialogue.terms.label_of(path.rpartition("@")[2]) is None:
        return BAD_SENDER_DOMAIN
    if command.size > dialogue.terms.submission.max_message_size:
        return MESSAGE_TOO_BIG
    if not parts.has_space():
        return DISK_FULL
    user = dialogue.user
    if user is None:
        return None
    refusal = check_sender(user, path)
    if refusal is None and parts.credentials.wait(user.name) > 0.0:
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
    address, domain = command.address, command.domain
    if not domain:
        domain = dialogue.terms.default_domain
        address = f"{address}@{domain}"
    label = dialogue.terms.label_of(domain)
    if label is None:
        refusal: Reply | None = BAD_RECIPIENT_DOMAIN
    else:
        recipient = Recipient(address, label, command.notify, command.orcpt)
        refusal = _add_recipient(dialogue, address[: -len(domain)] + label, recipient)
    if refusal is None:
        return _RCPT_OK
    dialogue.rcpt_refused = True
    return dialogue.reject(Stage.RCPT, refusal, recipient=address)


def _add_recipient(dialogue: Dialogue, mailbox: str, recipient: Recipient) -> Reply | None:
    recipients = dialogue.recipients
    if mailbox in recipients:
        return None
    if len(recipients) >= dialogue.terms.submission.max_recipients:
        return TOO_MANY_RECIPIENTS
    refusal = dialogue.parts.route_refusal(dialogue.reverse_path, recipient, dialogue.identity)
    if refusal is None:
        recipients[mailbox] = recipient
    return refusal


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
    if user is not None:
        # Asked again: many sessions of one user may have passed MAIL together.
        if parts.credentials.wait(user.name) > 0.0:
            return dialogue.reject(Stage.DATA, SENDS_TOO_FAST)
        parts.credentials.take(user.name)
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
