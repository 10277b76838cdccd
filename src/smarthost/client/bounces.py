"""Bounces: what a mail that reports a failure, or Amazon SES, says of messages that were taken before."""

from collections.abc import Mapping
from typing import Any

import msgspec

from smarthost.client.call import Call, post, reader
from smarthost.client.raw import Mail, as_content


class _Taken(msgspec.Struct, frozen=True):
    taken: int


_READ = reader(_Taken)


def report(mail: Mail) -> Call[int]:
    """Hand in a mail that reports a failure (RFC 3464) or a complaint (RFC 5965); gives how many were believed."""
    return Call(method="POST", path="/bounces", read=_taken, content=as_content(mail))


def ses(notification: Mapping[str, Any]) -> Call[int]:
    """Hand in a notification of Amazon SES, in an envelope of SNS or bare; gives how many were believed."""
    return post("/webhooks/ses", _taken, notification)


def _taken(octets: bytes) -> int:
    return _READ(octets).taken
