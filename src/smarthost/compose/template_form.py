"""A stored template: subject, HTML and text with the variables they need, and a message of it for each recipient."""

from types import MappingProxyType
from typing import Any, Literal

import msgspec

from smarthost.compose.fault import FieldFault
from smarthost.compose.fields import check_subject
from smarthost.compose.letter import Letter, as_recipient
from smarthost.compose.limits import SubmissionLimits
from smarthost.compose.mailbox import Mailbox
from smarthost.compose.submission import convert_fields
from smarthost.compose.template import Template, TemplateLimits, compile_template
from smarthost.compose.template_tokens import TemplateFault

Kind = Literal["string", "number", "integer", "boolean", "array", "object"]

_KINDS: MappingProxyType[Kind, tuple[type, ...]] = MappingProxyType(
    {
        "string": (str,),
        "number": (int, float),
        "integer": (int,),
        "boolean": (bool,),
        "array": (list,),
        "object": (dict,),
    }
)
_NAMES = MappingProxyType(
    {str: "a string", int: "a number", float: "a number", bool: "a boolean", list: "an array", dict: "an object"}
)
_MOST_VARIABLES = 200
_LONGEST_NAME = 200


class Variable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a template says of one of its variables: of which type it is, and whether it has to be given."""

    type: Kind = "string"
    required: bool = False


class TemplateForm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A template as POST /api/v1/templates takes it."""

    name: str
    subject: str
    html: str = ""
    text: str = ""
    variables: dict[str, Variable] = {}


class Rendered(msgspec.Struct, frozen=True):
    """A template filled in."""

    subject: str
    html: str
    text: str


class CompiledForm:
    """A template that was read whole; it serves any number of recipients."""

    __slots__ = ("_parts", "variables")

    def __init__(self, parts: dict[str, Template], variables: dict[str, Variable]) -> None:
        """Take the parts by their names; `compile_form` makes them."""
        self._parts, self.variables = parts, variables

    def render(self, given: dict[str, Any]) -> Rendered | tuple[FieldFault, ...]:
        """Fill in variables; the faults name each that is missing or of another type, as "variables.NAME"."""
        faults = check_variables(self.variables, given)
        if faults:
            return faults
        rendered = {}
        for name, template in self._parts.items():
            filled = template.render(given)
            if isinstance(filled, TemplateFault):
                return (FieldFault(name, str(filled)),)
            rendered[name] = filled
        # A subject is one line; where its template has several, they are joined as a person would read them.
        return Rendered(" ".join(rendered["subject"].split()), rendered["html"], rendered["text"])


def read_form(value: object) -> TemplateForm | tuple[FieldFault, ...]:
    """Read a template from what JSON was decoded to; gives all faults of form and type where there is any."""
    return convert_fields(value, TemplateForm)


def compile_form(form: TemplateForm, limits: TemplateLimits) -> CompiledForm | tuple[FieldFault, ...]:
    """Read the parts of a template; the faults say line and column of each part that cannot be read."""
    faults = []
    if not form.name.strip() or len(form.name) > _LONGEST_NAME or not form.name.isprintable():
        faults.append(FieldFault("name", f"1 to {_LONGEST_NAME} characters that can be printed are needed"))
    if not form.html and not form.text:
        faults.append(FieldFault("html", "a body is missing: html, text or both are needed"))
    if len(form.variables) > _MOST_VARIABLES:
        faults.append(FieldFault("variables", f"has {len(form.variables)}; {_MOST_VARIABLES} are allowed"))
    if any(not 0 < len(name) <= _LONGEST_NAME for name in form.variables):
        faults.append(FieldFault("variables", f"names have 1 to {_LONGEST_NAME} characters"))
    parts = {}
    for name, source in (("subject", form.subject), ("html", form.html), ("text", form.text)):
        compiled = compile_template(source, name == "html", limits)
        if isinstance(compiled, TemplateFault):
            faults.append(FieldFault(name, str(compiled)))
        else:
            parts[name] = compiled
    return tuple(faults) if faults else CompiledForm(parts, form.variables)


def check_variables(declared: dict[str, Variable], given: dict[str, Any]) -> tuple[FieldFault, ...]:
    """Give a fault for each variable that is missing or of another type; what was not declared may be anything."""
    faults = []
    for name, variable in declared.items():
        value = _value_of(name, given)
        if value is None:
            if variable.required:
                faults.append(FieldFault(f"variables.{name}", f'the variable "{name}" is missing'))
        elif not isinstance(value, _KINDS[variable.type]) or (isinstance(value, bool) and variable.type != "boolean"):
            wrong = f'the variable "{name}" is {_NAMES[type(value)]}; {_article(variable.type)} is needed'
            faults.append(FieldFault(f"variables.{name}", wrong))
    return tuple(faults)


def _value_of(name: str, given: Any) -> Any:
    """Give a variable's value; a name with dots is a path where nothing has it whole."""
    if name in given:
        return given[name]
    for part in name.split("."):
        given = given.get(part) if isinstance(given, dict) else None
    return given


def _article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aio" else f"a {kind}"


def fill_letter(
    letter: Letter, to: Mailbox, content: Rendered, limits: SubmissionLimits
) -> Letter | tuple[FieldFault, ...]:
    """Make one recipient's letter of one that was checked, whose other fields, and attachments, stay as they are."""
    faults: list[FieldFault] = []
    check_subject(content.subject, limits.subject, faults)
    if not content.html and not content.text:
        faults.append(FieldFault("html", "the template is empty with these variables"))
    if faults:
        return tuple(faults)
    return msgspec.structs.replace(
        letter,
        to=(to,),
        cc=(),
        recipients=(as_recipient(to),),
        subject=content.subject,
        text=content.text,
        html=content.html,
        utf8=letter.utf8 or not to.address.isascii(),
    )
