"""Rules on replies: what matches, thresholds, how long a measure holds, and what becomes of outcomes."""

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smarthost.automation_presets import read_presets
from smarthost.mail.envelope import Recipient
from smarthost.mail.outcome import Action, Outcome, Scope, Stage
from smarthost.mail.reply import EnhancedStatus, Reply, make_reply
from smarthost.mail.route import Deliver, Host, Route, Site
from smarthost.policy.automation import Automation, AutomationRule, Remedy, ReplyMatch, amend
from smarthost.policy.rate import Rate, parse_rate

NOW = 1_800_000_000.0
BUSY = make_reply(421, "4.7.28", "unusual rate", "of mail")


def site_of(*hosts: str, route: str = "mx") -> Site:
    """Give the site of some hosts."""
    return Site(f"{route}/{hosts[0]}", tuple(Host(host, ()) for host in hosts), Route(route, Deliver.MX), NOW)


GOOGLE = site_of("gmail-smtp-in.l.google.com")


def rule_of(action: Remedy = Remedy.SUSPEND, threshold: str = "", **match: object) -> AutomationRule:
    """Give a rule on 4.7.28 unless it is about something else."""
    found = msgspec.structs.replace(ReplyMatch(r"4\.7\.28"), **match)
    return AutomationRule("a-rule", found, action, 600.0, parse_rate(threshold) if threshold else None)


@pytest.mark.parametrize(
    ("match", "matches"),
    [
        ({}, True),
        ({"reply": "^421 4.7.28 UNUSUAL rate of mail$"}, True),
        ({"reply": "^4.7.28"}, False),
        ({"site": "*.google.com"}, True),
        ({"site": "l.google.com"}, True),
        ({"site": "google"}, False),
        ({"site": "*.yahoodns.net"}, False),
        ({"route": "mx"}, True),
        ({"route": "ses"}, False),
        ({"stage": Stage.MAIL}, True),
        ({"stage": Stage.RCPT}, False),
    ],
)
def test_what_a_rule_matches(match: dict[str, object], matches: bool) -> None:
    """Code, status and all lines of text are one text; site, route and stage each restrict when they are given."""
    found = Automation([rule_of(**match)]).observe(GOOGLE, Stage.MAIL, BUSY, NOW)
    assert (found is not None) == matches


def test_the_first_match_wins_even_below_its_threshold() -> None:
    """A later rule is not asked when an earlier one matches, though that one does nothing yet."""
    first, second = rule_of(threshold="2/10min"), msgspec.structs.replace(rule_of(Remedy.FAIL), name="other")
    automation = Automation([first, second])
    assert automation.observe(GOOGLE, Stage.MAIL, BUSY, NOW) is None
    found = automation.observe(GOOGLE, Stage.MAIL, BUSY, NOW + 1)
    assert found is not None and found.rule is first
    other = automation.observe(GOOGLE, Stage.MAIL, make_reply(421, "4.7.0", "no"), NOW)
    assert other is None


def test_a_measure_runs_to_its_end_and_not_longer() -> None:
    """Replies while it holds begin nothing; it is in force until its time is over, and is told of once."""
    automation = Automation([rule_of()])
    begun = automation.observe(GOOGLE, Stage.MAIL, BUSY, NOW)
    assert begun is not None and begun.begun is not None and begun.begun.until == NOW + 600
    again = automation.observe(GOOGLE, Stage.MAIL, BUSY, NOW + 599)
    assert again is not None and again.begun is None
    assert automation.in_force(GOOGLE.name, NOW + 599) == [begun.begun]
    assert automation.ended(NOW + 599) == []
    assert automation.in_force(GOOGLE.name, NOW + 600) == []
    assert automation.ended(NOW + 600) == [begun.begun]
    assert automation.ended(NOW + 601) == []
    later = automation.observe(GOOGLE, Stage.MAIL, BUSY, NOW + 700)
    assert later is not None and later.begun is not None and later.begun.until == NOW + 1300


def test_sites_count_for_themselves() -> None:
    """What one site replies neither counts at another nor suspends it."""
    automation, other = Automation([rule_of(threshold="2/10min")]), site_of("mx.example.net")
    assert automation.observe(GOOGLE, Stage.MAIL, BUSY, NOW) is None
    assert automation.observe(other, Stage.MAIL, BUSY, NOW) is None
    assert automation.observe(GOOGLE, Stage.MAIL, BUSY, NOW) is not None
    assert automation.in_force(other.name, NOW) == []


