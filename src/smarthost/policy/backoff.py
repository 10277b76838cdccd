"""Decides when to try again, when to warn the sender, and when to give up."""

import msgspec

from smarthost.mail.envelope import Pace

JITTER = 0.15  # part of a delay that chance may add or take, so that retries do not come in waves

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0


class Retry(msgspec.Struct, frozen=True):
    """How long mail is tried; all in seconds. `delay_warning` are ages at which the sender is told, ascending."""

    schedule: tuple[float, ...] = (
        5 * _MINUTE,
        10 * _MINUTE,
        20 * _MINUTE,
        40 * _MINUTE,
        1 * _HOUR,
        2 * _HOUR,
        4 * _HOUR,
    )
    soft_bounce: bool = False
    lifetime: float = 5 * _DAY
    report_lifetime: float = 2 * _DAY
    delay_warning: tuple[float, ...] = (4 * _HOUR, 24 * _HOUR)


def at_pace(retry: Retry, pace: Pace | None) -> Retry:
    """Give how a message is tried whose sender may have asked for a pace of its own."""
    if pace is None:
        return retry
    lifetime = retry.lifetime if pace.lifetime is None else pace.lifetime
    return msgspec.structs.replace(retry, schedule=pace.schedule or retry.schedule, lifetime=lifetime)


def next_attempt(retry: Retry, attempts: int, now: float, jitter: float) -> float:
    """Give the Unix time of the next attempt.

    `attempts` counts those that were spent, the one that just failed too; beyond the schedule's end its last delay
    repeats. `jitter` in [-1, 1] moves the delay by up to 15 %.
    """
    step = min(max(attempts, 1), len(retry.schedule)) - 1
    return now + retry.schedule[step] * (1.0 + JITTER * jitter)


def deadline(retry: Retry, released: float, expires: float, warned: int) -> float:
    """Give the Unix time at which an entry needs a look even when it is not tried: its next warning or its expiry.

    `released` is when it could first be sent; `warned` counts the delay warnings that were sent.
    """
    if warned < len(retry.delay_warning):
        return min(expires, released + retry.delay_warning[warned])
    return expires


def lifetime(retry: Retry, report: bool) -> float:
    """Give the seconds after its release at which a message, or a report of ours, is given up (RFC 5321 4.5.4.1)."""
    return retry.report_lifetime if report else retry.lifetime
