"""Accounts of the running relay: kept in the spool with their passwords sealed, and laid over the configuration."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import msgspec

from smarthost.config import Config, Login
from smarthost.crypto.sealing import SealBroken, Sealer, load_master_key
from smarthost.mail.record import Record
from smarthost.mail.route import Route
from smarthost.policy.account import Behavior, UpstreamAccount, limit_of, rates_of, route_name, route_of
from smarthost.policy.ledger import Ledger
from smarthost.policy.rate import Cells, parse_rate
from smarthost.reception.http.desks import Unwritten
from smarthost.report.account_metrics import label_of
from smarthost.spool.store import Fault, RecordStore

KIND = "account"
KEY_FILE = "secrets.key"  # in the data directory
_PAGE = 500
log = logging.getLogger(__name__)


class _Kept(msgspec.Struct, frozen=True):
    """A record's data; `sealed` is the password, b"" where there is none."""

    account: UpstreamAccount
    sealed: bytes = b""

    def __repr__(self) -> str:
        return f"_Kept({self.account!r})"


class Accounts:
    """All accounts. `changed` is told the names of routes that are new or different; mutable, on the event loop."""

    def __init__(self, store: RecordStore, data_directory: Path, ledger: Ledger, clock: Callable[[], float]) -> None:
        """Begin with none; `load` brings them."""
        self._store, self._ledger, self._clock = store, ledger, clock
        self._key_file = data_directory / KEY_FILE
        self._sealer: Sealer | None = None
        self._kept: dict[str, tuple[str, _Kept]] = {}  # by route: tenant and account
        self._logins: dict[str, Login] = {}
        self._cells: dict[str, Cells] = {}
        self._lock = asyncio.Lock()
        self.changed: Callable[[set[str]], None] = lambda routes: None

    async def load(self) -> None:
        """Read all accounts; one whose password cannot be opened is left out, so that its mail is held.

        Raises OSError and ValueError when the key cannot be read.
        """
        after = ("", "")
        while page := await self._store.all(KIND, after, _PAGE):
            for record in page:
                self._take(record.tenant, msgspec.json.decode(record.data, type=_Kept))
            after = (page[-1].tenant, page[-1].id)

    def lay_over(self, config: Config) -> Config:
        """Give a configuration with the routes, limits and logins of all accounts."""
        if not self._kept:
            return config
        routes: list[Route] = []
        limits = list(config.limits)
        for tenant, kept in self._kept.values():
            routes.append(route_of(tenant, kept.account, bool(kept.sealed)))
            limits.append(limit_of(tenant, kept.account))
        return msgspec.structs.replace(
            config,
            account_routes=tuple(routes),
            limits=tuple(limits),
            credentials={**config.credentials, **self._logins},
        )

    def of(self, tenant: str) -> list[UpstreamAccount]:
        """Give a tenant's accounts, by id."""
        found = [kept.account for owner, kept in self._kept.values() if owner == tenant]
        return sorted(found, key=lambda account: account.id)

    @property
    def labels(self) -> list[str]:
        """The names of all accounts in metrics."""
        return [label_of(tenant, kept.account.id) for tenant, kept in list(self._kept.values())]

    def get(self, tenant: str, name: str) -> UpstreamAccount | None:
        """Give one account of a tenant; None when it has none of that id."""
        found = self._kept.get(route_name(tenant, name))
        return found[1].account if found is not None else None

    def has(self, tenant: str, name: str) -> bool:
        """Say whether a tenant has an account of an id."""
        return route_name(tenant, name) in self._kept

    async def upsert(self, tenant: str, account: UpstreamAccount, password: str | None = None) -> bool:
        """Make an account durable and follow it; None keeps the password that there was. Gives whether it is new.

        The account was checked (`policy.account.check_account`). Raises Unwritten, OSError and ValueError.
        """
        name = route_name(tenant, account.id)
        async with self._lock:
            former = self._kept.get(name)
            sealed = former[1].sealed if former is not None else b""
            if password is not None:
                sealed = self._seal(password, name)
            kept = _Kept(account, sealed)
            await self._write(Record(KIND, tenant, account.id, msgspec.json.encode(kept)))
            self._take(tenant, kept)
        self.changed({name})
        return former is None

    async def remove(self, tenant: str, name: str) -> bool:
        """Remove an account; mail that waits for it is held. False when there is none; raises Unwritten."""
        route = route_name(tenant, name)
        async with self._lock:
            if route not in self._kept:
                return False
            await self._write(None, (KIND, tenant, name))
            for known in (self._kept, self._logins, self._cells):
                known.pop(route, None)
        self.changed({route})
        return True

    def wait(self, tenant: str, name: str) -> float:
        """Give the seconds until an account takes another message at the door; 0.0 also where it lets mail wait."""
        return 0.0 if self._lets_wait(tenant, name) else self._wait(tenant, name)

    def deferred(self, tenant: str, name: str) -> float:
        """Give the seconds for which the next message waits for an account's limit; 0.0 where it need not."""
        return self._wait(tenant, name) if self._lets_wait(tenant, name) else 0.0

    def _wait(self, tenant: str, name: str) -> float:
        cells = self._cells.get(route_name(tenant, name))
        return cells.wait(self._clock()) if cells is not None else 0.0

    def _lets_wait(self, tenant: str, name: str) -> bool:
        account = self.get(tenant, name)
        return account is not None and account.limit_behavior is Behavior.DEFER

    def take(self, tenant: str, name: str) -> None:
        """Count a message that was taken for an account."""
        cells = self._cells.get(route_name(tenant, name))
        if cells is not None:
            cells.take(self._clock())

    def _take(self, tenant: str, kept: _Kept) -> None:
        account = kept.account
        name = route_name(tenant, account.id)
        try:
            password = self._box().open(kept.sealed, name) if kept.sealed else ""
        except SealBroken:
            log.error("the password of account %s of %s cannot be opened: give it again", account.id, tenant)
            return
        self._kept[name] = tenant, kept
        self._logins.pop(name, None)
        if account.user:
            self._logins[name] = Login(account.user, password)
        self._cells.pop(name, None)
        if rates := rates_of(account):
            # Not strict, as for users: what is counted here is written beside the message that is accepted.
            self._cells[name] = self._ledger.cells(f"door {name}", map(parse_rate, rates), is_strict=False)

    def _seal(self, password: str, owner: str) -> bytes:
        return self._box().seal(password, owner) if password else b""

    def _box(self) -> Sealer:
        if self._sealer is None:
            self._sealer = Sealer(load_master_key(self._key_file), KIND)
        return self._sealer

    async def _write(self, record: Record | None, removed: tuple[str, str, str] | None = None) -> None:
        done: asyncio.Future[Fault | None] = asyncio.get_running_loop().create_future()
        self._store.write(
            (record,) if record else (),
            (removed,) if removed else (),
            lambda fault: None if done.done() else done.set_result(fault),
        )
        if await asyncio.shield(done) is not None:
            raise Unwritten