@given(st.lists(st.floats(0, 2000), max_size=40), st.integers(1, 5))
def test_a_threshold_is_a_count_in_a_sliding_time(gaps: list[float], count: int) -> None:
    """FAIL acts exactly when as many replies, this one included, came within the period."""
    rule = msgspec.structs.replace(rule_of(Remedy.FAIL), threshold=Rate(count, 600.0))
    automation, now, times = Automation([rule]), NOW, []
    for gap in gaps:
        now += gap
        times.append(now)
        expected = sum(1 for at in times if at > now - 600.0) >= count
        assert (automation.observe(GOOGLE, Stage.MAIL, BUSY, now) is not None) == expected
        automation.ended(now)


def test_after_a_measure_the_count_begins_anew() -> None:
    """The replies that led to a suspension do not lead to the next one."""
    automation = Automation([msgspec.structs.replace(rule_of(threshold="2/h"), duration=10.0)])
    found = [automation.observe(GOOGLE, Stage.MAIL, BUSY, NOW + at) for at in (0, 1, 20, 21)]
    assert [each is not None and each.begun is not None for each in found] == [False, True, False, True]


def test_new_rules_end_what_is_gone() -> None:
    """A rule that stays as it was keeps what it put in force; one that is gone or changed does not."""
    rule = rule_of()
    automation = Automation([rule])
    automation.observe(GOOGLE, Stage.MAIL, BUSY, NOW)
    assert automation.replace([msgspec.structs.replace(rule)]) == []
    assert len(automation.in_force(GOOGLE.name, NOW)) == 1
    assert len(automation.replace([msgspec.structs.replace(rule, duration=5.0)])) == 1
    assert automation.in_force(GOOGLE.name, NOW) == []
    assert not Automation().has_rules


def test_a_suspension_is_lifted_by_hand() -> None:
    """What is lifted is not in force, and can be put in force again."""
    automation = Automation([rule_of()])
    assert automation.lift(GOOGLE.name, Remedy.SUSPEND) is None
    automation.observe(GOOGLE, Stage.MAIL, BUSY, NOW)
    assert automation.lift(GOOGLE.name, Remedy.SUSPEND) is not None
    assert automation.in_force(GOOGLE.name, NOW) == []
    found = automation.observe(GOOGLE, Stage.MAIL, BUSY, NOW)
    assert found is not None and found.begun is not None


@pytest.mark.parametrize(
    ("remedy", "was", "becomes"),
    [
        (Remedy.FAIL, Action.DELAYED, Action.FAILED),
        (Remedy.FAIL, Action.FAILED, Action.FAILED),
        (Remedy.DEFER, Action.FAILED, Action.DELAYED),
        (Remedy.DEFER, Action.DELAYED, Action.DELAYED),
        (Remedy.SWITCH_ROUTE, Action.FAILED, Action.DELAYED),
        (Remedy.SUSPEND, Action.FAILED, Action.FAILED),
        (Remedy.SLOW_DOWN, Action.DELAYED, Action.DELAYED),
    ],
)
def test_outcomes_are_amended(remedy: Remedy, was: Action, becomes: Action) -> None:
    """The status agrees with the new action, the reply stays the peer's, and the rule is named where it decided."""
    klass = 4 if was is Action.DELAYED else 5
    recipient = Recipient("a@example.net", "example.net")
    outcome = Outcome(recipient, was, Scope.RECIPIENT, Stage.RCPT, EnhancedStatus(klass, 7, 1), "x", BUSY)
    amended = amend(outcome, rule_of(remedy))
    assert (amended.action, amended.reply) == (becomes, BUSY)
    assert amended.status == EnhancedStatus(4 if becomes is Action.DELAYED else 5, 7, 1)
    assert ("a-rule" in amended.reason) == (was is not becomes)


