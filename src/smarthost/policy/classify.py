"""Decides what a peer's reply or a fault of the network means: the one table of verdicts."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

import msgspec

from smarthost.mail.outcome import Action, Scope, Stage
from smarthost.mail.reply import EnhancedStatus, Reply

PAUSE = 300.0  # seconds that a host or a login is left alone after it refused us as a whole


class NetFault(StrEnum):
    """What went wrong without a reply that says so; each is our own finding, never a peer's words."""

    TIMEOUT = "timeout"
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    RESET = "reset"
    CLOSED = "closed"
    TLS_FAILED = "tls_failed"
    TLS_MISSING = "tls_missing"
    CERTIFICATE = "certificate"
    AUTH_MISSING = "auth_missing"
    TOKEN_MISSING = "token_missing"
    DNS_FAILURE = "dns_failure"
    NXDOMAIN = "nxdomain"
    NULL_MX = "null_mx"
    NO_ADDRESS = "no_address"
    MX_LOOP = "mx_loop"
    SOURCE_UNUSABLE = "source_unusable"
    PROTOCOL_ERROR = "protocol_error"
    TOO_LONG = "too_long"
    TOO_BIG = "too_big"
    EIGHT_BIT_MISSING = "eight_bit_missing"
    SMTPUTF8_MISSING = "smtputf8_missing"
    STS_MISMATCH = "sts_mismatch"
    REQUIRETLS_MISSING = "requiretls_missing"


class Verdict(msgspec.Struct, frozen=True):
    """What to do. `status` agrees in class with `action`: 2 relayed, 4 delayed, 5 failed (RFC 3463 2).

    `pause` is the seconds for which the host, or for scope SITE the login, is left alone. `next_transaction` says
    that the recipient was one too many for this transaction, which spends no attempt.
    """

    action: Action
    scope: Scope
    status: EnhancedStatus
    pause: float = 0.0
    next_transaction: bool = False


_OPENING = frozenset({Stage.QUEUE, Stage.RESOLVE, Stage.CONNECT, Stage.GREETING, Stage.EHLO, Stage.STARTTLS})
_LOGIN = frozenset({Stage.AUTH})
_MESSAGE = frozenset({Stage.MAIL, Stage.DATA, Stage.CONTENT})
_RECIPIENT = frozenset({Stage.RCPT})
_SESSION = _MESSAGE | _RECIPIENT
_ANY = _OPENING | _LOGIN | _SESSION

# The first row that fits decides; a code is "4" or "5" for all of that class.
# Until a session stands there is none to lose, so what would touch the session touches the host.
_REPLIES: tuple[tuple[frozenset[Stage], tuple[str, ...], Action, Scope, float], ...] = (
    # stages, codes, action, scope, pause
    (_OPENING | _LOGIN, ("421",), Action.DELAYED, Scope.HOST, 0.0),
    (_SESSION, ("421",), Action.DELAYED, Scope.SESSION, 0.0),
    (_LOGIN, ("530", "534", "535", "538"), Action.DELAYED, Scope.SITE, PAUSE),
    (_ANY, ("530", "535", "538"), Action.DELAYED, Scope.HOST, PAUSE),
    (_OPENING | _LOGIN, ("4",), Action.DELAYED, Scope.HOST, 0.0),
    (_OPENING | _LOGIN, ("5",), Action.DELAYED, Scope.HOST, PAUSE),
    (_RECIPIENT, ("4",), Action.DELAYED, Scope.RECIPIENT, 0.0),
    (_RECIPIENT, ("5",), Action.FAILED, Scope.RECIPIENT, 0.0),
    (_MESSAGE, ("4",), Action.DELAYED, Scope.TRANSACTION, 0.0),
    (_MESSAGE, ("5",), Action.FAILED, Scope.TRANSACTION, 0.0),
)

_KLASS = MappingProxyType({Action.RELAYED: 2, Action.DELAYED: 4, Action.FAILED: 5})
_BAD_PROTOCOL = EnhancedStatus(4, 5, 0)
_TOO_MANY_RECIPIENTS = Verdict(Action.DELAYED, Scope.RECIPIENT, EnhancedStatus(4, 5, 3), next_transaction=True)


def classify_reply(stage: Stage, reply: Reply, *, soft_bounce: bool, accepted_before: bool = False) -> Verdict:
    """Decide what a reply means at a stage; 5yz fails recipients at MAIL, RCPT, DATA and CONTENT only.

    `soft_bounce` turns every failure into a delay. `accepted_before` says that this transaction has an accepted RCPT,
    so that 452 and 552 may mean one recipient too many (RFC 5321 4.5.3.1.10). The code decides between delay and
    failure, and the status is made to agree. A positive reply has a verdict after the content only; elsewhere it
    means that there is nothing to decide, and asking raises ValueError, unless it is one that the stage does not
    allow, which is a protocol error.
    """
    if reply.code < 400 or reply.code > 599:
        return _classify_positive(stage, reply)
    if accepted_before and stage is Stage.RCPT and reply.code in (452, 552) and _is_about_count(reply.status):
        return _TOO_MANY_RECIPIENTS
    code = str(reply.code)
    for stages, codes, action, scope, pause in _REPLIES:
        if stage in stages and (code in codes or code[0] in codes):
            if soft_bounce and action is Action.FAILED:
                action = Action.DELAYED
            return Verdict(action, scope, _agree(reply.status, action), pause)
    raise AssertionError(f"no verdict for {reply.code} at {stage}")


