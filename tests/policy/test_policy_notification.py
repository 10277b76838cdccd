"""Reports, hosts and waiting reasons: who hears what, who is tried in which order, and a sentence for each reason."""

from itertools import product
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smarthost.mail.entry import Why
from smarthost.mail.envelope import Envelope, Notify, Recipient, Ret
from smarthost.mail.message import Arrival, Message
from smarthost.mail.outcome import Action, Outcome, Scope, Stage
from smarthost.mail.reply import EnhancedStatus
from smarthost.policy.classify import NetFault
from smarthost.policy.hosts import order_addresses, order_mx
from smarthost.policy.notification import SMALL, DueReport, due_reports
from smarthost.policy.waiting import SENTENCES

KLASS = {Action.RELAYED: 2, Action.DELAYED: 4, Action.FAILED: 5}


def message(
    *, reverse_path: str = "s@example.org", ret: Ret | None = None, size: int = 1000, report: bool = False
) -> Message:
    """Make a message; its recipients are in the outcomes."""
    return Message(1, Arrival(0.0), Envelope(reverse_path, (), ret=ret), size, report=report)


def outcome(action: Action, notify: int = 0, name: str = "r") -> Outcome:
    """Make the outcome of one recipient."""
    recipient = Recipient(f"{name}@example.net", "example.net", notify)
    return Outcome(recipient, action, Scope.RECIPIENT, Stage.RCPT, EnhancedStatus(KLASS[action], 0, 0), "because")


def kinds(reports: tuple[DueReport, ...]) -> list[str]:
    """Name the kinds of reports."""
    return [report.kind.value for report in reports]


@pytest.mark.parametrize(
    ("notify", "failed", "delayed", "relayed"),
    [
        (Notify.UNSPECIFIED, ["failure"], ["delay"], []),
        (Notify.NEVER, [], [], []),
        (Notify.SUCCESS, [], [], ["relayed"]),
        (Notify.FAILURE, ["failure"], [], []),
        (Notify.DELAY, [], ["delay"], []),
        (Notify.SUCCESS | Notify.FAILURE, ["failure"], [], ["relayed"]),
        (Notify.SUCCESS | Notify.FAILURE | Notify.DELAY, ["failure"], ["delay"], ["relayed"]),
    ],
)
def test_notify_decides(notify: Notify, failed: list[str], delayed: list[str], relayed: list[str]) -> None:
    """Each NOTIFY value gets the reports of RFC 3461 4.1, and its absence failure and delay."""
    assert kinds(due_reports(message(), [outcome(Action.FAILED, notify)])) == failed
    assert kinds(due_reports(message(), [outcome(Action.DELAYED, notify)], warning=True)) == delayed
    assert kinds(due_reports(message(), [outcome(Action.RELAYED, notify)])) == relayed


def test_a_next_hop_with_dsn_reports_on_success_itself() -> None:
    """Where NOTIFY was passed on, we do not say "relayed"."""
    assert due_reports(message(), [outcome(Action.RELAYED, Notify.SUCCESS)], dsn_offered=True) == ()


def test_a_delay_is_told_only_when_a_warning_is_due() -> None:
    """Not every retry is a letter."""
    assert due_reports(message(), [outcome(Action.DELAYED)]) == ()


def test_nobody_hears_of_reports_and_null_reverse_paths() -> None:
    """A failing report is never reported on, whatever it asks for."""
    for notify, action in product((0, Notify.SUCCESS | Notify.FAILURE | Notify.DELAY), KLASS):
        some = [outcome(action, notify)]
        assert due_reports(message(reverse_path=""), some, warning=True) == ()
        assert due_reports(message(report=True), some, warning=True) == ()


def test_one_report_a_kind() -> None:
    """Several recipients of one kind share a report; kinds come one by one."""
    some = [
        outcome(Action.FAILED, name="a"),
        outcome(Action.DELAYED, name="b"),
        outcome(Action.FAILED, name="c"),
        outcome(Action.RELAYED, Notify.SUCCESS, name="d"),
        outcome(Action.FAILED, Notify.NEVER, name="e"),
    ]
    reports = due_reports(message(), some, warning=True)
    assert [(report.kind.value, [o.recipient.address[0] for o in report.outcomes]) for report in reports] == [
        ("failure", ["a", "c"]),
        ("delay", ["b"]),
        ("relayed", ["d"]),
    ]


