"""Operations on suspensions, for a person: sites, routes and users that send nothing for now; kept over a restart."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

from smarthost.assembly import Relay
from smarthost.control_verbs import Refusal, Resume, Row, Suspend
from smarthost.policy.suspension import Suspension, SuspensionKind
from smarthost.report.timestamp import format_end, format_time
from smarthost.spool.store import Filter
from smarthost.spool.suspension_file import read_suspensions, write_suspensions

log = logging.getLogger(__name__)

FILE = "suspensions.json"
DAMAGED = "suspensions.json.damaged"
_WAY_OUT = f"suspend anew what shall wait ({DAMAGED} may tell), then: smarthost resume site '*'"


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
        """Suspend a site, a route or a user; what is in delivery ends."""
        relay, now = self._relay, self._relay.clock()
        kind = _kind(asked.kind)
        names: list[str] = [asked.name]
        if kind is not SuspensionKind.SITE:
            names = [*(relay.rules.routing.routes if kind is SuspensionKind.ROUTE else relay.rules.edit.users)]
        if asked.name not in names:
            raise Refusal(404, f"No such {kind}", f"there is no {kind} {asked.name!r}; there are: {', '.join(names)}")
        if not asked.name:
            raise Refusal(400, "No name", f"which {kind}?")
        suspension = Suspension(kind, asked.name, now, now + asked.seconds if asked.seconds else None, asked.reason)
        async with self._turn:
            others = [each for each in relay.suspender.suspensions.all if (each.kind, each.name) != (kind, asked.name)]
            await self._write([*others, suspension])
            relay.suspender.suspend(suspension)
        if kind is SuspensionKind.USER:
            # What an earlier word has put off follows the new one.
            await relay.operator.resume(Filter(user=asked.name))
            await relay.operator.put_off(Filter(user=asked.name), suspension.ends, suspension.text)
        return _row(suspension)

    async def resume(self, asked: Resume) -> Row:
        """Let a site, a route or a user send again."""
        relay, kind = self._relay, _kind(asked.kind)
        async with self._turn:
            others = [each for each in relay.suspender.suspensions.all if (each.kind, each.name) != (kind, asked.name)]
            if len(others) == len(relay.suspender.suspensions.all):
                if kind is SuspensionKind.USER and (await relay.operator.resume(Filter(user=asked.name)))["entries"]:
                    # Its mail was put off by a suspension that the file, lost or taken away, does not tell of any more.
                    return _row(Suspension(kind, asked.name, relay.clock()))
                raise Refusal(404, "Not suspended", f"{kind} {asked.name!r} is not suspended")
            await self._write(others)
            suspension = relay.suspender.resume(kind, asked.name)
        if kind is SuspensionKind.USER:
            await relay.operator.resume(Filter(user=asked.name))
        return _row(suspension) if suspension is not None else {}

    async def _write(self, suspensions: list[Suspension]) -> None:
        try:
            await asyncio.to_thread(write_suspensions, self._path, suspensions)
        except OSError as fault:
            raise Refusal(500, "Not written", f"{self._path}: {fault.strerror or fault}; nothing was changed") from None


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
