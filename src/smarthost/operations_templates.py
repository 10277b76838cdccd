"""Operations on templates, for a person with the control socket, who is the operator: of every tenant."""

from collections.abc import AsyncIterator, Sequence

import msgspec

from smarthost.compose.fault import FieldFault
from smarthost.compose.template_form import read_form
from smarthost.compose.template_record import StoredTemplate, TemplateSummary
from smarthost.control_template_verbs import NewTemplate, TemplateName, TemplatePreview, TemplatesOf
from smarthost.control_verbs import Refusal, Row
from smarthost.mail.key import DEFAULT_TENANT, TENANT
from smarthost.queue.templates import NameTaken, Templates, TemplatesUnwritable
from smarthost.report.timestamp import format_time

PAGE = 100  # templates that are read at a time


class TemplateOperations:
    """Implements `control_template_verbs.TemplateOperations`."""

    def __init__(self, templates: Templates) -> None:
        """Act on the templates of a relay."""
        self._templates = templates

    async def rows(self, asked: TemplatesOf) -> AsyncIterator[Row]:
        """Give a tenant's templates without their bodies, oldest first."""
        tenant, after = _tenant(asked.tenant), ""
        while page := await self._templates.page(tenant, after, PAGE):
            after = page[-1].id
            for template in page:
                yield _row(tenant, template)

    async def add(self, asked: NewTemplate) -> Row:
        """Make a template, or put it in the place of the one with its name; gives it whole."""
        tenant, form = _tenant(asked.tenant), read_form(asked.form)
        if isinstance(form, tuple):
            raise _wrong(form)
        try:
            made = await self._templates.add(tenant, form)
            if isinstance(made, NameTaken) and asked.replaces:
                made = await self._templates.replace(tenant, made.id, form) or made
        except TemplatesUnwritable as fault:
            raise Refusal(503, "Not written", str(fault)) from None
        if isinstance(made, NameTaken):
            raise Refusal(409, "Name taken", f"there is a template of the name {form.name!r} already: {made.id}")
        if isinstance(made, tuple):
            raise _wrong(made)
        return _whole(tenant, made)

    async def show(self, asked: TemplateName) -> Row:
        """Give a template whole."""
        return _whole(_tenant(asked.tenant), await self._find(asked.tenant, asked.name))

    async def preview(self, asked: TemplatePreview) -> Row:
        """Fill a template in; gives subject, html and text."""
        found = await self._find(asked.tenant, asked.name)
        ready = await self._templates.ready(_tenant(asked.tenant), found.id)
        if ready is None:
            raise _unknown(asked.name)
        rendered = ready.render(asked.variables)
        if isinstance(rendered, tuple):
            raise _wrong(rendered)
        return msgspec.structs.asdict(rendered)

    async def remove(self, asked: TemplateName) -> Row:
        """Remove a template; gives it as it was, without its bodies."""
        tenant, found = _tenant(asked.tenant), await self._find(asked.tenant, asked.name)
        try:
            is_removed = await self._templates.remove(tenant, found.id)
        except TemplatesUnwritable as fault:
            raise Refusal(503, "Not written", str(fault)) from None
        if not is_removed:
            raise _unknown(asked.name)
        return _row(tenant, found)

    async def _find(self, tenant: str, name: str) -> StoredTemplate:
        owner = _tenant(tenant)
        found = await self._templates.named(owner, name) or await self._templates.get(owner, name.upper())
        if found is None:
            raise _unknown(name)
        return found


def _tenant(named: str) -> str:
    tenant = named or DEFAULT_TENANT
    if TENANT.fullmatch(tenant) is None:
        raise Refusal(400, "No tenant", f"{tenant[:80]!r}: 1 to 64 letters a-z, digits and dashes are allowed")
    return tenant


def _wrong(faults: Sequence[FieldFault]) -> Refusal:
    told = "; ".join(f"{fault.field}: {fault.message}" if fault.field else fault.message for fault in faults)
    return Refusal(422, "Not allowed", told)


def _unknown(name: str) -> Refusal:
    return Refusal(404, "No such template", f"{name[:80]!r} is no template; smarthost template list has them")


def _row(tenant: str, template: TemplateSummary) -> Row:
    return {
        "id": template.id,
        "tenant": tenant,
        "name": template.name,
        "subject": template.subject,
        "variables": msgspec.to_builtins(template.variables),
        "created": format_time(template.created),
        "updated": format_time(template.updated),
        "revision": template.revision,
    }


def _whole(tenant: str, template: StoredTemplate) -> Row:
    return _row(tenant, template) | {"html": template.html, "text": template.text}
