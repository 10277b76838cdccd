"""Reads the [[automation]] rules: which replies, and what shall come of them."""

import re
from collections.abc import Collection

from smarthost.config_read import Table, read_choice, read_count, read_name, read_positive_duration, read_text, show
from smarthost.config_routes import check_route_name
from smarthost.config_words import read_glob, read_optional, read_word
from smarthost.mail.outcome import Stage
from smarthost.policy.automation import DURATION, AutomationRule, Remedy, ReplyMatch
from smarthost.policy.rate import Rate, parse_rate

# Where a peer says something; the other stages have no reply.
_STAGES = tuple(stage for stage in Stage if stage not in (Stage.RESOLVE, Stage.CONNECT, Stage.QUEUE))
_ACTIONS = ", ".join(Remedy)
# Keys that only some actions have; elsewhere they would change nothing, and are refused.
_KEYS_OF = {
    "message_rate": (Remedy.SLOW_DOWN,),
    "max_connections": (Remedy.SLOW_DOWN,),
    "route": (Remedy.SWITCH_ROUTE,),
    "duration": (Remedy.SUSPEND, Remedy.SLOW_DOWN, Remedy.SWITCH_ROUTE),
}


def read_automation(top: Table, routes: Collection[str]) -> tuple[AutomationRule, ...]:
    """Read the [[automation]] tables; `routes` are the names that may be given."""
    rules = []
    names: set[str] = set()
    for index, table in enumerate(top.tables("automation")):
        rule = _read_rule(table, f"automation{index + 1}", routes)
        if rule.name in names:
            table.refuse("name", f'is "{rule.name}", which another rule has; choose another name')
        names.add(rule.name)
        rules.append(rule)
    return tuple(rules)


def _read_rule(table: Table, default_name: str, routes: Collection[str]) -> AutomationRule:
    if not table.has("action"):
        table.refuse("action", f"is missing; allowed are: {_ACTIONS}")
    rule = AutomationRule(
        name=table.take("name", read_word, default_name),
        match=_read_match(table.table("match"), routes),
        action=table.take("action", read_choice(Remedy), Remedy.DEFER),
        duration=table.take("duration", read_positive_duration, DURATION),
        threshold=table.take("threshold", _read_threshold, None),
        message_rate=table.take_list("message_rate", _read_rate, or_one=True),
        max_connections=table.take("max_connections", read_count, None),
        route=table.take("route", read_optional(read_word), ""),
    )
    if table.values.get("action") == rule.action:
        _check_keys(table, rule, routes)
    table.finish()
    return rule


def _check_keys(table: Table, rule: AutomationRule, routes: Collection[str]) -> None:
    """Refuse keys that the action lacks, or that mean nothing to it."""
    for key, actions in _KEYS_OF.items():
        if table.values.get(key) and rule.action not in actions:
            table.refuse(key, f'has no meaning with action = "{rule.action}"; it is for {", ".join(actions)}')
    if rule.action is Remedy.SLOW_DOWN and not (table.has("message_rate") or table.has("max_connections")):
        table.refuse("action", 'is "slow_down" without a rate; give message_rate = "1/min", max_connections, or both')
    if rule.action is Remedy.SWITCH_ROUTE:
        if not table.has("route"):
            table.refuse("action", f'is "switch_route" without a route; give one of: {", ".join(sorted(routes))}')
        check_route_name(table, "route", rule.route, routes)
        if rule.route and rule.route == rule.match.route:
            table.refuse("route", f'is "{rule.route}", which is the route that is matched; give another one')


def _read_match(table: Table, routes: Collection[str]) -> ReplyMatch:
    if not table.has("reply"):
        table.refuse("reply", 'is missing; write a regular expression for code, status and text, as "4\\\\.7\\\\.28"')
    match = ReplyMatch(
        reply=table.take("reply", _read_pattern, "(?!)"),
        site=table.take("site", read_optional(read_glob), ""),
        route=table.take("route", read_optional(read_word), ""),
        stage=table.take("stage", _read_stage, None),
    )
    check_route_name(table, "route", match.route, routes)
    table.finish()
    return match


def _read_pattern(value: object) -> str:
    text = read_name(value)
    try:
        pattern = re.compile(text, re.IGNORECASE)
    except re.error as error:
        raise ValueError(f"is {show(value)}, but must be a regular expression: {error}") from None
    if pattern.search("") is not None:
        raise ValueError(f"is {show(value)}, which matches every reply; write what the reply must have in it")
    return text


def _read_stage(value: object) -> Stage | None:
    text = read_text(value)
    if text and text not in _STAGES:
        raise ValueError(f"is {show(value)}, but must be one of: {', '.join(_STAGES)}")
    return Stage(text) if text else None


def _read_rate(value: object) -> Rate:
    return parse_rate(read_text(value))


def _read_threshold(value: object) -> Rate:
    threshold = parse_rate(read_text(value))
    if threshold.burst > 1:
        raise ValueError(f'is {show(value)}, but must be a number of replies in a time, as "3/10min"')
    return threshold
