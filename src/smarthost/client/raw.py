"""Raw: messages that are sent as they are, made of octets, of a file, or of the standard library's messages."""

import os
from email.generator import BytesGenerator
from email.message import Message
from email.policy import EmailPolicy, Policy
from email.utils import getaddresses
from io import BytesIO
from pathlib import Path

from smarthost.client.call import RAW, Content, from_file

Mail = bytes | bytearray | memoryview | Message | os.PathLike[str]

_ADDRESSES = ("From", "Sender", "Reply-To", "To", "Cc", "Bcc")


def as_content(mail: Mail) -> Content:
    """Give what is sent of a message: octets as they are, a file block by block. Raises OSError for a file."""
    if isinstance(mail, Message):
        return Content(flatten(mail), RAW)
    if isinstance(mail, bytes | bytearray | memoryview):
        return Content(bytes(mail), RAW)
    return from_file(Path(mail), RAW)


def flatten(mail: Message) -> bytes:
    """Write a message with CRLF, in UTF-8 where an address needs it (RFC 6532); "From " stays as it is."""
    fields = [str(value) for name in _ADDRESSES for value in mail.get_all(name, [])]
    international = not all(address.isascii() for _, address in getaddresses(fields))
    policy: Policy = mail.policy.clone(linesep="\r\n")
    if international and isinstance(policy, EmailPolicy):
        policy = policy.clone(utf8=True)
    octets = BytesIO()
    BytesGenerator(octets, mangle_from_=False, policy=policy).flatten(mail)
    return octets.getvalue()
