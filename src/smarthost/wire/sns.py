"""The envelope of Amazon SNS: what it says, the octets that its signature is over, and whom it may name."""

import re
from enum import StrEnum
from urllib.parse import urlsplit

import msgspec

# Regions and partitions as sns.eu-west-1.amazonaws.com and sns.cn-north-1.amazonaws.com.cn; nothing before or behind.
_HOST = re.compile(r"sns\.[a-z]{2}(-[a-z0-9]+){2,4}\.amazonaws\.com(\.cn)?")
_CERTIFICATE = re.compile(r"/[A-Za-z0-9_-]{1,200}\.pem")


class SnsType(StrEnum):
    """What an envelope is."""

    NOTIFICATION = "Notification"
    SUBSCRIPTION = "SubscriptionConfirmation"
    UNSUBSCRIPTION = "UnsubscribeConfirmation"


class SnsEnvelope(msgspec.Struct, frozen=True, kw_only=True):
    """One message of SNS as it stands in JSON; what it says is true once its signature is."""

    type: SnsType = msgspec.field(name="Type")
    message_id: str = msgspec.field(name="MessageId")
    topic: str = msgspec.field(name="TopicArn")
    message: str = msgspec.field(name="Message")
    timestamp: str = msgspec.field(name="Timestamp")
    signature_version: str = msgspec.field(name="SignatureVersion")
    signature: str = msgspec.field(name="Signature")
    certificate_url: str = msgspec.field(name="SigningCertURL")
    subject: str | None = msgspec.field(name="Subject", default=None)
    token: str | None = msgspec.field(name="Token", default=None)
    subscribe_url: str | None = msgspec.field(name="SubscribeURL", default=None)


def read_sns(body: bytes) -> SnsEnvelope | None:
    """Read an envelope; None for another document. Raises ValueError for one that lacks something or is no JSON."""
    if b'"SigningCertURL"' not in body and b'"SigningCertUrl"' not in body:
        return None
    return msgspec.json.decode(body, type=SnsEnvelope)


def signed_octets(envelope: SnsEnvelope) -> bytes:
    """Give what the signature is over: names and values in the order of the names, each on a line of its own."""
    if envelope.type is SnsType.NOTIFICATION:
        pairs = {
            "Message": envelope.message,
            "MessageId": envelope.message_id,
            "Subject": envelope.subject,
            "Timestamp": envelope.timestamp,
            "TopicArn": envelope.topic,
            "Type": envelope.type.value,
        }
    else:
        pairs = {
            "Message": envelope.message,
            "MessageId": envelope.message_id,
            "SubscribeURL": envelope.subscribe_url or "",
            "Timestamp": envelope.timestamp,
            "Token": envelope.token or "",
            "TopicArn": envelope.topic,
            "Type": envelope.type.value,
        }
    return "".join(f"{name}\n{value}\n" for name, value in pairs.items() if value is not None).encode()


def is_certificate_url(url: str) -> bool:
    """Whether a URL names a certificate of SNS itself: of another, anybody's signature would be good."""
    return _is_sns(url) and _CERTIFICATE.fullmatch(urlsplit(url).path) is not None and not urlsplit(url).query


def is_subscribe_url(url: str) -> bool:
    """Whether a URL that is to be asked leads to SNS itself."""
    return _is_sns(url)


def _is_sns(url: str) -> bool:
    if not url.isascii() or not url.isprintable() or any(each in url for each in " \\#"):
        return False
    try:
        parts = urlsplit(url)
        # The whole authority: no user, no port.
        return parts.scheme == "https" and _HOST.fullmatch(parts.netloc) is not None
    except ValueError:
        return False
