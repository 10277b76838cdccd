"""Decides which recipients get which report, and how much of the message it returns (RFC 3461)."""

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from smarthost.mail.envelope import Notify, Ret
from smarthost.mail.message import Message
from smarthost.mail.outcome import Action, Outcome, Stage

SMALL = 50 * 1024  # octets; a failed message up to this size comes back whole when nobody said what to return


class ReportKind(StrEnum):
    """What a report says of its recipients."""

    FAILURE = "failure"
    DELAY = "delay"
    RELAYED = "relayed"


class DueReport(msgspec.Struct, frozen=True):
    """One report to be made: its outcomes, at least one, and whether the whole message is returned."""

    kind: ReportKind
    outcomes: tuple[Outcome, ...]
    full: bool = False


def due_reports(
    message: Message, outcomes: Sequence[Outcome], *, warning: bool = False, dsn_offered: bool = False
) -> tuple[DueReport, ...]:
    """Give the reports that an attempt's outcomes cause: one a kind, for several recipients together.

    Nothing for a null reverse-path or a report of ours (RFC 3461 5.2, RFC 5321 4.5.5). `warning` says that a
    warning is due for those who are delayed; `dsn_offered` that the next hop offered DSN, so that it reports on
    success itself (RFC 3461 5.2.2 b).
    """
    if message.report or not message.envelope.reverse_path:
        return ()
    chosen: dict[ReportKind, list[Outcome]] = {kind: [] for kind in ReportKind}
    for outcome in outcomes:
        kind = _kind(outcome, warning, dsn_offered)
        if kind is not None:
            chosen[kind].append(outcome)
    return tuple(
        DueReport(kind, tuple(some), full=kind is ReportKind.FAILURE and _is_returned_whole(message))
        for kind, some in chosen.items()
        if some
    )


def _kind(outcome: Outcome, warning: bool, dsn_offered: bool) -> ReportKind | None:
    # RFC 3461 4.1: without NOTIFY the sender hears of failures, and of delays as we choose; NEVER stands alone.
    notify = outcome.recipient.notify or Notify.FAILURE | Notify.DELAY
    if notify & Notify.NEVER:
        return None
    if outcome.action is Action.FAILED and notify & Notify.FAILURE:
        return ReportKind.FAILURE
    if outcome.action is Action.DELAYED and notify & Notify.DELAY and warning:
        return ReportKind.DELAY
    if outcome.action is Action.RELAYED and notify & Notify.SUCCESS and not dsn_offered:
        return ReportKind.RELAYED
    return None


def is_past(outcome: Outcome) -> bool:
    """Whether an outcome is no attempt's, but a decision of ours about what earlier attempts left undone."""
    return outcome.stage is Stage.QUEUE


def _is_returned_whole(message: Message) -> bool:
    ret = message.envelope.ret
    return message.size <= SMALL if ret is None else ret is Ret.FULL
