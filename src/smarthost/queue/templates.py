"""Keeps the templates of all tenants: made, changed and removed, and given out ready to be filled in."""

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from smarthost.compose.fault import FieldFault
from smarthost.compose.template import TemplateLimits
from smarthost.compose.template_form import CompiledForm, TemplateForm, compile_form
from smarthost.compose.template_record import (
    StoredTemplate,
    TemplateSummary,
    make_template,
    read_summary,
    read_template,
    write_template,
)
from smarthost.mail.message import MessageIds, format_id
from smarthost.mail.record import Record, RecordKey
from smarthost.spool.store import Fault, RecordStore

KIND = "template"
NAMES = "template_name"  # the id by the name: what makes a name unique within its tenant
MOST_TEMPLATES = 10_000  # of one tenant
MOST_READY = 64  # templates that are kept ready in memory
PAGE = 20  # templates that are read at a time: each may have a megabyte


class TemplatesUnwritable(OSError):
    """A template could not be written, as when the disk is full; nothing has changed."""


class NameTaken(msgspec.Struct, frozen=True):
    """Another template of the tenant has the name: its id."""

    id: str


class Templates:
    """All templates, on disk; what was filled in lately is ready in memory. Only this object writes them."""

    def __init__(self, records: RecordStore, clock: Callable[[], float], limits: TemplateLimits | None = None) -> None:
        """Have nothing ready yet; `clock` gives Unix seconds."""
        self._records, self._clock = records, clock
        self._limits = limits or TemplateLimits()
        self._ids = MessageIds()
        self._turn = asyncio.Lock()  # a name is looked up and taken by one at a time
        self._ready: dict[tuple[str, str], tuple[bytes, CompiledForm]] = {}

    async def page(self, tenant: str, after: str = "", limit: int = 100) -> list[TemplateSummary]:
        """Give at most `limit` of a tenant's templates behind an id, oldest first, without their bodies."""
        found: list[TemplateSummary] = []
        while len(found) < limit:
            rows = await self._records.page(KIND, tenant, after, min(PAGE, limit - len(found)))
            if not rows:
                break
            after = rows[-1].id
            found += [read_summary(row.data) for row in rows]
        return found

    async def get(self, tenant: str, identity: str) -> StoredTemplate | None:
        """Give a tenant's template by its id."""
        data = await self._data(tenant, identity)
        return read_template(data) if data is not None else None

    async def named(self, tenant: str, name: str) -> StoredTemplate | None:
        """Give a tenant's template by its name."""
        identity = await self._owner_of(tenant, name)
        return await self.get(tenant, identity) if identity is not None else None

    async def ready(self, tenant: str, identity: str) -> CompiledForm | None:
        """Give a tenant's template to be filled in, as it is now; None when there is none.

        The record is read each time, so that nothing old is ever given; reading its Handlebars is what is saved.
        """
        data = await self._data(tenant, identity)
        if data is None:
            return None
        key = (tenant, identity)
        kept = self._ready.pop(key, None)
        if kept is None or kept[0] != data:
            compiled = await asyncio.to_thread(compile_form, read_template(data).form, self._limits)
            if not isinstance(compiled, CompiledForm):
                raise ValueError(f"template {identity} of {tenant} cannot be read: {compiled[0].message}")
            kept = data, compiled
        self._ready[key] = kept
        if len(self._ready) > MOST_READY:
            del self._ready[next(iter(self._ready))]
        return kept[1]

    async def add(self, tenant: str, form: TemplateForm) -> StoredTemplate | tuple[FieldFault, ...] | NameTaken:
        """Make a template, or say what is wrong with it. Raises TemplatesUnwritable."""
        if faults := await self._faults(form):
            return faults
        async with self._turn:
            if (taken := await self._owner_of(tenant, form.name)) is not None:
                return NameTaken(taken)
            if await self._records.count(KIND, tenant) >= MOST_TEMPLATES:
                return (FieldFault("", f"there are {MOST_TEMPLATES} templates; more are not allowed"),)
            now = self._clock()
            identity = format_id(self._ids.mint(now))
            while await self._data(tenant, identity) is not None:
                identity = format_id(self._ids.mint(now))
            template = make_template(form, identity, now)
            await self._write(_records_of(tenant, template))
            return template

    async def replace(
        self, tenant: str, identity: str, form: TemplateForm
    ) -> StoredTemplate | tuple[FieldFault, ...] | NameTaken | None:
        """Put another form in the place of a template's; None when there is none. Raises TemplatesUnwritable."""
        if faults := await self._faults(form):
            return faults
        async with self._turn:
            before = await self.get(tenant, identity)
            if before is None:
                return None
            if (taken := await self._owner_of(tenant, form.name)) not in (None, identity):
                return NameTaken(str(taken))
            template = make_template(form, identity, self._clock(), before)
            gone = [(NAMES, tenant, before.name)] if before.name != form.name else []
            await self._write(_records_of(tenant, template), gone)
            return template

    async def remove(self, tenant: str, identity: str) -> bool:
        """Remove a template; False when there is none. Raises TemplatesUnwritable."""
        async with self._turn:
            template = await self.get(tenant, identity)
            if template is None:
                return False
            await self._write([], [(KIND, tenant, identity), (NAMES, tenant, template.name)])
            self._ready.pop((tenant, identity), None)
            return True

    async def _faults(self, form: TemplateForm) -> tuple[FieldFault, ...]:
        compiled = await asyncio.to_thread(compile_form, form, self._limits)
        return compiled if isinstance(compiled, tuple) else ()

    async def _owner_of(self, tenant: str, name: str) -> str | None:
        key = (NAMES, tenant, name)
        row = (await self._records.find([key])).get(key)
        return row.data.decode() if row is not None else None

    async def _data(self, tenant: str, identity: str) -> bytes | None:
        key = (KIND, tenant, identity)
        row = (await self._records.find([key])).get(key)
        return row.data if row is not None else None

    async def _write(self, kept: Sequence[Record], removed: Sequence[RecordKey] = ()) -> None:
        written: asyncio.Future[Fault | None] = asyncio.get_running_loop().create_future()
        self._records.write(kept, removed, done=written.set_result)
        if (fault := await asyncio.shield(written)) is not None:
            raise TemplatesUnwritable(f"the template could not be written: {fault}")


def _records_of(tenant: str, template: StoredTemplate) -> list[Record]:
    return [
        Record(KIND, tenant, template.id, write_template(template)),
        Record(NAMES, tenant, template.name, template.id.encode()),
    ]
