"""A stored template names the variables that are missing or mistyped, and makes a letter for each recipient."""

import pytest
from letters import make_letter, octets_of

from smarthost.compose.fault import FieldFault
from smarthost.compose.letter import Letter
from smarthost.compose.limits import SubmissionLimits
from smarthost.compose.mailbox import Mailbox, read_mailbox
from smarthost.compose.template import TemplateLimits
from smarthost.compose.template_form import (
    CompiledForm,
    Rendered,
    TemplateForm,
    Variable,
    check_variables,
    compile_form,
    fill_letter,
    read_form,
)

FORM = {
    "name": "order",
    "subject": "Order {{number}} & more",
    "html": "<p>Hello {{name}}</p>{{#each items}}<li>{{this}}</li>{{/each}}",
    "text": "Hello {{name}}",
    "variables": {
        "name": {"type": "string", "required": True},
        "number": {"type": "integer", "required": True},
        "items": {"type": "array"},
    },
}


def compiled(**changed: object) -> CompiledForm:
    """Read a template that has no fault."""
    form = read_form({**FORM, **changed})
    assert isinstance(form, TemplateForm), form
    found = compile_form(form, TemplateLimits())
    assert isinstance(found, CompiledForm), found
    return found


def test_a_template_is_filled_in() -> None:
    """HTML is escaped, subject and text are not."""
    found = compiled().render({"name": "<Ann>", "number": 7, "items": ["a&b"]})
    assert found == Rendered("Order 7 & more", "<p>Hello &lt;Ann&gt;</p><li>a&amp;b</li>", "Hello <Ann>")


def test_missing_and_mistyped_variables_are_named() -> None:
    """All at once, each with its own message; null is missing."""
    assert compiled().render({"number": True, "items": "x", "name": None}) == (
        FieldFault("variables.name", 'the variable "name" is missing'),
        FieldFault("variables.number", 'the variable "number" is a boolean; an integer is needed'),
        FieldFault("variables.items", 'the variable "items" is a string; an array is needed'),
    )


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("string", ["", "x"], [1, True, [], {}]),
        ("number", [1, 1.5], ["1", True]),
        ("integer", [1], [1.5, "1", False]),
        ("boolean", [True, False], [0, "true"]),
        ("array", [[]], [{}, "x"]),
        ("object", [{}], [[], "x"]),
    ],
)
def test_each_type_takes_its_own(kind: object, good: list[object], bad: list[object]) -> None:
    """As JSON has them: a boolean is no number."""
    declared = {"v": Variable(kind)}  # type: ignore[arg-type]
    assert [check_variables(declared, {"v": value}) for value in good] == [()] * len(good)
    assert all(check_variables(declared, {"v": value}) for value in bad)


def test_faults_of_a_template_name_the_part_and_the_place() -> None:
    """Subject, HTML and text are each read, and all their faults are given."""
    form = read_form({"name": "", "subject": "{{a", "html": "x\n{{#if a}}", "text": "{{/if}}"})
    assert isinstance(form, TemplateForm)
    faults = compile_form(form, TemplateLimits())
    assert isinstance(faults, tuple)
    assert [fault.field for fault in faults] == ["name", "subject", "html", "text"]
    assert faults[2].message == 'line 2, column 1: the block "if" is not closed'
    empty = compile_form(TemplateForm(name="x", subject="s"), TemplateLimits())
    assert isinstance(empty, tuple) and "body is missing" in empty[0].message


@pytest.mark.parametrize(
    ("changed", "field"),
    [({"variables": {"a": {"type": "date"}}}, "variables[...].type"), ({"colour": 1}, "colour"), ({"html": 1}, "html")],
)
def test_the_form_of_a_template_is_strict(changed: dict[str, object], field: str) -> None:
    """What is no field, or of another type, is named."""
    faults = read_form({**FORM, **changed})
    assert isinstance(faults, tuple) and [fault.field for fault in faults] == [field]


def test_one_letter_serves_all_recipients() -> None:
    """Sender, headers and attachments stay; recipient, subject and texts are each one's own."""
    letter = make_letter(author="Shop <shop@example.org>", cc="c@example.net", headers={"X-Run": "7"})
    rendered = compiled().render({"name": "Ann", "number": 7})
    mailbox = read_mailbox("Ann <ann@example.net>")
    assert isinstance(rendered, Rendered) and isinstance(mailbox, Mailbox)
    filled = fill_letter(letter, mailbox, rendered, SubmissionLimits())
    assert isinstance(filled, Letter)
    assert [each.address for each in filled.recipients] == ["ann@example.net"]
    octets = octets_of(filled)
    assert b"To: Ann <ann@example.net>\r\nSubject: Order 7 & more\r\n" in octets and b"X-Run: 7" in octets
    assert b"Cc:" not in octets


def test_a_variable_cannot_write_a_header() -> None:
    """A line break in a variable of the subject becomes a blank."""
    rendered = compiled(subject="{{name}}").render({"name": "a\r\nBcc: x@example.net", "number": 1})
    assert isinstance(rendered, Rendered) and rendered.subject == "a Bcc: x@example.net"


def test_a_letter_that_comes_out_wrong_is_a_fault() -> None:
    """A subject that is too long with these variables, or no body at all, is refused and not sent."""
    letter = make_letter()
    mailbox = Mailbox("b@example.net", "example.net")
    long = fill_letter(letter, mailbox, Rendered("s" * 999, "h", ""), SubmissionLimits())
    empty = fill_letter(letter, mailbox, Rendered("s", "", ""), SubmissionLimits())
    assert isinstance(long, tuple) and long[0].field == "subject"
    assert isinstance(empty, tuple) and "empty" in empty[0].message
