"""Control verbs about templates: what a person may ask of the running relay, and with which arguments."""

from collections.abc import AsyncIterator
from typing import Any, Protocol

import msgspec

Row = dict[str, Any]


class TemplateOperations(Protocol):
    """What a person may do with the templates of every tenant. `name` is a name or an id, `tenant` "" the default one.

    Each raises Refusal: 404 where there is no such template, 409 for a name that is taken, 422 for what is wrong with a
    template or its variables.
    """

    def rows(self, asked: "TemplatesOf") -> AsyncIterator[Row]:
        """Give a tenant's templates without their bodies, oldest first."""

    async def add(self, asked: "NewTemplate") -> Row:
        """Make a template, or put it in the place of the one with its name; gives it whole."""

    async def show(self, asked: "TemplateName") -> Row:
        """Give a template whole."""

    async def preview(self, asked: "TemplatePreview") -> Row:
        """Fill a template in; gives subject, html and text."""

    async def remove(self, asked: "TemplateName") -> Row:
        """Remove a template; gives it as it was, without its bodies."""


class TemplatesOf(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose templates are meant."""

    tenant: str = ""


class NewTemplate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A template to be made, as POST /api/v1/templates takes it; with `replaces` one of that name gives way."""

    form: dict[str, Any]
    tenant: str = ""
    replaces: bool = False


class TemplateName(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which template is meant, by its name or its id."""

    name: str
    tenant: str = ""


class TemplatePreview(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which template is filled in, and with what."""

    name: str
    tenant: str = ""
    variables: dict[str, Any] = {}
