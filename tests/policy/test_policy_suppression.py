"""What counts towards suppression, and the marks that remember it."""

import random

import pytest

from smarthost.mail.envelope import Recipient
from smarthost.mail.outcome import Action, Outcome, Scope, Stage
from smarthost.mail.reply import EnhancedStatus, make_reply
from smarthost.mail.suppression import Origin, Suppression, read_suppression_address, suppression_address
from smarthost.policy.suppression import SuppressionRules, failures_counted
from smarthost.policy.suppression_marks import BY_FAILURES, BY_PERSON, BY_REPORT, Marks, mark_of

RULES = SuppressionRules(enabled=True)
SOMEBODY = Recipient("a@example.net", "example.net")


def failure(status: str, stage: Stage = Stage.RCPT, action: Action = Action.FAILED) -> Outcome:
    """Make what became of a recipient."""
    reply = make_reply(550, status, "no")
    return Outcome(SOMEBODY, action, Scope.RECIPIENT, stage, EnhancedStatus.parse(status), "550 no", reply)


@pytest.mark.parametrize(
    ("outcome", "counted"),
    [
        (failure("5.1.1"), 3),
        (failure("5.1.2"), 3),
        (failure("5.1.2", Stage.RESOLVE), 3),
        (failure("5.1.10", Stage.RESOLVE), 1),
        (failure("5.2.2"), 1),
        (failure("5.0.0"), 1),
        (failure("5.4.1"), 1),
        (failure("5.7.1"), 0),
        (failure("5.1.8"), 0),
        (failure("5.1.1", Stage.MAIL), 0),
        (failure("5.1.1", Stage.CONTENT), 3),
        (failure("5.2.1", Stage.CONTENT), 1),
        (failure("5.6.0", Stage.CONTENT), 0),
        (failure("5.4.7", Stage.QUEUE), 0),
        (failure("4.2.2", Stage.RCPT, Action.DELAYED), 0),
        (failure("2.1.5", Stage.CONTENT, Action.RELAYED), 0),
    ],
)
def test_what_is_about_the_recipient_counts(outcome: Outcome, counted: int) -> None:
    """5.1.1 and 5.1.2 count for all, other refusals of the recipient once, those of sender, content and policy not."""
    assert failures_counted(RULES, outcome, [outcome]) == counted


def test_a_refused_content_of_several_recipients_counts_for_none() -> None:
    """Nobody can know which of the recipients a reply to the content is about."""
    outcome = failure("5.1.1", Stage.CONTENT)
    assert failures_counted(RULES, outcome, [outcome, outcome]) == 0


def test_what_is_ignored_can_be_chosen() -> None:
    """`ignore` holds whole parts of a status: "5.7" is no beginning of 5.70.1."""
    rules = SuppressionRules(enabled=True, ignore=("5.2.2",))
    assert failures_counted(rules, failure("5.7.1"), [SOMEBODY]) == 1  # type: ignore[list-item]
    assert failures_counted(rules, failure("5.2.2"), [SOMEBODY]) == 0  # type: ignore[list-item]
    assert failures_counted(RULES, failure("5.70.1"), [SOMEBODY]) == 1  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("Bob.Smith@Example.NET", "bob.smith@example.net"),
        ("<bob+news@bücher.example>", "bob+news@xn--bcher-kva.example"),
        (" bob@[192.0.2.1] ", "bob@[192.0.2.1]"),
        ("bob", None),
        ("bob@ex ample", None),
        ("", None),
    ],
)
def test_addresses_are_compared_in_lower_case_and_by_a_label(written: str, kept: str | None) -> None:
    """A person's spelling and a client's lead to the same key, or to none."""
    assert read_suppression_address(written) == kept
    if kept is not None:
        address = written.strip("<> ")
        assert suppression_address(Recipient(address, kept.rpartition("@")[2])) == kept


def test_marks_remember_as_a_dictionary_does() -> None:
    """Thousands of random changes leave what a dictionary would have, owners kept apart."""
    rng, marks, expected = random.Random(7), Marks(), {}
    for _ in range(20_000):
        key = (rng.choice(["", "app1"]), f"user{rng.randrange(3000)}@example.net")
        mark = rng.choice([0, 0, 1, 2, BY_FAILURES, BY_PERSON, BY_REPORT])
        marks.put(key, mark)
        expected[key] = mark
    assert all(marks.get(key) == mark for key, mark in expected.items())
    assert marks.count == sum(1 for mark in expected.values() if mark)
    assert marks.get(("app2", "user1@example.net")) == 0


def test_a_loaded_row_does_not_undo_what_came_since() -> None:
    """While the list is read from disk, an address that has a mark already keeps it."""
    marks = Marks()
    old = Suppression("", "a@example.net", 1, 0.0, 9.0)
    by_person = Suppression("", "b@example.net", 0, 5.0, 9.0, Origin.MANUAL)
    marks.put(old.key, BY_FAILURES)
    marks.load([(row.key, mark_of(row)) for row in (old, by_person)])
    assert marks.get(old.key) == BY_FAILURES
    assert marks.get(by_person.key) == BY_PERSON == mark_of(by_person)
