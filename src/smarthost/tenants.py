"""Tenants that were made over HTTP: kept in the spool, and laid over whom the configuration tells of their mail."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import msgspec

from smarthost.crypto.sealing import SealBroken, Sealer
from smarthost.mail.record import Record, RecordKey
from smarthost.outreach.report_push import ReportPush
from smarthost.policy.client_sync import OutreachTerms, SyncTarget
from smarthost.policy.tenant import ProxyTenant, target_of
from smarthost.reception.http.desks import Unwritten
from smarthost.spool.store import Fault, RecordStore

KIND = "tenant"
_ID = "tenant"  # of the one record that each has
_PAGE = 500
log = logging.getLogger(__name__)


class _Kept(msgspec.Struct, frozen=True):
    """A record's data; `sealed` is the secret by which we are known to the application, b"" for none."""

    tenant: ProxyTenant
    sealed: bytes = b""

    def __repr__(self) -> str:
        return f"_Kept({self.tenant.id!r})"


class Tenants:
    """All tenants that were made over HTTP. `changed` is awaited when others are to be told; on the event loop."""

    def __init__(self, store: RecordStore, box: Callable[[], Sealer], push: ReportPush) -> None:
        """Begin with none; `load` brings them. `box` gives what seals."""
        self._store, self._box, self._push = store, box, push
        self._kept: dict[str, _Kept] = {}
        self._targets: dict[str, SyncTarget] = {}
        self._lock = asyncio.Lock()
        self.changed: Callable[[], Awaitable[None]]

    async def load(self) -> None:
        """Read all tenants; one whose secret cannot be opened is told nothing."""
        after = ("", "")
        while page := await self._store.all(KIND, after, _PAGE):
            for record in page:
                self._take(msgspec.json.decode(record.data, type=_Kept))
            after = (page[-1].tenant, page[-1].id)

    def lay_over(self, terms: OutreachTerms) -> OutreachTerms:
        """Give whom to tell; what the configuration says of a tenant counts more."""
        if not self._targets:
            return terms
        return msgspec.structs.replace(terms, tenants={**self._targets, **terms.tenants})

    def get(self, name: str) -> ProxyTenant | None:
        """Give one tenant."""
        found = self._kept.get(name)
        return found.tenant if found is not None else None

    def all(self) -> list[ProxyTenant]:
        """Give all tenants, by id."""
        return [self._kept[name].tenant for name in sorted(self._kept)]

    async def put(self, tenant: ProxyTenant, secret: str | None = None) -> None:
        """Keep a tenant that was checked, and tell its application from now on; None keeps the secret that there was.

        Raises Unwritten, OSError and ValueError.
        """
        async with self._lock:
            former = self._kept.get(tenant.id)
            sealed = former.sealed if former is not None else b""
            if secret is not None:
                sealed = self._box().seal(secret, tenant.id) if secret else b""
            kept = _Kept(tenant, sealed)
            await self._write(Record(KIND, tenant.id, _ID, msgspec.json.encode(kept)))
            self._take(kept)
            await self.changed()

    async def remove(self, name: str) -> bool:
        """Forget a tenant's settings, not its mail; False when there are none. Raises Unwritten."""
        async with self._lock:
            if name not in self._kept:
                return False
            await self._write(None, (KIND, name, _ID))
            self._kept.pop(name)
            self._targets.pop(name, None)
            await self.changed()
        return True

    def run_now(self, tenant: str) -> bool:
        """Call the application of a tenant at once, "" for all; false when there is none."""
        return self._push.run_now(tenant)

    def is_told(self, tenant: str) -> bool:
        """Say whether everything that happened was told to the application of a tenant; true where it has none."""
        return self._push.is_told(tenant)

    def _take(self, kept: _Kept) -> None:
        name = kept.tenant.id
        self._kept[name] = kept
        self._targets.pop(name, None)
        try:
            secret = self._box().open(kept.sealed, name) if kept.sealed else ""
        except SealBroken:
            log.error("the secret of tenant %s cannot be opened: its application is told nothing", name)
            return
        if (target := target_of(kept.tenant, secret)) is not None:
            self._targets[name] = target

    async def _write(self, record: Record | None, removed: RecordKey | None = None) -> None:
        done: asyncio.Future[Fault | None] = asyncio.get_running_loop().create_future()
        self._store.write(
            (record,) if record else (),
            (removed,) if removed else (),
            lambda fault: None if done.done() else done.set_result(fault),
        )
        if await asyncio.shield(done) is not None:
            raise Unwritten
