"""A letter: a submission that was checked, with everything that its mail and its envelope are made from."""

import msgspec

from smarthost.compose.attaching import check_attachments
from smarthost.compose.fault import FieldFault
from smarthost.compose.fields import check_headers, check_subject
from smarthost.compose.limits import SubmissionLimits
from smarthost.compose.mailbox import Mailbox, make_mailbox, read_mailbox, split_list
from smarthost.compose.submission import Addresses, Attachment, Named, Submission
from smarthost.compose.wishes import check_wishes
from smarthost.mail.envelope import Recipient

_LONGEST_LIST = 64 * 1024  # characters of one string with mailboxes


class Letter(msgspec.Struct, frozen=True, gc=False):
    """A message to compose. `reverse_path` and `recipients` are its envelope: to, cc and bcc, each mailbox once.

    `attachments` have a content type, and a disposition that is "inline" for what the HTML shows; `utf8` says that an
    address can be written in UTF-8 only, so that SMTPUTF8 is needed (RFC 6531).
    """

    author: Mailbox
    to: tuple[Mailbox, ...]
    cc: tuple[Mailbox, ...]
    reply_to: tuple[Mailbox, ...]
    reverse_path: str
    recipients: tuple[Recipient, ...]
    subject: str = ""
    text: str = ""
    html: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    attachments: tuple[Attachment, ...] = ()
    utf8: bool = False


def check_submission(submission: Submission, limits: SubmissionLimits) -> Letter | tuple[FieldFault, ...]:
    """Check everything about a submission that can be said without fetching anything; gives all faults at once."""
    faults: list[FieldFault] = []
    authors = _read_all("from", submission.author, faults, limits.recipients)
    if not authors and not faults:
        faults.append(FieldFault("from", "an address is missing"))
    elif len(authors) > 1:
        faults.append(FieldFault("from", "has more than one address; one is allowed"))
    to = _read_all("to", submission.to, faults, limits.recipients)
    cc = _read_all("cc", submission.cc, faults, limits.recipients) if submission.cc else ()
    bcc = _read_all("bcc", submission.bcc, faults, limits.recipients) if submission.bcc else ()
    reply_to = _read_all("reply_to", submission.reply_to, faults, limits.recipients) if submission.reply_to else ()
    recipients = _recipients_of(to + cc + bcc)
    if len(recipients) > limits.recipients:
        count = len(recipients)
        faults.append(FieldFault("to", f"to, cc and bcc have {count} addresses; {limits.recipients} are allowed"))
    elif not recipients and not any(fault.field.partition("[")[0] in _RECEIVING for fault in faults):
        faults.append(FieldFault("to", "to, cc and bcc have no address; 1 is needed"))
    reverse_path, is_utf8 = _read_return_path(submission.return_path, authors, faults)
    check_subject(submission.subject, limits.subject, faults)
    if not submission.text and not submission.html:
        faults.append(FieldFault("text", "a body is missing: text, html or both are needed"))
    headers = check_headers(submission.headers, faults) if submission.headers else ()
    attachments = check_attachments(submission, limits, faults) if submission.attachments else ()
    check_wishes(submission, limits, faults)
    if faults:
        return tuple(faults)
    return Letter(
        authors[0],
        to,
        cc,
        reply_to,
        reverse_path,
        recipients,
        submission.subject,
        submission.text,
        submission.html,
        headers,
        attachments,
        is_utf8 or not all(map(_is_ascii, (*authors, *to, *cc, *bcc, *reply_to))),
    )


def as_recipient(mailbox: Mailbox) -> Recipient:
    """Give a mailbox as a forward-path."""
    return Recipient(mailbox.address, mailbox.domain)


_RECEIVING = frozenset({"to", "cc", "bcc"})


def _read_all(name: str, given: Addresses, faults: list[FieldFault], most: int) -> tuple[Mailbox, ...]:
    """Read the mailboxes of one field; what is no mailbox goes to the faults with its place."""
    listed = given if isinstance(given, list) else [given] if given else []
    if len(listed) > most:
        faults.append(FieldFault(name, f"has {len(listed)} addresses; {most} are allowed"))
        return ()
    found = []
    for place, each in enumerate(listed):
        path = f"{name}[{place}]" if isinstance(given, list) else name
        if isinstance(each, Named):
            parts: list[str | Named] = [each]
        elif len(each) > _LONGEST_LIST:
            faults.append(FieldFault(path, f"has {len(each)} characters; {_LONGEST_LIST} are allowed"))
            continue
        else:
            parts = list(split_list(each)) if "," in each else [each]
        for part in parts:
            mailbox = make_mailbox(part.email, part.name) if isinstance(part, Named) else read_mailbox(part)
            if isinstance(mailbox, Mailbox):
                found.append(mailbox)
            else:
                faults.append(FieldFault(path, mailbox))
    return tuple(found)


def _is_ascii(mailbox: Mailbox) -> bool:
    return mailbox.address.isascii()


def _recipients_of(mailboxes: tuple[Mailbox, ...]) -> tuple[Recipient, ...]:
    """Give each mailbox once: the case of a local-part matters, that of a domain does not (RFC 5321 2.4)."""
    if len(mailboxes) == 1:
        return (as_recipient(mailboxes[0]),)
    each_once: dict[tuple[str, str], Mailbox] = {}
    for each in mailboxes:
        each_once.setdefault((each.address.rpartition("@")[0], each.domain), each)
    return tuple(map(as_recipient, each_once.values()))


def _read_return_path(given: str | None, authors: tuple[Mailbox, ...], faults: list[FieldFault]) -> tuple[str, bool]:
    """Give the reverse-path, and whether it needs UTF-8: what was asked for, "" for "" and "<>", else the author."""
    if given is None:
        return (authors[0].address if authors else ""), False
    given = given.strip()
    if given in ("", "<>"):
        return "", False
    mailbox = make_mailbox(given[1:-1] if given[0] == "<" and given[-1] == ">" else given, "")
    if isinstance(mailbox, str):
        faults.append(FieldFault("return_path", mailbox))
        return "", False
    return mailbox.address, not mailbox.address.isascii()
