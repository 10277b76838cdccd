"""Notes: written when they change and not before, taken back by the next life, and no worse for damage."""

import msgspec

from smarthost.policy.automation import Automation, AutomationRule, Measure, Remedy, ReplyMatch
from smarthost.policy.capacity import FIRST_TRIAL, REMEMBERED, Capacities, Learned
from smarthost.policy.ledger import LimitState
from smarthost.policy.notes import NoteKind, Notes

NOW = 1_800_000_000.0


class Value(msgspec.Struct):
    """Something worth a note."""

    number: int


def test_a_note_is_written_once_and_only_when_it_changes() -> None:
    """What says the same again asks for nothing; what is dropped is a row without a state."""
    notes, asked = Notes(), []
    notes.ask = lambda: asked.append(1)
    notes.put(NoteKind.CAPACITY, "x", Value(1))
    notes.put(NoteKind.CAPACITY, "x", Value(1))
    notes.put(NoteKind.LOGIN, "x", Value(2))
    assert len(asked) == 1
    assert notes.write() == [
        LimitState("note capacity x", b'{"number":1}'),
        LimitState("note login x", b'{"number":2}'),
    ]
    notes.put(NoteKind.CAPACITY, "x", Value(1))
    notes.drop(NoteKind.MEASURE, "x")
    assert len(asked) == 1 and not notes.write()
    notes.drop_all(NoteKind.CAPACITY)
    assert len(asked) == 2 and notes.write() == [LimitState("note capacity x", b"")]
    assert notes.all_of(NoteKind.LOGIN, Value) == {"x": Value(2)} and not notes.all_of(NoteKind.CAPACITY, Value)


def test_damaged_notes_are_named_and_removed() -> None:
    """Rows that are no JSON, no UTF-8 or of another shape are forgotten; the others are given."""
    notes = Notes()
    states = {"a": b'{"number":1}', "b": b"", "c": b"{", "d": b"\xff\xfe", "e": b'{"number":"x"}', "f": b"{}"}
    notes.restore(LimitState(f"note capacity {name}", state) for name, state in states.items())
    assert notes.all_of(NoteKind.CAPACITY, Value) == {"a": Value(1)}
    assert sorted(name[-1] for name in notes.damaged) == ["b", "c", "d", "e", "f"]
    assert {row.name[-1] for row in notes.write() if not row.state} >= {"c", "d", "e", "f"}


def test_capacities_are_one_a_site_and_are_kept() -> None:
    """Whoever asks gets the same; what is learned is told, and what is over is told, too; a life goes on from it."""
    kept: dict[str, Learned | None] = {}
    life = Capacities()
    life.keep = kept.__setitem__
    life.of("x").refused(20, NOW)
    assert life.of("x").most == 20, "it is held though nobody uses it"
    assert kept == {"x": Learned(20, NOW + REMEMBERED, NOW + FIRST_TRIAL, FIRST_TRIAL)}
    life.of("x").took(20, NOW + FIRST_TRIAL)
    again = Capacities()
    again.keep = kept.__setitem__
    again.restore({"x": kept["x"]}, NOW + FIRST_TRIAL + 1)  # type: ignore[dict-item]
    assert again.of("x").within(100, NOW + FIRST_TRIAL + 1) == 25
    again.of("x").took(25, NOW + FIRST_TRIAL + 2)
    assert again.of("x").most == 25, "the next trial is as far away as it was"
    again.tidy(NOW + REMEMBERED)
    assert kept == {"x": None} and again.of("x").most == 0


def test_a_kept_capacity_that_is_over_or_ahead() -> None:
    """What is over is dropped; a clock that was an hour ahead does not make it last longer than a day."""
    kept: dict[str, Learned | None] = {}
    life = Capacities()
    life.keep = kept.__setitem__
    ahead = Learned(5, NOW + REMEMBERED + 3600, NOW + 3600 + 9 * 3600, 1e9)
    life.restore({"old": Learned(5, NOW, NOW, 1.0), "odd": Learned(0, NOW + 9, NOW, 1.0), "ahead": ahead}, NOW)
    assert kept == {"old": None, "odd": None}
    assert life.of("ahead").until == NOW + REMEMBERED
    life.of("ahead").took(5, NOW + 8 * 3600)
    assert life.of("ahead").most == 6


def test_measures_go_on_under_the_same_rule_only() -> None:
    """A measure of a life before holds until its end; one of a changed rule, or that is over, does not."""
    rule = AutomationRule("a", ReplyMatch("x"), Remedy.SUSPEND, 600.0)
    measures = [
        Measure(rule, "site", "x", NOW - 100, NOW + 500),
        Measure(rule, "over", "x", NOW - 700, NOW - 100),
        Measure(rule, "ahead", "x", NOW + 3600, NOW + 4200),
        Measure(msgspec.structs.replace(rule, duration=900.0), "changed", "x", NOW, NOW + 900),
    ]
    octets = msgspec.json.encode(measures)
    automation = Automation([rule])
    left = automation.restore(msgspec.json.decode(octets, type=list[Measure]), NOW)
    assert [measure.site for measure in left] == ["over", "changed"]
    assert automation.in_force("site", NOW) == [measures[0]]
    [ahead] = automation.in_force("ahead", NOW)
    assert ahead.until == NOW + 600
    assert {measure.site for measure in automation.ended(NOW + 601)} == {"site", "ahead"}
