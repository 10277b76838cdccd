"""Decides which failures put a recipient on the suppression list, and when; off unless a person enables it."""

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from smarthost.mail.outcome import Action, Outcome, Stage
from smarthost.mail.reply import EnhancedStatus, make_reply

MOST_FAILURES = 10  # in a row that may be asked for: a mark in memory counts up to 12

SUPPRESSED = make_reply(550, "5.7.1", "The recipient is on the suppression list")
SUPPRESSED_ON_SEND = "the recipient is on the suppression list, so nothing was sent to it"

_AT_ONCE = frozenset({EnhancedStatus(5, 1, 1), EnhancedStatus(5, 1, 2)})
_AT_ONCE_TEXTS = frozenset(map(str, _AT_ONCE))
_OF_SENDER = frozenset({EnhancedStatus(5, 1, 7), EnhancedStatus(5, 1, 8)})  # RFC 3463 3.2


class SuppressionScope(StrEnum):
    """For whom a failure counts: for everybody, or for the user alone who sent the message."""

    GLOBAL = "global"
    USER = "user"


class SuppressionPoint(StrEnum):
    """Where a suppressed recipient is refused: to the client at RCPT, or by a report when the message is sent."""

    RCPT = "rcpt"
    SEND = "send"


class SuppressionRules(msgspec.Struct, frozen=True):
    """What a person decided about the list. `expiry` is seconds; `after` hard failures in a row suppress.

    `ignore` are beginnings of enhanced statuses ("5.7", "5.4.1") that never count.
    """

    enabled: bool = False
    scope: SuppressionScope = SuppressionScope.GLOBAL
    at: SuppressionPoint = SuppressionPoint.RCPT
    expiry: float = 30 * 86400.0
    after: int = 3
    ignore: tuple[str, ...] = ("5.7",)

    def owner_of(self, identity: str) -> str:
        """Give for whom a failure of a user's message counts; what came without a login counts for everybody."""
        return identity if self.scope is SuppressionScope.USER else ""


def failures_counted(rules: SuppressionRules, outcome: Outcome, outcomes: Sequence[Outcome]) -> int:
    """Say how much an outcome counts towards suppression: 0 nothing, 1 one hard failure, `after` all of them.

    What counts is about the recipient: a refusal of its RCPT, a domain that does not exist or takes no mail, or a
    refusal of the content of a transaction that it had for itself with a status about the address or mailbox
    (RFC 3463 3.2, 3.3). A refusal of MAIL is about the sender, one of the content as a rule about the content, and
    giving up after days is no failure of the address. 5.1.1 and 5.1.2 suppress at once.
    """
    status = outcome.status
    if outcome.action is not Action.FAILED or not _is_about_recipient(outcome, alone=len(outcomes) == 1):
        return 0
    if status in _AT_ONCE:
        return rules.after
    text = f"{status}."
    return 0 if any(text.startswith(f"{ignored}.") for ignored in rules.ignore) else 1


def bounces_counted(rules: SuppressionRules, status: str) -> int:
    """Say how much what a host or provider said later counts towards suppression, as `failures_counted` does.

    Without a status it is a complaint, or a provider that says "for good" by a word: they suppress at once.
    """
    if not status or status in _AT_ONCE_TEXTS:
        return rules.after
    return 0 if any(f"{status}.".startswith(f"{ignored}.") for ignored in rules.ignore) else 1


def _is_about_recipient(outcome: Outcome, *, alone: bool) -> bool:
    status = outcome.status
    if status in _OF_SENDER:
        return False
    if outcome.stage in (Stage.RCPT, Stage.RESOLVE):
        return True
    return alone and outcome.stage in (Stage.DATA, Stage.CONTENT) and status.subject in (1, 2)
