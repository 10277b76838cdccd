"""Reads [suppression]: to whom nothing is sent any more."""

import re

from smarthost.config_read import Table, read_bool, read_choice, read_count, read_positive_duration, show
from smarthost.policy.suppression import MOST_FAILURES, SuppressionPoint, SuppressionRules, SuppressionScope

_STATUS = re.compile(r"5\.\d{1,3}(?:\.\d{1,3})?")


def read_suppression(table: Table) -> SuppressionRules:
    """Read [suppression]."""
    default = SuppressionRules()
    rules = SuppressionRules(
        enabled=table.take("enabled", read_bool, default.enabled),
        scope=table.take("scope", read_choice(SuppressionScope), default.scope),
        at=table.take("at", read_choice(SuppressionPoint), default.at),
        expiry=table.take("expiry", read_positive_duration, default.expiry),
        after=table.take("after", read_count, default.after),
        ignore=table.take_list("ignore", _read_status, default.ignore),
    )
    if rules.after > MOST_FAILURES:
        table.refuse("after", f"is {rules.after}; allowed are 1 to {MOST_FAILURES} hard failures in a row")
    table.finish()
    return rules


def _read_status(value: object) -> str:
    if not isinstance(value, str) or _STATUS.fullmatch(value) is None:
        raise ValueError(f'is {show(value)}, but must be the beginning of a status of class 5, as "5.7" or "5.2.2"')
    return value
