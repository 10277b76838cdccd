"""Templates: Handlebars for subject, HTML and text; made, changed, listed, and filled in to be looked at."""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

import msgspec

from smarthost.client.call import Call, Page, as_json, get, no_answer, post, reader, segment

_PAGE = 100  # templates that are asked for at a time
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Variable(msgspec.Struct, frozen=True):
    """What a template says of a variable.

    `type` is "string", "number", "integer", "boolean", "array" or "object".
    """

    type: str = "string"
    required: bool = False


class NewTemplate(msgspec.Struct, frozen=True, kw_only=True):
    """A template to be kept: `html`, `text` or both are needed."""

    name: str
    subject: str
    html: str = ""
    text: str = ""
    variables: Mapping[str, Variable] = {}


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """A template as it is kept; `revision` counts its changes, from 1. Lists leave `html` and `text` out."""

    id: str
    name: str
    subject: str
    html: str = ""
    text: str = ""
    variables: dict[str, Variable] = {}
    created_at: datetime | None = None
    updated_at: datetime | None = None
    revision: int = 0


class Rendered(msgspec.Struct, frozen=True):
    """A template filled in."""

    subject: str
    html: str = ""
    text: str = ""


class _TemplateList(msgspec.Struct, frozen=True):
    templates: list[Template]
    next_cursor: str | None = None


_READ_ONE, _READ_LIST, _READ_RENDERED = reader(Template), reader(_TemplateList), reader(Rendered)


def make(template: NewTemplate) -> Call[Template]:
    """Keep a template. Raises Conflict where another one has its name, Invalid where it cannot be read."""
    return post("/templates", _READ_ONE, template)


def list_templates(*, name: str = "", cursor: str = "") -> Call[Page[Template]]:
    """Give the templates of the tenant, oldest first, or that of a name; without their bodies."""

    def read(octets: bytes) -> Page[Template]:
        listed = _READ_LIST(octets)
        following = list_templates(name=name, cursor=listed.next_cursor) if listed.next_cursor else None
        return Page(listed.templates, following, listed.next_cursor or "")

    return get("/templates", read, name=name, cursor=cursor, limit=_PAGE)


def show(id: str) -> Call[Template]:
    """Give a template whole."""
    return get(f"/templates/{segment(id)}", _READ_ONE)


def change(id: str, template: NewTemplate) -> Call[Template]:
    """Put another template in the place of this one."""
    path = f"/templates/{segment(id)}"
    return Call(method="PUT", path=path, read=_READ_ONE, content=as_json(template))


def remove(id: str) -> Call[None]:
    """Remove a template. What was made of it before stays as it is."""
    return Call(method="DELETE", path=f"/templates/{segment(id)}", read=no_answer)


def preview(id: str, variables: Mapping[str, Any] = _NOTHING) -> Call[Rendered]:
    """Fill a template in, and send nothing. Raises Invalid where a variable is missing or of another type."""
    content = as_json({"variables": dict(variables)})
    path = f"/templates/{segment(id)}/preview"
    return Call(method="POST", path=path, read=_READ_RENDERED, content=content, repeats=True)
