"""A person at the queue: holds, releases, retries, fails, deletes and flushes while mail is under way."""

import asyncio

import msgspec
from sim_plan import Plan
from sim_world import World

from smarthost.assembly import Relay
from smarthost.mail.entry import Why
from smarthost.policy.suspension import Suspension, SuspensionKind
from smarthost.spool.store import Filter

SUSPENDED = 200.0  # seconds of a suspension
RELEASES = 30.0  # seconds between two looks, at the end, whether anything is still held


class Person:
    """Does what the plan says, in one life of the relay, and at the end lets everything go that is held."""

    def __init__(self, plan: Plan, relay: Relay, world: World) -> None:
        """Keep what it works with."""
        self._relay, self._operator, self._world = relay, relay.operator, world
        self._acts = [act for act in plan.acts if act[0] > world.clock.elapsed]
        self._held = any(act == "hold" for _, act, _ in plan.acts)

    async def act(self) -> None:
        """Work through the plan."""
        for at, act, domain in self._acts:
            await asyncio.sleep(max(0.0, at - self._world.clock.elapsed))
            if act == "suspend":
                self._suspend(domain)
            else:
                await self._do(act, domain)
        while self._held:
            self._held = bool((await self._do("release", "")).get("entries"))
            await asyncio.sleep(RELEASES)

    def _suspend(self, name: str) -> None:
        """Suspend a site or a user for a while; it is not kept over a crash here."""
        now = self._world.clock()
        kind = SuspensionKind.SITE if name.startswith("mx") else SuspensionKind.USER
        self._world.say("%s %s is suspended", kind, name)
        self._world.oracle.stopped.append((now, now + SUSPENDED, name))
        self._world.oracle.outages.append((now, now + SUSPENDED))
        self._relay.suspender.suspend(Suspension(kind, name, now, now + SUSPENDED))

    async def _do(self, act: str, domain: str) -> dict[str, int]:
        operator, wanted = self._operator, Filter(recipient=f"*@{domain}" if domain else "")
        if act == "release":
            wanted = msgspec.structs.replace(wanted, why=Why.HELD)
        try:
            if act == "flush":
                done = await operator.flush(wanted)
            elif act == "retry":
                self._world.oracle.retried.add(domain)
                done = await operator.retry_now(wanted, False)
            else:
                done = await getattr(operator, act)(wanted, False)
        except OSError as error:
            self._world.say("%s of %s is not possible: %s", act, domain or "all", error)
            return {"entries": 1}
        self._world.say("%s of %s: %s", act, domain or "all", done)
        return done
