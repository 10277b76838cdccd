"""Runs one seed: the real relay, life after life, in a simulated world; gives what was wrong."""

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from sim_borders import Inline, bounded, fetched_from, watched
from sim_draw import draw_world
from sim_loop import Clock, SimLoop
from sim_person import Person
from sim_plan import LIFETIME, OVER, Plan
from sim_spool import SimSpool
from sim_world import World

from smarthost import assembly
from smarthost.config import Config
from smarthost.config_types import Dns, Login
from smarthost.delivery.dispatcher import Dispatcher
from smarthost.delivery.transfer import Job, Transfer
from smarthost.mail.entry import Entry
from smarthost.mail.envelope import Envelope, Recipient
from smarthost.mail.message import Arrival
from smarthost.mail.reply import Reply
from smarthost.mail.route import Deliver, NextHop, Route, Site, Upstream
from smarthost.network.oauth_grant import Grant
from smarthost.network.session import Session
from smarthost.policy.admission import User
from smarthost.policy.backoff import Retry
from smarthost.policy.routing import Match, RouteRule
from smarthost.queue import contents, room
from smarthost.queue.rules import facts_of
from smarthost.report.counters import Counters
from smarthost.report.feed import Feed

BEGAN = 1_790_000_000.0
RETRY = Retry(schedule=(20.0, 60.0, 120.0, 300.0), lifetime=LIFETIME, report_lifetime=LIFETIME, delay_warning=(600.0,))
LOOK = 30.0  # seconds between two comparisons of the disk with the tales


def routing_of(plan: Plan) -> dict[str, Any]:
    """Give the part of the configuration that says where mail goes."""
    by_mx = Route("mx", Deliver.MX, tls=plan.tls, mta_sts=bool(plan.sts))
    aside = Route("aside", Deliver.RELAYHOST, (NextHop(f"mx0.{plan.aside}"),), tls=plan.tls)
    # Nobody's mail is for it but by a rule that switches routes.
    lead = (RouteRule(Match(recipient=("*@nobody.example",)), aside),) if plan.aside else ()
    if not plan.relayhosts:
        return {"fallback": by_mx, "route_rules": lead}
    wants_login = any(site.temper.wants_login for site in plan.sites)
    hops = tuple(NextHop(f"mx0.{name}") for name in plan.relayhosts)
    route = Route(
        "relay",
        Deliver.RELAYHOST,
        hops,
        tls=plan.tls,
        login="relay" if wants_login else "",
        allow_plaintext_auth=True,
    )
    if plan.pool:
        members = [msgspec.structs.replace(route, next_hops=(hop,), upstream=str(hop)) for hop in hops]
        pool = tuple(Upstream(member, *terms) for member, terms in zip(members, plan.pool, strict=True))
        route = msgspec.structs.replace(route, pool=pool)
    found: dict[str, Any] = {"fallback": by_mx if plan.relayed else route, "route_rules": lead}
    if plan.relayed:
        found["route_rules"] = (
            RouteRule(Match(recipient=tuple(f"*@{domain}" for domain in plan.relayed)), route),
            *lead,
        )
    if wants_login:
        url = "https://tokens.example/token"
        grant = Grant(name="relay", username="relay", token_url=url) if plan.token_lifetime else None
        found["credentials"] = {"relay": Login("relay", "secret", grant=grant)}
    return found