@pytest.mark.parametrize(
    ("ret", "size", "full"),
    [
        (None, SMALL, True),
        (None, SMALL + 1, False),
        (Ret.FULL, SMALL + 1, True),
        (Ret.HDRS, 10, False),
    ],
)
def test_what_a_failure_returns(ret: Ret | None, size: int, full: bool) -> None:
    """RET decides what comes back; without it small messages come back whole."""
    (report,) = due_reports(message(ret=ret, size=size), [outcome(Action.FAILED)])
    assert report.full is full


def test_only_failures_return_the_content() -> None:
    """Delay and success reports have the header only, also with RET=FULL (RFC 3461 4.3)."""
    some = [outcome(Action.DELAYED), outcome(Action.RELAYED, Notify.SUCCESS)]
    assert [report.full for report in due_reports(message(ret=Ret.FULL), some, warning=True)] == [False, False]


def test_every_reason_has_a_sentence() -> None:
    """No entry waits without something that a person can read."""
    assert set(SENTENCES) == set(Why)
    assert all(sentence[0].isupper() and sentence.endswith(".") for sentence in SENTENCES.values())


def test_mx_records_go_by_preference() -> None:
    """Lower preferences come first; names are lower case without the final dot."""
    records = [(20, "b.example."), (10, "A.example."), (30, "c.example")]
    assert order_mx(records, (), Random(1)) == ((10, "a.example"), (20, "b.example"), (30, "c.example"))


def test_equal_preferences_are_shuffled() -> None:
    """Each of equally preferred hosts is first now and then, so that load is spread."""
    records = [(10, "a."), (10, "b."), (10, "c."), (20, "d.")]
    rng = Random(1)
    orders = [order_mx(records, (), rng) for _ in range(100)]
    assert {order[0][1] for order in orders if not isinstance(order, NetFault)} == {"a", "b", "c"}
    assert all(not isinstance(order, NetFault) and order[3] == (20, "d") for order in orders)


@pytest.mark.parametrize(
    ("records", "own", "expected"),
    [
        ([], (), ()),
        ([(0, ".")], (), NetFault.NULL_MX),
        ([(0, ""), (10, ".")], (), NetFault.NULL_MX),
        ([(0, "."), (10, "a.")], (), ((10, "a"),)),
        ([(10, "a."), (20, "me.example."), (30, "b.")], ("ME.example",), ((10, "a"),)),
        ([(10, "a."), (20, "me.example."), (20, "b.")], ("me.example",), ((10, "a"),)),
        ([(10, "me.example."), (20, "b.")], ("me.example",), NetFault.MX_LOOP),
        ([(10, "a."), (20, "a.")], (), ((10, "a"),)),
    ],
)
def test_special_mx_records(
    records: list[tuple[int, str]], own: tuple[str, ...], expected: tuple[tuple[int, str], ...] | NetFault
) -> None:
    """Null MX, ourselves among the hosts, and repeated names."""
    assert order_mx(records, own, Random(1)) == expected


mx_records = st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["a.", "b.", "c.", "me.", "."])), max_size=8)


@given(mx_records, st.integers())
def test_mail_never_goes_to_ourselves_or_worse(records: list[tuple[int, str]], seed: int) -> None:
    """What comes back is sorted, has no name twice, and nothing at or behind our own preference."""
    found = order_mx(records, ("me",), Random(seed))
    if isinstance(found, NetFault):
        return
    names = [name for _, name in found]
    assert list(found) == sorted(found, key=lambda record: record[0])
    assert len(set(names)) == len(names)
    ours = min((preference for preference, name in records if name == "me."), default=99)
    assert all(preference < ours for preference, _ in found)


@pytest.mark.parametrize(
    ("v4", "v6", "expected"),
    [
        ("123", "", "123"),
        ("", "abc", "abc"),
        ("123", "abc", "1a2b3"),
        ("1", "abcdef", "1abcd"),
        ("123456", "a", "1a234"),
        ("", "", ""),
    ],
)
def test_address_families_take_turns(v4: str, v6: str, expected: str) -> None:
    """IPv4 and IPv6 addresses alternate, five at most, and both families are among them."""
    assert order_addresses(list(v4), list(v6)) == tuple(expected)
