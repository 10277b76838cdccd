"""Verdicts on replies and faults: the table, row by row, and what holds for every code."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smarthost.mail.outcome import Action, Scope, Stage
from smarthost.mail.reply import EnhancedStatus, make_reply
from smarthost.policy.classify import NetFault, classify_fault, classify_reply

OPENING = [Stage.GREETING, Stage.EHLO, Stage.STARTTLS, Stage.AUTH]
MESSAGE = [Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.CONTENT]

ROWS = [
    # stage, reply, action, scope, status, pause
    ("greeting", "554 5.7.1", "delayed", "HOST", "4.7.1", 300),
    ("greeting", "421 4.3.2", "delayed", "HOST", "4.3.2", 0),
    ("greeting", "450 4.3.0", "delayed", "HOST", "4.3.0", 0),
    ("ehlo", "550 5.0.0", "delayed", "HOST", "4.0.0", 300),
    ("ehlo", "421 4.0.0", "delayed", "HOST", "4.0.0", 0),
    ("starttls", "502 5.5.1", "delayed", "HOST", "4.5.1", 300),
    ("starttls", "454 4.7.0", "delayed", "HOST", "4.7.0", 0),
    ("starttls", "421 4.7.0", "delayed", "HOST", "4.7.0", 0),
    ("auth", "535 5.7.8", "delayed", "SITE", "4.7.8", 300),
    ("auth", "534 5.7.9", "delayed", "SITE", "4.7.9", 300),
    ("auth", "530 5.7.0", "delayed", "SITE", "4.7.0", 300),
    ("auth", "538 5.7.11", "delayed", "SITE", "4.7.11", 300),
    ("auth", "504 5.5.4", "delayed", "HOST", "4.5.4", 300),
    ("auth", "454 4.7.0", "delayed", "HOST", "4.7.0", 0),
    ("mail", "530 5.7.0", "delayed", "HOST", "4.7.0", 300),
    ("mail", "421 4.7.0", "delayed", "SESSION", "4.7.0", 0),
    ("mail", "451 4.3.0", "delayed", "TRANSACTION", "4.3.0", 0),
    ("mail", "452 4.3.1", "delayed", "TRANSACTION", "4.3.1", 0),
    ("mail", "550 5.7.1", "failed", "TRANSACTION", "5.7.1", 0),
    ("mail", "552 5.3.4", "failed", "TRANSACTION", "5.3.4", 0),
    ("rcpt", "450 4.2.1", "delayed", "RECIPIENT", "4.2.1", 0),
    ("rcpt", "452 4.2.2", "delayed", "RECIPIENT", "4.2.2", 0),
    ("rcpt", "552 5.2.2", "failed", "RECIPIENT", "5.2.2", 0),
    ("rcpt", "552 5.0.0", "failed", "RECIPIENT", "5.0.0", 0),
    ("rcpt", "550 5.1.1", "failed", "RECIPIENT", "5.1.1", 0),
    ("rcpt", "556 5.1.10", "failed", "RECIPIENT", "5.1.10", 0),
    ("rcpt", "530 5.7.0", "delayed", "HOST", "4.7.0", 300),
    ("rcpt", "421 4.4.5", "delayed", "SESSION", "4.4.5", 0),
    ("data", "451 4.3.0", "delayed", "TRANSACTION", "4.3.0", 0),
    ("data", "554 5.5.1", "failed", "TRANSACTION", "5.5.1", 0),
    ("data", "250 2.0.0", "delayed", "SESSION", "4.5.0", 0),
    ("content", "250 2.0.0", "relayed", "TRANSACTION", "2.0.0", 0),
    ("content", "354 0.0.0", "delayed", "SESSION", "4.5.0", 0),
    ("content", "421 4.3.0", "delayed", "SESSION", "4.3.0", 0),
    ("content", "452 4.3.1", "delayed", "TRANSACTION", "4.3.1", 0),
    ("content", "552 5.3.4", "failed", "TRANSACTION", "5.3.4", 0),
    ("content", "554 5.6.0", "failed", "TRANSACTION", "5.6.0", 0),
    ("content", "535 5.7.8", "delayed", "HOST", "4.7.8", 300),
    ("rcpt", "354 0.0.0", "delayed", "SESSION", "4.5.0", 0),
    ("ehlo", "354 0.0.0", "delayed", "HOST", "4.5.0", 0),
    ("mail", "650 5.0.0", "delayed", "SESSION", "4.5.0", 0),
]


@pytest.mark.parametrize(("stage", "reply", "action", "scope", "status", "pause"), ROWS)
def test_the_table_of_replies(stage: str, reply: str, action: str, scope: str, status: str, pause: int) -> None:
    """Each stage and reply has the verdict that the design gives it."""
    code, sent = reply.split()
    verdict = classify_reply(Stage(stage), make_reply(int(code), sent, "text"), soft_bounce=False)
    assert (verdict.action, verdict.scope.name, str(verdict.status), verdict.pause) == (action, scope, status, pause)
    assert not verdict.next_transaction


@pytest.mark.parametrize(
    ("reply", "next_transaction", "action"),
    [
        ("452 4.5.3", True, Action.DELAYED),
        ("452 4.0.0", True, Action.DELAYED),
        ("552 5.5.3", True, Action.DELAYED),
        ("552 5.0.0", True, Action.DELAYED),
        ("452 4.2.2", False, Action.DELAYED),
        ("452 4.3.1", False, Action.DELAYED),
        ("552 5.2.2", False, Action.FAILED),
        ("552 5.3.4", False, Action.FAILED),
        ("450 4.5.3", False, Action.DELAYED),
    ],
)
def test_one_recipient_too_many(reply: str, next_transaction: bool, action: Action) -> None:
    """After an accepted RCPT 452 and 552 mean the next transaction, but not where they name a full mailbox or disk."""
    code, status = reply.split()
    verdict = classify_reply(Stage.RCPT, make_reply(int(code), status), soft_bounce=False, accepted_before=True)
    assert (verdict.next_transaction, verdict.action, verdict.scope) == (next_transaction, action, Scope.RECIPIENT)


def test_soft_bounce_fails_nobody() -> None:
    """With soft_bounce a 5xx is a delay, its status of class 4."""
    verdict = classify_reply(Stage.RCPT, make_reply(550, "5.1.1"), soft_bounce=True)
    assert (verdict.action, str(verdict.status)) == (Action.DELAYED, "4.1.1")


def test_the_code_decides_over_the_status() -> None:
    """450 with 5.1.1 delays and says 4.1.1; a status with impossible numbers loses them."""
    assert str(classify_reply(Stage.RCPT, make_reply(450, "5.1.1"), soft_bounce=False).status) == "4.1.1"
    assert str(classify_reply(Stage.RCPT, make_reply(550, "5.1234.1"), soft_bounce=False).status) == "5.0.0"


@given(
    st.sampled_from(OPENING + MESSAGE),
    st.integers(400, 599),
    st.builds(EnhancedStatus, st.integers(0, 9), st.integers(0, 2000), st.integers(0, 2000)),
    st.booleans(),
    st.booleans(),
)
def test_what_holds_for_every_refusal(
    stage: Stage, code: int, status: EnhancedStatus, soft_bounce: bool, accepted_before: bool
) -> None:
    """Only a 5xx at MAIL, RCPT, DATA or CONTENT fails; the status's class agrees with the action; none is relayed."""
    reply = make_reply(code, str(status))
    verdict = classify_reply(stage, reply, soft_bounce=soft_bounce, accepted_before=accepted_before)
    assert verdict.action in (Action.DELAYED, Action.FAILED)
    if verdict.action is Action.FAILED:
        assert stage in MESSAGE
        assert code >= 500 and code not in (530, 535, 538) and not soft_bounce
    assert verdict.status.klass == (5 if verdict.action is Action.FAILED else 4)
    assert verdict.pause in (0.0, 300.0)
    assert verdict.pause == 0.0 or verdict.scope >= Scope.HOST