class Run:
    """One seed. `faults` is empty when all was well; `world.story()` tells what happened."""

    def __init__(self, seed: int, plan: Plan | None = None) -> None:
        """Draw the run; a plan may be given instead."""
        self.seed = seed
        self.plan = draw_world(seed) if plan is None else plan
        self.clock = Clock(BEGAN)
        self.world = World(self.plan, Random(seed ^ 0x5EED), self.clock)
        self.oracle = self.world.oracle
        self.oracle.mails = {f"m{mail.number}": mail for mail in self.plan.mails}
        self.config = Config(
            hostname="relay.example",
            listeners=(),
            users=(User("nobody", "*"),),
            **routing_of(self.plan),
            limits=tuple(self.plan.limits),
            retry=RETRY,
            automation=tuple(self.plan.rules),
            suppression=self.plan.suppression,
            conversion=self.plan.conversion,
            data_directory=Path("/nonexistent/simulation"),
            dns=Dns(("127.0.0.1",)),
        )
        self._arrived = 0

    @property
    def faults(self) -> list[str]:
        """What was wrong, in sentences."""
        return self.oracle.faults

    def go(self) -> "Run":
        """Live until everything has ended, through all crashes."""
        crashes = [*self.plan.crashes, (OVER, 0.0)]
        spool: SimSpool | None = None
        with bounded(self.plan.bounds), watched(self.world), fetched_from(self.world):
            for at, pause in crashes:
                loop = SimLoop(self.clock, self.world)
                disk_rng = Random(self.world.rng.random())
                spool = spool.reborn(loop) if spool else SimSpool(loop, self.clock, disk_rng, self.oracle.told)
                life = Life(self, spool, loop)
                has_ended = loop.run_until_complete(life.live(at))
                for error in loop.errors:
                    self.world.blame(error)
                self.oracle.ambiguous += life.counters.ambiguous
                is_crash = not has_ended and at < OVER
                for wrong in self.oracle.metrics.ended(life.counters, self.clock(), is_crash=is_crash):
                    self.world.blame(wrong)
                if is_crash:
                    self._crash(loop, spool, life, pause)
                else:
                    self._bury(loop)
                    break
        if spool is not None:
            self.oracle.compare(spool.waiting())
        self.oracle.finish()
        return self

    def _crash(self, loop: SimLoop, spool: SimSpool, life: "Life", pause: float) -> None:
        self.world.say("the relay crashes")
        began = self.clock.now
        # From here on the spool keeps nothing of what this life may still write.
        spool.freeze()
        asyncio.events._set_running_loop(loop)
        self.world.crash()
        asyncio.events._set_running_loop(None)
        self._bury(loop)
        self.clock.now = began + pause
        self.oracle.outages.append((began, self.clock.now))
        self.world.say("the relay starts again")

    def _bury(self, loop: SimLoop) -> None:
        """End the tasks of a life, so that nothing of it runs later; time stands still meanwhile."""
        now = self.clock.now
        while tasks := asyncio.all_tasks(loop):  # the end of one may begin another, as who waits has its turn
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.close()
        self.clock.now = now

    def next_mail(self) -> int:
        """Give the number of the next message to arrive."""
        return self._arrived

    def arrived(self) -> None:
        """Count a message that arrived."""
        self._arrived += 1


