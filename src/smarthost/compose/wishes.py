"""Checks what a request asks of the relay rather than of the mail: tag, time, retries, metadata."""

import re

import msgspec

from smarthost.compose.fault import FieldFault
from smarthost.compose.limits import SubmissionLimits
from smarthost.compose.submission import RetryProfile, Submission

_TAG = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_LAST_YEAR = 2999  # the expiry that is counted from a time of sending has to be a date, too
_DAY = 86400.0
_LONGEST_DELAY = 7 * _DAY
_LONGEST_LIFE = 30 * _DAY
_MOST_DELAYS = 30


def check_wishes(submission: Submission, limits: SubmissionLimits, faults: list[FieldFault]) -> None:
    """Add the faults of tag, send_at, metadata and retry."""
    if submission.tag and _TAG.fullmatch(submission.tag) is None:
        faults.append(FieldFault("tag", "up to 64 letters, digits, dots, dashes and underscores are allowed"))
    if submission.send_at is not None and not 1970 < submission.send_at.year <= _LAST_YEAR:
        faults.append(FieldFault("send_at", f"is not a time between 1971 and {_LAST_YEAR}"))
    if submission.metadata:
        octets = len(msgspec.json.encode(submission.metadata))
        if octets > limits.metadata:
            faults.append(FieldFault("metadata", f"has {octets} octets of JSON; {limits.metadata} are allowed"))
    if submission.retry is not None:
        _check_retry(submission.retry, faults)


def _check_retry(retry: RetryProfile, faults: list[FieldFault]) -> None:
    if len(retry.schedule) > _MOST_DELAYS:
        faults.append(FieldFault("retry.schedule", f"has {len(retry.schedule)} delays; {_MOST_DELAYS} are allowed"))
    for place, delay in enumerate(retry.schedule[:_MOST_DELAYS]):
        if not 1.0 <= delay <= _LONGEST_DELAY:
            faults.append(FieldFault(f"retry.schedule[{place}]", "is not between 1 s and 7 days, in seconds"))
    if retry.lifetime is not None and not 60.0 <= retry.lifetime <= _LONGEST_LIFE:
        faults.append(FieldFault("retry.lifetime", "is not between 60 s and 30 days, in seconds"))