@pytest.mark.parametrize(
    ("stage", "code"), [(Stage.MAIL, 250), (Stage.RCPT, 251), (Stage.DATA, 354), (Stage.EHLO, 250)]
)
def test_what_was_accepted_has_no_verdict(stage: Stage, code: int) -> None:
    """Asking for a verdict on an accepted command is a bug, and never "relayed"."""
    with pytest.raises(ValueError, match="no refusal"):
        classify_reply(stage, make_reply(code, "2.0.0"), soft_bounce=False)


FAULTS = [
    # stage, fault, action, scope, status, pause
    ("resolve", "dns_failure", "delayed", "TRANSACTION", "4.4.3", 0),
    ("resolve", "nxdomain", "failed", "TRANSACTION", "5.1.2", 0),
    ("resolve", "null_mx", "failed", "TRANSACTION", "5.1.10", 0),
    ("resolve", "no_address", "failed", "TRANSACTION", "5.4.4", 0),
    ("resolve", "mx_loop", "failed", "TRANSACTION", "5.4.6", 0),
    ("connect", "timeout", "delayed", "HOST", "4.4.1", 0),
    ("connect", "refused", "delayed", "HOST", "4.4.1", 0),
    ("connect", "unreachable", "delayed", "HOST", "4.4.1", 0),
    ("greeting", "timeout", "delayed", "HOST", "4.4.2", 0),
    ("greeting", "protocol_error", "delayed", "HOST", "4.5.0", 0),
    ("starttls", "tls_failed", "delayed", "HOST", "4.7.5", 0),
    ("starttls", "tls_missing", "delayed", "HOST", "4.7.4", 300),
    ("starttls", "certificate", "delayed", "HOST", "4.7.5", 300),
    ("auth", "auth_missing", "delayed", "SITE", "4.7.0", 300),
    ("auth", "closed", "delayed", "HOST", "4.4.2", 0),
    ("mail", "closed", "delayed", "SESSION", "4.4.2", 0),
    ("rcpt", "reset", "delayed", "SESSION", "4.4.2", 0),
    ("data", "timeout", "delayed", "SESSION", "4.4.2", 0),
    ("content", "closed", "delayed", "SESSION", "4.4.2", 0),
    ("content", "too_long", "delayed", "SESSION", "4.5.0", 0),
    ("mail", "too_big", "failed", "TRANSACTION", "5.3.4", 0),
    ("mail", "eight_bit_missing", "failed", "TRANSACTION", "5.6.3", 0),
    ("mail", "smtputf8_missing", "failed", "TRANSACTION", "5.6.7", 0),
]


