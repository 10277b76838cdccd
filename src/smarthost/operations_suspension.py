"""Operations on suspensions: sites, routes, users and batches that send nothing for now; kept over a restart."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from smarthost.assembly import Relay
from smarthost.control_verbs import Refusal, Resume, Row, Suspend
from smarthost.policy.suspension import Suspension, SuspensionKind, batch_name, batch_tag
from smarthost.reception.http.desks import Unwritten
from smarthost.report.timestamp import format_end, format_time
from smarthost.spool.store import Fault, Filter
from smarthost.spool.suspension_file import read_suspensions, write_suspensions

log = logging.getLogger(__name__)

EVERYTHING = "*"
PATIENCE = 5.0  # seconds for which what is on its way to the disk is waited for
FILE = "suspensions.json"
DAMAGED = "suspensions.json.damaged"
_WAY_OUT = f"suspend anew what shall wait ({DAMAGED} may tell), then: smarthost resume site '*'"

_OF_MAIL = (SuspensionKind.USER, SuspensionKind.BATCH)


class PauseOperations:
    """Implements `control_verbs.SuspensionOperations`; a change is on disk before it has an effect."""

    def __init__(self, relay: Relay) -> None:
        """Join the parts."""
        self._relay = relay
        self._path = Path(relay.config.data_directory) / FILE
        self._turn = asyncio.Lock()

    def restore(self) -> None:
        """Take what a life before has kept. With a damaged file every site is suspended until a person resumes it.

        Mail that must not leave does not leave then, and all other mail is accepted and waits; the file is set aside.
        """
        try:
            known = read_suspensions(self._path)
        except (ValueError, OSError) as fault:
            log.error("what was suspended is not known any more, so nothing is sent: %s; %s", fault, _WAY_OUT)
            self._relay.counters.found_damaged("suspensions")
            known = [Suspension(SuspensionKind.SITE, "*", self._relay.clock(), None, f"{FILE} is damaged; {_WAY_OUT}")]
            self._set_aside(known)
        self._relay.suspender.restore(known)

    def _set_aside(self, known: list[Suspension]) -> None:
        """Keep the damaged file under another name, and write what holds now, so that it outlives this life, too."""
        try:
            self._path.replace(self._path.with_name(DAMAGED))
            write_suspensions(self._path, known)
        except OSError as fault:
            log.error("%s cannot be written: %s", self._path, fault.strerror or fault)

    async def rows(self) -> AsyncIterator[Row]:
        """Give all suspensions."""
        for suspension in self._relay.suspender.suspensions.all:
            yield _row(suspension)

    async def suspend(self, asked: Suspend) -> Row:
        """Suspend a site, a route, a user or a batch; what is in delivery ends."""
        relay, now = self._relay, self._relay.clock()
        kind = _kind(asked.kind)
        names: list[str] = [asked.name]
        if kind in (SuspensionKind.ROUTE, SuspensionKind.USER):
            names = [*(relay.rules.routing.routes if kind is SuspensionKind.ROUTE else relay.rules.edit.users)]
        if asked.name not in names:
            raise Refusal(404, f"No such {kind}", f"there is no {kind} {asked.name!r}; there are: {', '.join(names)}")
        if not asked.name:
            raise Refusal(400, "No name", f"which {kind}?")
        if kind is SuspensionKind.BATCH and not all(asked.name.partition("/")):
            raise Refusal(400, "No such batch", f"{asked.name[:80]!r}: a batch is named as user/tag")
        suspension = Suspension(kind, asked.name, now, now + asked.seconds if asked.seconds else None, asked.reason)
        return await self._put(suspension)

    async def _put(self, suspension: Suspension) -> Row:
        relay, kind, name = self._relay, suspension.kind, suspension.name
        async with self._turn:
            others = [each for each in relay.suspender.suspensions.all if (each.kind, each.name) != (kind, name)]
            await self._write([*others, suspension])
            relay.suspender.suspend(suspension)
        if kind in _OF_MAIL:
            # What an earlier word has put off follows the new one.
            await relay.operator.resume(_mail_of(suspension))
        if kind is SuspensionKind.USER:
            await relay.operator.put_off(_mail_of(suspension), suspension.ends, suspension.text)
        return _row(suspension)

    async def resume(self, asked: Resume) -> Row:
        """Let a site, a route, a user or a batch send again."""
        relay, kind = self._relay, _kind(asked.kind)
        mail = _mail_of(Suspension(kind, asked.name, 0.0)) if kind in _OF_MAIL else None
        async with self._turn:
            others = [each for each in relay.suspender.suspensions.all if (each.kind, each.name) != (kind, asked.name)]
            if len(others) == len(relay.suspender.suspensions.all):
                if mail is not None and (await relay.operator.resume(mail))["entries"]:
                    # Its mail was put off by a suspension that the file, lost or taken away, does not tell of any more.
                    return _row(Suspension(kind, asked.name, relay.clock()))
                raise Refusal(404, "Not suspended", f"{kind} {asked.name!r} is not suspended")
            await self._write(others)
            suspension = relay.suspender.resume(kind, asked.name)
        if mail is not None:
            await self._settled()
            await relay.operator.resume(mail)
        return _row(suspension) if suspension is not None else {}

    async def _settled(self) -> None:
        """Wait until what was put off before now is on disk, where it is found; not for ever on a full one."""
        done: asyncio.Future[Fault | None] = asyncio.get_running_loop().create_future()
        self._relay.spool.records.write((), (), lambda fault: None if done.done() else done.set_result(fault))
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await done

    def suspended(self, tenant: str) -> list[str]:
        """Give what is suspended of a tenant: "*" for everything, else its batches, as it calls them."""
        known = self._relay.suspender.suspensions.all
        if any(each.kind is SuspensionKind.USER and each.name == tenant for each in known):
            return [EVERYTHING]
        mine = [each for each in known if each.kind is SuspensionKind.BATCH and each.name.partition("/")[0] == tenant]
        return sorted(each.batch_code or each.name.partition("/")[2] for each in mine)

    async def suspend_tenant(self, tenant: str, batch_code: str = "") -> None:
        """Let a tenant's mail wait, or that of one of its batches; raises Unwritten."""
        kind, name = _place(tenant, batch_code)
        code = batch_code if batch_tag(batch_code) != batch_code else ""
        with _unwritten():
            await self._put(Suspension(kind, name, self._relay.clock(), None, "asked for over HTTP", code))

    async def resume_tenant(self, tenant: str, batch_code: str = "") -> bool:
        """Let a batch of a tenant send again, or everything; false when a batch cannot, as everything is suspended.

        Raises Unwritten.
        """
        if batch_code and self.suspended(tenant) == [EVERYTHING]:
            return False
        mine = [
            each
            for each in self._relay.suspender.suspensions.all
            if (each.kind is SuspensionKind.USER and each.name == tenant)
            or (each.kind is SuspensionKind.BATCH and each.name.partition("/")[0] == tenant)
        ]
        chosen = [each for each in mine if not batch_code or each.name == _place(tenant, batch_code)[1]]
        for each in chosen:
            with _unwritten():
                await self.resume(Resume(kind=str(each.kind), name=each.name))
        return True

    async def _write(self, suspensions: list[Suspension]) -> None:
        try:
            await asyncio.to_thread(write_suspensions, self._path, suspensions)
        except OSError as fault:
            raise Refusal(500, "Not written", f"{self._path}: {fault.strerror or fault}; nothing was changed") from None


@contextmanager
def _unwritten() -> Iterator[None]:
    """Say of what cannot be written that nothing has changed; what somebody else has resumed is resumed."""
    try:
        yield
    except Refusal as refusal:
        if refusal.status >= 500:
            raise Unwritten from refusal


def _place(tenant: str, batch_code: str) -> tuple[SuspensionKind, str]:
    if not batch_code:
        return SuspensionKind.USER, tenant
    return SuspensionKind.BATCH, batch_name(tenant, batch_tag(batch_code))


def _mail_of(suspension: Suspension) -> Filter:
    user, _, tag = suspension.name.partition("/")
    return Filter(user=user, tag=tag) if suspension.kind is SuspensionKind.BATCH else Filter(user=suspension.name)


def _kind(text: str) -> SuspensionKind:
    try:
        return SuspensionKind(text)
    except ValueError:
        raise Refusal(400, "No such kind", f"{text[:80]!r}: there are {', '.join(SuspensionKind)}") from None


def _row(suspension: Suspension) -> Row:
    return {
        "kind": str(suspension.kind),
        "name": suspension.name,
        "since": format_time(suspension.since),
        "until": format_end(suspension.until),
        "reason": suspension.reason,
    }