SAID = [
    ("google-rate", "gmail-smtp-in.l.google.com", 421, "4.7.28", "[192.0.2.1] Our system has detected an unusual rate"),
    (
        "microsoft-ip-reputation",
        "hotmail-com.olc.protection.outlook.com",
        451,
        "4.7.650",
        "The mail server [192.0.2.1] has been temporarily rate limited due to IP reputation. For e-mail delivery "
        "information, see https://aka.ms/postmaster (S775) [Name=Protocol Filter Agent][AGT=PFA]",
    ),
    (
        "microsoft-rate",
        "hotmail-com.olc.protection.outlook.com",
        421,
        "4.0.0",
        "RP-001 (COL0-MC3-F15) Unfortunately, some messages from 192.0.2.1 weren't sent. Please try again.",
    ),
    (
        "microsoft-throttled",
        "some-company-de.mail.protection.outlook.com",
        451,
        "4.7.500",
        "Server busy. Please try again later from [192.0.2.1]. (S77719)",
    ),
    (
        "yahoo-blocked",
        "mta7.am0.yahoodns.net",
        421,
        "4.7.1",
        "[TS03] All messages from 192.0.2.1 will be permanently deferred; Retrying will NOT succeed.",
    ),
    (
        "yahoo-deferred",
        "mx-eu.mail.am0.yahoodns.net",
        421,
        "4.7.0",
        "[TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume or user complaints - 4.16.55.1",
    ),
    (
        "apple-volume",
        "mx01.mail.icloud.com",
        421,
        "4.7.1",
        "Messages to a@icloud.com deferred due to excessive volume. Try again later - https://support.apple.com/",
    ),
    ("apple-volume", "mx02.mail.icloud.com", 451, "4.7.1", "Service unavailable - try again later"),
    (
        "gmx-rate",
        "mx00.gmx.net",
        421,
        "4.0.0",
        "gmx.net (mxgmx104) Nemesis ESMTP Service not available Service unavailable Reject due to policy restrictions "
        "Too many messages have been received in a short period of time. Please try again in a few hours",
    ),
    ("webde-rate", "mx-ha02.web.de", 421, "4.0.0", "web.de Too many messages have been received in a short period"),
]


@pytest.mark.parametrize(("name", "host", "code", "status", "text"), SAID)
def test_presets_know_what_providers_say(name: str, host: str, code: int, status: str, text: str) -> None:
    """The words that providers use lead to the rule that is meant for them, and to none at another's site."""
    rules = [msgspec.structs.replace(rule, threshold=None) for rule in read_presets()]
    reply = make_reply(code, status, text)
    found = Automation(rules).observe(site_of(host), Stage.MAIL, reply, NOW)
    assert found is not None and found.rule.name == name
    assert Automation(rules).observe(site_of("mx.example.net"), Stage.MAIL, reply, NOW) is None


def test_every_preset_is_tried() -> None:
    """No preset is without a reply above that it was written for, and none fails or switches mail."""
    presets = read_presets()
    assert {rule.name for rule in presets} == {row[0] for row in SAID}
    assert {rule.action for rule in presets} <= {Remedy.SUSPEND, Remedy.SLOW_DOWN}


@pytest.mark.parametrize(
    "reply", ["450 4.2.1 The user you are trying to contact is receiving mail too quickly", "550 5.1.1 x"]
)
def test_presets_leave_mailboxes_alone(reply: str) -> None:
    """A refusal about one mailbox is no reason to touch a site."""
    code, status, text = reply.split(" ", 2)
    rules = [msgspec.structs.replace(rule, threshold=None) for rule in read_presets()]
    for host in {row[1] for row in SAID}:
        found = Automation(rules).observe(site_of(host), Stage.RCPT, make_reply(int(code), status, text), NOW)
        assert found is None


def test_a_way_does_not_lead_to_itself() -> None:
    """A rule that switches to a route is not about that route's own sites: its way there would end at once."""
    rule = AutomationRule("way", ReplyMatch("busy"), Remedy.SWITCH_ROUTE, route="other")
    automation, reply = Automation([rule]), make_reply(451, "4.7.1", "busy")
    assert automation.observe(site_of("mx.example.net"), Stage.MAIL, reply, NOW) is not None
    assert automation.observe(site_of("mx.example.net", route="other"), Stage.MAIL, reply, NOW) is None


def test_a_long_reply_is_not_searched_to_its_end() -> None:
    """A peer cannot make a rule search through megabytes."""
    reply = Reply(421, EnhancedStatus(4, 7, 0), ("x" * 100_000, "needle"))
    assert Automation([rule_of(reply="needle")]).observe(GOOGLE, Stage.MAIL, reply, NOW) is None


def test_a_broken_pattern_is_told() -> None:
    """The configuration refuses it; who builds rules by hand hears of it at once."""
    with pytest.raises(re.error):
        Automation([rule_of(reply="(")])
