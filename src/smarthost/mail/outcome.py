"""Outcome: what became of one recipient in one attempt, and whom a failure touches."""

from enum import IntEnum, StrEnum

import msgspec

from smarthost.mail.envelope import Recipient
from smarthost.mail.reply import EnhancedStatus, Reply


class Stage(StrEnum):
    """Where in an attempt something happened."""

    RESOLVE = "resolve"
    CONNECT = "connect"
    GREETING = "greeting"
    EHLO = "ehlo"
    STARTTLS = "starttls"
    AUTH = "auth"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    CONTENT = "content"
    QUEUE = "queue"


class Action(StrEnum):
    """RFC 3464 2.3.3's words. "delivered" is never ours to say."""

    RELAYED = "relayed"
    DELAYED = "delayed"
    FAILED = "failed"
    EXPANDED = "expanded"


class Scope(IntEnum):
    """Whom a failure touches, from the narrowest to the widest."""

    RECIPIENT = 1
    TRANSACTION = 2
    SESSION = 3
    HOST = 4
    SITE = 5


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What became of one recipient. `reason` is never empty; `reply` is there only if a peer said it.

    `host` and `address` name the peer, "" where none was reached; `ambiguous` says that the end of data had been
    written when the session was lost, so that the peer may have taken the message. `tls` describes the session's TLS,
    as "TLSv1.3 TLS_AES_256_GCM_SHA384 verified=ca".
    """

    recipient: Recipient
    action: Action
    scope: Scope
    stage: Stage
    status: EnhancedStatus
    reason: str
    reply: Reply | None = None
    host: str = ""
    address: str = ""
    ambiguous: bool = False
    tls: str = ""