@pytest.mark.parametrize(("stage", "fault", "action", "scope", "status", "pause"), FAULTS)
def test_the_table_of_faults(stage: str, fault: str, action: str, scope: str, status: str, pause: int) -> None:
    """Each fault at a stage has the verdict that the design gives it."""
    verdict = classify_fault(Stage(stage), NetFault(fault))
    assert (verdict.action, verdict.scope.name, str(verdict.status), verdict.pause) == (action, scope, status, pause)


@pytest.mark.parametrize("fault", [NetFault.NXDOMAIN, NetFault.NULL_MX, NetFault.NO_ADDRESS, NetFault.MX_LOOP])
def test_a_configured_next_hop_never_fails_a_recipient(fault: NetFault) -> None:
    """What DNS says of a configured next hop is a delay: a typing error must not bounce the queue."""
    assert classify_fault(Stage.RESOLVE, fault, configured=True).action is Action.DELAYED


@given(st.sampled_from(Stage), st.sampled_from(NetFault), st.booleans())
def test_every_fault_has_a_verdict(stage: Stage, fault: NetFault, configured: bool) -> None:
    """No fault at any stage is without a verdict, and its status agrees with the action."""
    verdict = classify_fault(stage, fault, configured=configured)
    assert verdict.status.klass == (5 if verdict.action is Action.FAILED else 4)