class Life:
    """The relay from a start to a crash, or to the end of the run."""

    def __init__(self, run: Run, spool: SimSpool, loop: SimLoop) -> None:
        """Keep what it lives with; the relay is built in `live`."""
        self._run, self._spool, self._loop = run, spool, loop
        self.world, self.clock, self.oracle = run.world, run.clock, run.oracle
        self.counters = Counters()
        self._unanswered = 0
        self._claimed: set[tuple[int, int]] = set()
        self._reloads = [at for at in run.plan.reloads if at > run.clock.elapsed]

    async def live(self, until: float) -> bool:
        """Work until a time since the beginning; gives whether everything had ended before."""
        run, world = self._run, self.world
        outside = assembly.Outside(Random(world.rng.random()), world.ask)
        self.relay = relay = assembly.Relay(
            run.config, self._spool, Feed((self.counters, self.oracle.heard)), self.counters, self.clock, outside
        )
        relay.sts.keeps = False
        inline = Inline(self._loop)
        relay.intake.threads = relay.intake.files = relay.adapter.workers = inline  # type: ignore[assignment]
        relay.hall.make_transfer = self._make_transfer  # type: ignore[assignment]
        self._connect, relay.hall.connector.connect = relay.connector.connect, self._count_connect  # type: ignore
        self._claim, relay.scheduler.claim = relay.scheduler.claim, self._note_claim  # type: ignore[method-assign]
        await relay.suppression.follow(run.config.suppression)
        await relay.bookkeeper.start()
        await relay.scheduler.start()
        arrivals = asyncio.ensure_future(self._arrive())
        person = asyncio.ensure_future(Person(run.plan, relay, world).act())
        ticks = looks = 0
        while self.clock.elapsed < until:
            await asyncio.sleep(min(1.0, until - self.clock.elapsed + 1e-6))
            ticks += 1
            self._tick(ticks)
            if self.clock.elapsed >= LOOK * looks:
                looks = int(self.clock.elapsed / LOOK) + 1
                self.oracle.compare(self._spool.waiting())
            if arrivals.done() and person.done() and not self._spool.entries and not self._is_busy():
                arrivals.result()
                person.result()
                self._look_for_leaks()
                return True
        for each in (arrivals, person):
            if each.done():
                each.result()
        return False

    def _is_busy(self) -> bool:
        relay = self.relay
        has_sessions = any(each.transfers or each.opening for each in self._dispatchers())
        return bool(self._unanswered or relay.settler.pending or has_sessions)

    def _dispatchers(self) -> list[Dispatcher]:
        return [*self.relay.dispatchers.values(), *self.relay.retired]

    def _tick(self, ticks: int) -> None:
        """Do what the server's watch does once a second, and look whether memory is as it should be."""
        relay, plan, now = self.relay, self._run.plan, self.clock()
        relay.remedies.tick(now)
        relay.suspender.tick(now)
        self.oracle.look_at_measures()
        for dispatcher in self._dispatchers():
            dispatcher.tick(now)
            ready = dispatcher.ready
            if ready.window.open != dispatcher.opening + len(dispatcher.transfers) or ready.busy < 0:
                self.world.blame(f"{ready!r}: {ready.window.open} places, {len(dispatcher.transfers)} sessions")
        relay.forget_retired()
        if ticks % 600 == 0:
            relay.tidy()
        if self._reloads and self._reloads[0] <= self.clock.elapsed:
            del self._reloads[0]
            self.world.say("the relay reloads")
            self.oracle.reloaded()
            relay.apply(self._run.config, relay.keyring)
            self._loop.create_task(relay.scheduler.refresh())
        if self.world.is_within(plan.full) != self._spool.full:
            self._spool.full = not self._spool.full
            self.world.say("the disk is %s", "full" if self._spool.full else "well again")
            self.oracle.outages += [span for span in [self._full_span()] if span not in self.oracle.outages]
        entries = [entry for queue in relay.scheduler.queues.values() for entry in queue.loaded.values()]
        loaded = len(entries)
        if relay.scheduler.total != loaded:
            self.world.blame(f"the scheduler counts {relay.scheduler.total} entries in memory, and has {loaded}")
        if loaded > room.TOTAL_BOUND:
            # Entries whose deadline has come are taken in beyond the bound, a few hundred at a time, to end them.
            loaded = sum(entry.key not in self._claimed for entry in entries)
        # Beyond the bound each lane may have one entry, so that nobody waits for what others have in memory.
        lanes = sum(len(queue.lanes) for queue in relay.scheduler.queues.values())
        if loaded > room.TOTAL_BOUND + lanes * room.SURE or relay.scheduler.contents._octets > contents.CACHE_LIMIT:
            self.world.blame(f"{loaded} entries in memory")

    def _full_span(self) -> tuple[float, float]:
        since, until = self._run.plan.full[0]
        return self.clock.began + since, self.clock.began + until + 1.0

    def _look_for_leaks(self) -> None:
        relay = self.relay
        if relay.scheduler.total or len(relay.scheduler.contents):
            left = f"{relay.scheduler.total} entries and {len(relay.scheduler.contents)} contents"
            self.world.blame(f"{left} are in memory when nothing is left to do")
        for dispatcher in self._dispatchers():
            ready = dispatcher.ready
            if ready.busy or ready.todo or dispatcher._partial:
                self.world.blame(f"{ready!r} when nothing is left to do")
        total = relay.sharing.total
        if total.taken or total.waiting or total.called_back or relay.sharing._by_hosts:
            self.world.blame(f"{total.taken} connections are taken, {total.waiting} sites wait, when nothing is left")

    async def _arrive(self) -> None:
        """Hand in the mail that has not arrived yet; what was not answered in an earlier life is not sent again."""
        run = self._run
        while (number := run.next_mail()) < len(run.plan.mails):
            mail = run.plan.mails[number]
            await asyncio.sleep(max(0.0, mail.at - self.clock.elapsed))
            run.arrived()
            recipients = tuple(Recipient(r, r.rpartition("@")[2], int(mail.notify)) for r in mail.recipients)
            envelope = Envelope(mail.reverse_path, recipients, envid=f"m{number}", priority=mail.priority)
            if mail.requiretls:
                envelope = msgspec.structs.replace(envelope, requiretls=True)
            if mail.held:
                envelope = msgspec.structs.replace(envelope, hold_until=self.clock() + mail.held)
            arrival = Arrival(at=self.clock(), door="sim", client="192.0.2.1", identity=mail.identity)
            draft = self.relay.intake.begin(arrival, envelope)
            for start in range(0, len(mail.content), 65536):
                draft.write(mail.content[start : start + 65536])
            self._unanswered += 1
            draft.commit(lambda reply, number=number: self._answered(number, reply))  # type: ignore[misc]

    def _answered(self, number: int, reply: Reply) -> None:
        self._unanswered -= 1
        self.world.say("m%s is answered: %s", number, reply)
        if reply.is_positive and f"m{number}" not in self.oracle.by_key:
            self.world.blame(f"m{number} was accepted, and is not on disk")

    def _make_transfer(self, session: Session, dispatcher: Dispatcher) -> Transfer:
        """Make the relay's transfer, and count what it takes."""
        transfer = self.relay.make_transfer(session, dispatcher)
        give, name, limits = transfer._next_job, dispatcher.ready.site.place, dispatcher.ready.configured
        quota = self.relay.quota_of(dispatcher.ready.site)

        def next_job(asking: Transfer) -> Job | None:
            job = give(asking)
            if job is not None:
                self.oracle.tried(job, dispatcher.ready.site)
                self.oracle.took("messages", name, limits.message_rate)
                self.oracle.took("recipients", name, limits.recipient_rate, len(job.recipients))
                self._count_restraints(job, name.partition("/")[0])
                self.oracle.took("quota", name, quota)
            return job

        transfer._next_job = next_job
        return transfer

    def _count_restraints(self, job: Job, route: str) -> None:
        """Count what a session takes against the limits of its sender and its destination."""
        facts = facts_of(job.entry.message, job.recipients[0].domain, route)
        for restraint in self.relay.rules.restraints.of(facts):
            self.oracle.took("messages", restraint.name, restraint.message_rate)
            self.oracle.took("recipients", restraint.name, restraint.recipient_rate, len(job.recipients))

    def _note_claim(self, entry: Entry) -> bool:
        self._claimed.add(entry.key)
        return self._claim(entry)

    async def _count_connect(self, site: Site, *rest: Any, **more: Any) -> object:
        limits = self.relay.limits.for_site(site)
        owners = {self.world.plan.owner[address]: None for host in site.hosts for address in host.addresses}
        self.oracle.sites[site.name] = tuple(owners)
        self.oracle.took("connections", site.place, limits.max_connection_rate)
        for host in site.hosts:
            for address in host.addresses:
                self.world.plan.owner[address].limits = limits
        return await self._connect(site, *rest, **more)
