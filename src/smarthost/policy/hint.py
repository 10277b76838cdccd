"""Decides when to come back to a peer that names a time: "greylisted, try again in 5 minutes" and its kin."""

import re

from smarthost.policy.backoff import JITTER, Retry

LONGEST = 4 * 3600.0  # seconds; who asks for more is asked sooner, as mail is of use while it is fresh
MOST_TEXT = 1000  # characters of a reply that are searched

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_AMOUNT = r"\d{1,6}(?:\.\d{1,3})?\s*(?:s(?:ec(?:ond)?s?)?|m(?:in(?:ute)?s?)?|h(?:(?:ou)?rs?)?|days?|d)(?![a-z])"
# A time alone is no hint ("100 messages in 5 minutes"): what shall be done must be said right before it, with nothing
# between but words like these. "within 24 hours" is a latest time, and so none for us.
_HINT = re.compile(
    r"\b(?:(?:re)?try(?:ing)?|retried|again|come\s+back|return|(?:re)?send|resubmit|reconnect|wait|gr[ae]y-?list(?:ed|ing)?"
    r"|deferred|delayed|throttled|postponed)\b[\s:,;.(\-]*"
    r"(?:(?:again|later|back|please|in|after|for|about|approximately|at\s+least|another|the\s+next)\b[\s:,(]*){0,6}"
    rf"(?:(?P<clock>\d{{1,2}}:[0-5]\d:[0-5]\d)(?!\d)|(?P<amounts>{_AMOUNT}(?:\s*(?:,|and)?\s*{_AMOUNT}){{0,2}})"
    r"|(?P<one>an?|one)\s+(?P<unit>minute|hour)\b)",
    re.IGNORECASE,
)
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])", re.IGNORECASE)


def find_hint(text: str) -> float | None:
    """Give the seconds after which the text of a 4yz reply asks to come back; None when it names no time."""
    found = _HINT.search(text[:MOST_TEXT])
    if found is None:
        return None
    if found["clock"]:
        hours, minutes, seconds = map(int, found["clock"].split(":"))
        delay = hours * 3600.0 + minutes * 60.0 + seconds
    elif found["amounts"]:
        delay = sum(float(number) * _UNITS[unit.lower()] for number, unit in _PART.findall(found["amounts"]))
    else:
        delay = _UNITS[found["unit"][0].lower()]
    return delay or None


def hinted_attempt(retry: Retry, hint: float, now: float, jitter: float) -> float:
    """Give the Unix time of the next attempt after a hint of some seconds.

    It is not before the first step of the schedule, and not after 4 hours (or that step, if it is longer). `jitter` in
    [-1, 1] moves it by up to 15 %, later only: who comes before the time that was named is refused again.
    """
    longest = max(LONGEST, retry.schedule[0])
    delay = min(max(hint, retry.schedule[0]), longest)
    return now + min(delay * (1.0 + JITTER * abs(jitter)), longest)
