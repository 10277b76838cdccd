"""Sends test messages by smtplib, and reads what the relay answers."""

import re
import smtplib
from email.message import EmailMessage
from email.utils import make_msgid

QUEUED = re.compile(rb"(?:queued|accepted) as ([0-9A-Z]{12})")


def compose(subject: str, recipients: list[str], size: int = 200, sender: str = "root@example.org") -> bytes:
    """Write a message of about `size` octets with a subject to know it by."""
    message = EmailMessage()
    message["From"] = sender
    message["To"] = ", ".join(recipients)
    message["Subject"] = subject
    message["Message-ID"] = make_msgid(domain="example.org")
    line = "The quick brown fox jumps over the lazy dog.\n"
    message.set_content(line * max(1, size // len(line)))
    return message.as_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def submit(
    port: int, subject: str, *recipients: str, sender: str = "root@example.org", size: int = 200, options: str = ""
) -> str:
    """Send one message over a connection of its own, and give its queue id.

    Raises smtplib's exceptions for every refusal, of a single recipient too.
    """
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
        client.ehlo()
        return transact(client, compose(subject, list(recipients), size), recipients, sender=sender, options=options)


def transact(
    client: smtplib.SMTP, content: bytes, recipients: tuple[str, ...], *, sender: str, options: str = ""
) -> str:
    """Send one message over a connection that is open, and give its queue id."""
    client.ehlo_or_helo_if_needed()
    code, text = client.mail(sender)
    if code != 250:
        raise smtplib.SMTPSenderRefused(code, text, sender)
    for recipient in recipients:
        code, text = client.rcpt(recipient, [options] if options else [])
        if code != 250:
            raise smtplib.SMTPRecipientsRefused({recipient: (code, text)})
    code, text = client.data(content)
    if code != 250:
        raise smtplib.SMTPDataError(code, text)
    found = QUEUED.search(text)
    assert found is not None, f"the reply names no id: {text!r}"
    return found.group(1).decode()
