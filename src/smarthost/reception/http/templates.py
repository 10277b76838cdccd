"""Templates over HTTP: made, listed, shown, changed, removed, and filled in to be looked at."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from litestar import delete, get, post, put
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, JSONBody, QueryParameter

from smarthost.compose.fault import FieldFault
from smarthost.compose.template_form import Rendered, TemplateForm, Variable
from smarthost.compose.template_record import StoredTemplate, TemplateSummary
from smarthost.mail.key import Scope
from smarthost.queue.templates import NameTaken, Templates, TemplatesUnwritable
from smarthost.reception.http.asking import Asking, caller_of, parts_of
from smarthost.reception.http.problem import Refused, disk_full, not_found, wrong_fields
from smarthost.reception.http.routes import NEEDS

Cursor = Annotated[str, QueryParameter(description="next_cursor of the page before", max_length=64)]
Limit = Annotated[int, QueryParameter(ge=1, le=500)]
Name = Annotated[str, QueryParameter(description="only the template of this name", max_length=200)]


class ListedTemplate(msgspec.Struct, frozen=True, kw_only=True):
    """A template in a list, without its bodies; `revision` counts its changes, from 1."""

    id: str
    name: str
    subject: str
    variables: dict[str, Variable]
    created_at: datetime
    updated_at: datetime
    revision: int


class ShownTemplate(ListedTemplate, frozen=True, kw_only=True):
    """A template whole."""

    html: str
    text: str


class TemplateList(msgspec.Struct, frozen=True):
    """Templates of a tenant, oldest first; `next_cursor` is for the request that goes on, null at the end."""

    templates: list[ListedTemplate]
    next_cursor: str | None = None


class PreviewWish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a template is filled in with."""

    variables: dict[str, Any] = {}


@post("/api/v1/templates", opt={NEEDS: Scope.ADMIN})
async def make_template(request: Asking, data: JSONBody[TemplateForm]) -> ShownTemplate:
    """Make a template. Its name is its own within the tenant; 409 where another one has it."""
    try:
        made = await _templates(request).add(caller_of(request).tenant, data)
    except TemplatesUnwritable:
        raise disk_full() from None
    return _made(made)


@get("/api/v1/templates", opt={NEEDS: Scope.READ})
async def list_templates(request: Asking, cursor: Cursor = "", limit: Limit = 50, name: Name = "") -> TemplateList:
    """List the tenant's templates, without their bodies."""
    templates, tenant = _templates(request), caller_of(request).tenant
    if name:
        found = await templates.named(tenant, name)
        return TemplateList([ListedTemplate(**_listed(found))] if found is not None else [])
    rows = await templates.page(tenant, cursor, limit + 1)
    shown = [ListedTemplate(**_listed(row)) for row in rows[:limit]]
    return TemplateList(shown, shown[-1].id if len(rows) > limit else None)


@get("/api/v1/templates/{template_id:str}", opt={NEEDS: Scope.READ})
async def show_template(request: Asking, template_id: FromPath[str]) -> ShownTemplate:
    """Show a template whole."""
    found = await _templates(request).get(caller_of(request).tenant, template_id)
    if found is None:
        raise not_found("template")
    return _shown(found)


@put("/api/v1/templates/{template_id:str}", opt={NEEDS: Scope.ADMIN})
async def change_template(request: Asking, template_id: FromPath[str], data: JSONBody[TemplateForm]) -> ShownTemplate:
    """Put another template in the place of this one; what is left out is empty from then on."""
    try:
        made = await _templates(request).replace(caller_of(request).tenant, template_id, data)
    except TemplatesUnwritable:
        raise disk_full() from None
    return _made(made)


@delete("/api/v1/templates/{template_id:str}", opt={NEEDS: Scope.ADMIN})
async def remove_template(request: Asking, template_id: FromPath[str]) -> None:
    """Remove a template. What was made of it before stays as it is."""
    try:
        found = await _templates(request).remove(caller_of(request).tenant, template_id)
    except TemplatesUnwritable:
        raise disk_full() from None
    if not found:
        raise not_found("template")


@post("/api/v1/templates/{template_id:str}/preview", opt={NEEDS: Scope.READ}, status_code=200)
async def preview_template(request: Asking, template_id: FromPath[str], data: JSONBody[PreviewWish]) -> Rendered:
    """Fill a template in, and send nothing."""
    ready = await _templates(request).ready(caller_of(request).tenant, template_id)
    if ready is None:
        raise not_found("template")
    rendered = await asyncio.to_thread(ready.render, data.variables)
    if isinstance(rendered, tuple):
        raise wrong_fields(rendered)
    return rendered


def _templates(request: Asking) -> Templates:
    return parts_of(request).templates


def _made(made: StoredTemplate | tuple[FieldFault, ...] | NameTaken | None) -> ShownTemplate:
    """Give what is shown of a template that was kept; raises Refused where it was not."""
    if made is None:
        raise not_found("template")
    if isinstance(made, NameTaken):
        taken = f"the template {made.id} has this name"
        raise Refused(409, taken, errors=[("name", taken)])
    if isinstance(made, tuple):
        raise wrong_fields(made)
    return _shown(made)


def _shown(template: StoredTemplate) -> ShownTemplate:
    return ShownTemplate(**_listed(template), html=template.html, text=template.text)


def _listed(template: TemplateSummary) -> dict[str, Any]:
    return {
        "id": template.id,
        "name": template.name,
        "subject": template.subject,
        "variables": template.variables,
        "created_at": datetime.fromtimestamp(template.created, UTC),
        "updated_at": datetime.fromtimestamp(template.updated, UTC),
        "revision": template.revision,
    }


TEMPLATES: tuple[HTTPRouteHandler, ...] = (
    make_template,
    list_templates,
    show_template,
    change_template,
    remove_template,
    preview_template,
)
