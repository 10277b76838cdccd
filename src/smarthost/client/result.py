"""Delivery result: what became of a message, in one word and with the replies that say why."""

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from smarthost.client.faults import ApiError, SmarthostError, Unreachable
from smarthost.client.messages import Message, Standing

_AT_THE_DOOR = frozenset({"suppressed", "refused"})
_WRONG = frozenset({400, 413, 415, 422})  # what can never be sent as it is
_PASSING = frozenset({429, 502, 503, 504})
_TOO_LATE = "5.4.7"  # the relay's own, when the lifetime of a message is over
_NO_SUCH_ADDRESS = frozenset({"5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10"})


class DeliveryStatus(StrEnum):
    """What became of a message.

    SUCCESS: the next server has taken it for all. RETRY: it is not over, the relay tries (again) by itself.
    TEMP_FAILED: the relay has given up, but nobody has refused it for good. FAILED: a server has refused it for good,
    or it was cancelled. REJECTED: the relay has refused it (suppression list, route, rights). INVALID: no such
    address, or no such message can be sent at all.
    """

    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    INVALID = "INVALID"
    REJECTED = "REJECTED"
    TEMP_FAILED = "TEMP_FAILED"
    RETRY = "RETRY"


class RecipientFailure(msgspec.Struct, frozen=True):
    """Why one recipient has not got a message: in one word, and in the words of the server, or of the relay."""

    status: DeliveryStatus
    smtp_code: int = 0
    smtp_error: str = ""


class DeliveryResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a message. `smtp_code` and `smtp_error` are the last that was heard, of the first that failed.

    `sent_at` is when the last server has taken it; `retry_count` how often it was tried after the first time.
    """

    status: DeliveryStatus
    message_id: str = ""
    sent_at: datetime | None = None
    recipient_failures: dict[str, RecipientFailure] = {}
    retry_count: int = 0
    smtp_code: int = 0
    smtp_error: str = ""

    @property
    def is_retryable(self) -> bool:
        """Whether another attempt may succeed: at TEMP_FAILED the application's, at RETRY the relay makes it itself."""
        return self.status in (DeliveryStatus.TEMP_FAILED, DeliveryStatus.RETRY)

    @property
    def is_final(self) -> bool:
        """Whether it is over."""
        return self.status is not DeliveryStatus.RETRY

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain values, as JSON has them."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain | {"is_retryable": self.is_retryable}

    @classmethod
    def from_message(cls, message: Message) -> "DeliveryResult":
        """Read it off a message."""
        failures: dict[str, RecipientFailure] = {}
        for each in message.recipients:
            if (status := _status_of(each)) is not DeliveryStatus.SUCCESS:
                code = each.code or _code_of(each.reply)
                failures[each.address] = RecipientFailure(status, code, each.reply)
        taken = [event for event in message.events if event.event == "relayed"]
        last = next(iter(failures.values()), None)
        return cls(
            status=_overall([each.status for each in failures.values()]),
            message_id=message.id,
            sent_at=taken[-1].time if taken else None,
            recipient_failures=failures,
            retry_count=max(max((each.attempts for each in message.recipients), default=0) - 1, 0),
            smtp_code=last.smtp_code if last is not None else (taken[-1].code if taken else 0),
            smtp_error=last.smtp_error if last is not None else "",
        )

    @classmethod
    def from_error(cls, error: SmarthostError) -> "DeliveryResult":
        """Say the same of a message that could not be handed in."""
        if isinstance(error, ApiError):
            if error.status in _PASSING:
                status = DeliveryStatus.TEMP_FAILED
            elif error.status in _WRONG:
                status = DeliveryStatus.INVALID
            else:
                status = DeliveryStatus.FAILED if error.status >= 500 else DeliveryStatus.REJECTED
        else:
            status = DeliveryStatus.TEMP_FAILED if isinstance(error, Unreachable) else DeliveryStatus.FAILED
        return cls(status=status, smtp_error=str(error))


def _status_of(standing: Standing) -> DeliveryStatus:
    if standing.status == "relayed":
        return DeliveryStatus.SUCCESS
    if standing.status in _AT_THE_DOOR:
        return DeliveryStatus.REJECTED
    if standing.status == "cancelled" or standing.status == "unknown":
        return DeliveryStatus.FAILED
    if standing.status != "failed":
        return DeliveryStatus.RETRY
    enhanced = standing.enhanced_status
    if enhanced in _NO_SUCH_ADDRESS:
        return DeliveryStatus.INVALID
    if enhanced == _TOO_LATE and not standing.code:
        return DeliveryStatus.TEMP_FAILED
    if enhanced.startswith("4.") or standing.code // 100 == 4 or _code_of(standing.reply) // 100 == 4:
        return DeliveryStatus.TEMP_FAILED
    return DeliveryStatus.FAILED


def _overall(failures: Iterable[DeliveryStatus]) -> DeliveryStatus:
    """Give one word for all: it is not over while it is not for one; what failed in several ways has failed."""
    words = set(failures)
    if not words:
        return DeliveryStatus.SUCCESS
    if DeliveryStatus.RETRY in words:
        return DeliveryStatus.RETRY
    return words.pop() if len(words) == 1 else DeliveryStatus.FAILED


def _code_of(reply: str) -> int:
    """Give the code with which a reply's text begins, 0 where there is none."""
    code = reply[:3]
    return int(code) if len(code) == 3 and code.isascii() and code.isdigit() else 0