def _classify_positive(stage: Stage, reply: Reply) -> Verdict:
    if stage is Stage.CONTENT and reply.is_positive:
        return Verdict(Action.RELAYED, Scope.TRANSACTION, _agree(reply.status, Action.RELAYED))
    if 300 <= reply.code < 400 if stage is Stage.DATA else reply.is_positive:
        raise ValueError(f"{reply.code} at {stage} is no refusal")
    return Verdict(Action.DELAYED, Scope.SESSION if stage in _SESSION else Scope.HOST, _BAD_PROTOCOL)


def _is_about_count(status: EnhancedStatus) -> bool:
    # X.0.0 stands for no status at all; 4.2.2 and 5.2.2 are full mailboxes, 5.3.4 is a message too big.
    return (status.subject, status.detail) in ((5, 3), (0, 0))


def _agree(status: EnhancedStatus, action: Action) -> EnhancedStatus:
    klass = _KLASS[action]
    if not (0 <= status.subject <= 999 and 0 <= status.detail <= 999):  # RFC 3463 2: at most three digits
        return EnhancedStatus(klass, 0, 0)
    return status if status.klass == klass else EnhancedStatus(klass, status.subject, status.detail)


# fault -> subject and detail of its status (RFC 3463 3), and those that are of the message or the destination for good
_STATUS: Mapping[NetFault, tuple[int, int]] = MappingProxyType(
    {
        NetFault.TIMEOUT: (4, 2),
        NetFault.REFUSED: (4, 1),
        NetFault.UNREACHABLE: (4, 1),
        NetFault.RESET: (4, 2),
        NetFault.CLOSED: (4, 2),
        NetFault.TLS_FAILED: (7, 5),
        NetFault.TLS_MISSING: (7, 4),
        NetFault.CERTIFICATE: (7, 5),
        NetFault.AUTH_MISSING: (7, 0),
        NetFault.TOKEN_MISSING: (7, 0),
        NetFault.DNS_FAILURE: (4, 3),
        NetFault.NXDOMAIN: (1, 2),
        NetFault.NULL_MX: (1, 10),  # RFC 7505 4.1
        NetFault.NO_ADDRESS: (4, 4),
        NetFault.MX_LOOP: (4, 6),
        NetFault.SOURCE_UNUSABLE: (3, 5),
        NetFault.PROTOCOL_ERROR: (5, 0),
        NetFault.TOO_LONG: (5, 0),
        NetFault.TOO_BIG: (3, 4),
        NetFault.EIGHT_BIT_MISSING: (6, 3),
        NetFault.SMTPUTF8_MISSING: (6, 7),  # RFC 6531 3.5
        NetFault.STS_MISMATCH: (7, 5),
        NetFault.REQUIRETLS_MISSING: (7, 30),  # RFC 8689 5
    }
)
_OF_DESTINATION = frozenset({NetFault.NXDOMAIN, NetFault.NULL_MX, NetFault.NO_ADDRESS, NetFault.MX_LOOP})
_OF_MESSAGE = frozenset(
    {NetFault.TOO_BIG, NetFault.EIGHT_BIT_MISSING, NetFault.SMTPUTF8_MISSING, NetFault.REQUIRETLS_MISSING}
)
_OF_HOST = frozenset({NetFault.TLS_MISSING, NetFault.CERTIFICATE})  # what waiting a moment does not mend


def classify_fault(stage: Stage, fault: NetFault, *, configured: bool = False) -> Verdict:
    """Decide what a fault means at a stage.

    `configured` says that the name was a next hop of the configuration: what DNS says about it delays, since only
    the recipient's own domain can make a recipient fail (RFC 7505 4.1, RFC 5321 5.1).
    """
    subject, detail = _STATUS[fault]
    if fault in _OF_MESSAGE or (fault in _OF_DESTINATION and not configured):
        return Verdict(Action.FAILED, Scope.TRANSACTION, EnhancedStatus(5, subject, detail))
    if stage is Stage.CONNECT and fault in (NetFault.TIMEOUT, NetFault.RESET, NetFault.CLOSED):
        detail = 1  # X.4.1, no answer from host: nothing was connected yet
    status = EnhancedStatus(4, subject, detail)
    if fault in (NetFault.AUTH_MISSING, NetFault.TOKEN_MISSING):
        return Verdict(Action.DELAYED, Scope.SITE, status, PAUSE)
    if stage in (Stage.RESOLVE, Stage.QUEUE):
        return Verdict(Action.DELAYED, Scope.TRANSACTION, status)
    if stage in _SESSION:
        return Verdict(Action.DELAYED, Scope.SESSION, status)
    return Verdict(Action.DELAYED, Scope.HOST, status, PAUSE if fault in _OF_HOST else 0.0)
