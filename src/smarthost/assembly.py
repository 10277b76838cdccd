"""Joins the parts of the relay from a configuration; the only place where they all meet."""

import asyncio
from collections.abc import Callable, Collection, Iterable
from functools import partial
from random import Random

import msgspec

from smarthost.automation_presets import automation_rules
from smarthost.config import Config, Login
from smarthost.crypto.dkim_keys import Keyring
from smarthost.crypto.tls import TlsContexts, certificate_expiry
from smarthost.delivery import settle
from smarthost.delivery.adapt import Adapter
from smarthost.delivery.connect import Connector
from smarthost.delivery.detours import Detours
from smarthost.delivery.dispatcher import Dispatcher
from smarthost.delivery.hall import Hall
from smarthost.delivery.promoter import Promoter
from smarthost.delivery.remedies import Remedies
from smarthost.delivery.reporting import Reporter
from smarthost.delivery.resolve import Sites
from smarthost.delivery.sharing import Sharing
from smarthost.delivery.suspending import Suspender
from smarthost.delivery.tls_policies import TlsPolicies
from smarthost.delivery.transfer import Terms, Transfer
from smarthost.from_config import (
    hello_name,
    make_keyring,
    make_report_terms,
    make_return_paths,
    make_rules,
    make_sts,
    make_terms,
    make_tls,
)
from smarthost.logins import Logins
from smarthost.mail.entry import Entry
from smarthost.mail.envelope import Recipient
from smarthost.mail.message import MessageIds
from smarthost.mail.reply import Reply
from smarthost.mail.route import Deliver, Site
from smarthost.network.dns import Resolver
from smarthost.network.dns_query import Ask, ask
from smarthost.network.dns_turns import Questions
from smarthost.network.peer_certificate import shown_certificate
from smarthost.network.round import Round
from smarthost.network.session import Session, SessionSettings, Timeouts
from smarthost.open_files import connections_within
from smarthost.policy.ledger import Ledger
from smarthost.policy.limits import LimitTable, OnLimit, SiteLimits
from smarthost.policy.rate import Rate, parse_rate
from smarthost.policy.restraints import Restraints
from smarthost.policy.suppression import SUPPRESSED
from smarthost.queue.bookkeeper import Bookkeeper
from smarthost.queue.contents import Contents
from smarthost.queue.gates import Gates
from smarthost.queue.intake import REJECTED, Intake
from smarthost.queue.operate import Operator
from smarthost.queue.ready import ReadyQueue
from smarthost.queue.recall import Recall
from smarthost.queue.rules import site_queue
from smarthost.queue.scheduler import Scheduler
from smarthost.queue.suppression import SuppressionList
from smarthost.queue.waiting import Key
from smarthost.reasons import Reasons
from smarthost.reception import credentials as reception_logins
from smarthost.reception.accept import Door
from smarthost.reception.door_limits import DoorLimits
from smarthost.reception.parts import Parts
from smarthost.remembering import Memory
from smarthost.report.counters import Counters
from smarthost.report.feed import Feed
from smarthost.spool.memory import MemorySpool
from smarthost.spool.sqlite import SqliteSpool
from smarthost.spool.stats import SECONDS, SIZES


class Outside(msgspec.Struct, frozen=True):
    """What comes from outside the process: chance, and the answers of name servers. A simulation hands in its own.

    Time is the `clock` and the event loop's, and connections are the event loop's.
    """

    rng: Random = msgspec.field(default_factory=Random)
    ask: Ask = ask


class Relay:
    """All parts of one relay, joined. `apply` follows a configuration; it is called at the start and at each reload."""

    def __init__(
        self,
        config: Config,
        spool: SqliteSpool | MemorySpool,
        feed: Feed,
        counters: Counters,
        clock: Callable[[], float],
        outside: Outside | None = None,
    ) -> None:
        """Build every part; nothing runs yet. Raises KeyUnreadable and TlsFault for files that cannot be used."""
        loop = asyncio.get_running_loop()
        self.config, self.spool, self.feed = config, spool, feed
        self.counters, self.clock, self.loop = counters, clock, loop
        outside = outside or Outside()
        self.rng = outside.rng
        counters.follow_commits(spool.stats, SECONDS, SIZES)
        self.keyring = make_keyring(config)
        self.tls = make_tls(config, clock)
        self.rules = make_rules(config, self.keyring, make_return_paths(config))
        self.ids = MessageIds(spool.last_id)
        self.intake = Intake(loop, spool, self.rules, self.ids, feed, counters)
        self.recall = self.intake.recall = Recall(spool.records, clock)
        self.recall.keep = config.http.idempotency_keep
        self.adapter = Adapter(self.intake, spool, counters, clock)
        self.adapter.follow(config.conversion)
        self.scheduler = Scheduler(spool, Contents(), clock)
        self.reporter = Reporter(loop, spool, self.intake, make_report_terms(config), clock)
        self.suppression = SuppressionList(spool, feed, clock)
        detours = Detours(clock)
        self.remedies = Remedies(detours, feed, clock)
        self.suspender = Suspender(self.scheduler, feed, clock)
        parts = settle.Parts(spool, self.scheduler, self.reporter, feed, counters, clock, self.rng, detours)
        self.settler = settle.Settler(parts, config.retry)
        self.settler.dead_letters.keep = config.http.dead_letter_keep
        self.operator = Operator(spool, self.scheduler, feed, config.retry, clock)
        self._build_outward(outside)
        self.limits = LimitTable(config.limits)
        self.bookkeeper = Bookkeeper(Ledger(), spool, clock)
        self.memory = Memory(self.bookkeeper, self.remedies, self.connector, self._login_of, clock)
        self.dispatchers: dict[str, Dispatcher] = {}
        self.retired: list[Dispatcher] = []
        self.round = Round(loop)
        self.gates = Gates(self.scheduler, self.bookkeeper.ledger, clock, loop)
        self.gates.follow(self.rules.restraints)
        self.sharing = Sharing(connections_within(config.delivery.max_connections), loop)
        self.hall = self._make_hall()
        self.reasons = Reasons(self.scheduler, self.connector, self.dispatcher_of, self.gates, self.sharing, clock)
        self.promoter = Promoter(self.sites, self.scheduler, self.settler, self.rules, self.dispatcher_for, self.hall)
        self.promoter.rng = self.rng
        self.has_space = True
        self.credentials = reception_logins.Credentials(config.users, clock, self.bookkeeper.ledger)
        self.door_limits = DoorLimits(self.bookkeeper.ledger, clock)
        self.door = Door(make_terms(config), self._make_parts(), loop)
        self._join()

    def _build_outward(self, outside: Outside) -> None:
        """Build what asks name servers and opens sessions."""
        config, clock, dnssec = self.config, self.clock, self.config.dns.dnssec
        observe = self.counters.observe_dns
        self.questions = Questions(outside.ask)
        self.resolver = Resolver(config.dns.servers, clock, observe, dnssec=dnssec, ask=self.questions.ask)
        self.contexts = TlsContexts()
        self.sts = make_sts(config, self.resolver, self.contexts, clock)
        self.sites = Sites(self.resolver, (config.hostname,), self.rng, clock, self.sts)
        self.tls_policies = TlsPolicies(self.resolver, clock)
        self.logins = Logins(config, self.contexts, clock, self.rng)
        self.timeouts = Timeouts()
        self.connector = Connector(self.settings_for, self.contexts, clock, self.rng, self.timeouts, self.tls_policies)

    def _make_hall(self) -> Hall:
        parts = (self.scheduler, self.spool, self.settler, self.remedies, self.connector)
        return Hall(*parts, self.make_transfer, self.clock, self.loop, self.gates, self.sharing)

    def _join(self) -> None:
        """Set the calls between parts that cannot be handed in at construction."""
        self.bookkeeper.damaged = partial(self.counters.found_damaged, "memory")
        self.door_limits.follow(Restraints(self.config.limits, OnLimit.ERROR))
        self.intake.on_accepted = self.scheduler.admit
        self.scheduler.offer = self.promoter.offer
        self.scheduler.reoffer = self.promoter.reoffer
        self.scheduler.overdue = self.promoter.overdue
        self.operator.withdraw = self.promoter.withdraw
        self.operator.fail_entry = self.settler.fail
        self.operator.awake = self._awake
        self.operator.reason_of = self.reasons.why
        self.reasons.source_of, self.reasons.looking_up = self._limit_source, self.promoter.looking_up
        self.reasons.limits_of = self._limits_of
        self.reasons.awaits_dns = lambda queue: self.questions.waiting > 0 and self.promoter.looks_up(queue)
        self.promoter.joined = self.remedies.joined
        self.promoter.suppression = self.settler.teller.suppression = self.suppression
        self.suspender.dispatchers = lambda: tuple(self.dispatchers.values())
        self.suspender.put_off, self.suspender.changed = self.settler.put_off, self._lead
        self.suspender.withdraw = self.promoter.withdraw
        self.remedies.dispatcher_at = self._dispatcher_at
        self.remedies.follow(automation_rules(self.config), self.rules.routing.routes)

    def _login_of(self, name: str) -> Login | None:
        return self.config.credentials.get(name)

    def _limits_of(self, site: Site) -> SiteLimits:
        return self.limits.for_site(site)

    def _limit_source(self, site: Site, key: str) -> str:
        return self.limits.sources(site).get(key, "the configuration")

    def _lead(self) -> None:
        """Have mail looked at that comes from users, where one of them is suspended, and never where none is."""
        has_users = self.suspender.suspensions.has_users
        self.scheduler.offer = self._offer if has_users else self.promoter.offer
        self.scheduler.reoffer = self._reoffer if has_users else self.promoter.reoffer

    def _offer(self, entry: Entry) -> None:
        if not self.suspender.holds(entry):
            self.promoter.offer(entry)

    def _reoffer(self, entry: Entry) -> None:
        if not self.suspender.holds(entry):
            self.promoter.reoffer(entry)

    def apply(self, config: Config, keyring: Keyring) -> None:
        """Follow a new configuration, with keys that were read already; mail in the queue is routed again."""
        self.bookkeeper.ledger.tidy(self.clock())
        self.config, self.keyring = config, keyring
        self.rules = make_rules(config, keyring, make_return_paths(config))
        self.intake.rules = self.rules
        self.recall.keep = config.http.idempotency_keep
        self.settler.retry = self.operator.retry = config.retry
        self.settler.dead_letters.keep = config.http.dead_letter_keep
        self.reporter.terms = make_report_terms(config)
        self.limits = LimitTable(config.limits)
        self.sharing.total.most = connections_within(config.delivery.max_connections)
        self.adapter.follow(config.conversion)
        self.promoter.rules = self.rules
        self.promoter.forget()
        self.resolver.clear()
        self.sites.clear()
        self.contexts.forget_changed()
        self.counters.certificate_expiry.clear()
        self.logins.follow(config)
        self.connector.clear()
        self.memory.forget_logins()
        self.credentials.replace(config.users)
        self.door_limits.follow(Restraints(config.limits, OnLimit.ERROR))
        self.door.terms = make_terms(config)
        self._retire(list(self.dispatchers))
        self.gates.follow(self.rules.restraints)
        self.remedies.follow(automation_rules(config), self.rules.routing.routes)
        for queue in self.scheduler.queues:
            self.scheduler.unblock(queue)

    def follow_accounts(self, config: Config, routes: Collection[str]) -> None:
        """Follow a configuration in which the routes of some accounts are new, different or gone, and nothing else."""
        self.config = config
        rules = make_rules(config, self.keyring, self.rules.return_paths)
        self.rules = self.intake.rules = self.promoter.rules = rules
        self.limits = LimitTable(config.limits)
        self.logins.follow(config)
        self._retire([name for name, each in self.dispatchers.items() if each.ready.site.route.name in routes])
        self.promoter.forget(routes)
        for queue in self.scheduler.queues:
            if site_queue(queue) in routes:
                self.scheduler.unblock(queue)

    def _retire(self, sites: Iterable[str]) -> None:
        """Let dispatchers end their sessions, and others begin in their place."""
        for name in sites:
            dispatcher = self.dispatchers.pop(name)
            dispatcher.retire()
            self.retired.append(dispatcher)

    def tidy(self) -> None:
        """Forget queues and sites of which nothing is left; called every few minutes."""
        self.bookkeeper.ledger.tidy(self.clock())
        self.memory.tidy()
        self.gates.tidy()
        named = self.promoter.tidy()
        self.scheduler.tidy()
        self.dispatchers = {
            name: each for name, each in self.dispatchers.items() if each in named or not each.is_unused
        }

    def forget_retired(self) -> None:
        """Drop dispatchers of an older configuration whose last session has ended."""
        if self.retired:
            self.retired = [each for each in self.retired if each.transfers or not each.is_quiet]

    def settings_for(self, site: Site) -> SessionSettings:
        """Say how a session of a site is opened."""
        route, config = site.route, self.config
        return SessionSettings(
            hello=hello_name(config),
            tls=route.tls,
            ca_file=route.ca_file,
            credentials=self.logins.of(route.login) if route.login else None,
            allow_plaintext_auth=route.allow_plaintext_auth,
            client=(route.client_certificate, route.client_key),
        )

    def dispatcher_for(self, site: Site) -> Dispatcher:
        """Give the dispatcher of a site, the same for all queues whose hosts are the same."""
        dispatcher = self.dispatchers.get(site.name)
        if dispatcher is None:
            ready = ReadyQueue(site, self._limits_of(site), self.bookkeeper.ledger, self.quota_of(site))
            ready.capacity = self.memory.capacities.of(site.name)
            if site.route.login and (paused := self.connector.login_pause(site)) is not None:
                ready.window.pause(paused[0])
            dispatcher = self.dispatchers[site.name] = Dispatcher(ready, self.hall)
            self.remedies.apply_to(dispatcher)
            self.suspender.apply_to(dispatcher)
        else:
            dispatcher.ready.site = site
        return dispatcher

    def quota_of(self, site: Site) -> tuple[Rate, ...]:
        """Give the rates that an upstream of a pool may take; none for any other site."""
        route = self.rules.routing.routes.get(site.route.name)
        pool = route.pool if route is not None and site.route.upstream else ()
        return tuple(parse_rate(rate) for each in pool if each.name == site.route.upstream for rate in each.quota)

    def _dispatcher_at(self, site: str) -> Dispatcher | None:
        return self.dispatchers.get(site)

    def dispatcher_of(self, queue: str, key: Key | None = None) -> Dispatcher | None:
        """Find the dispatcher that serves a queue, if one does: of several the one that has an entry waiting."""
        found = self.promoter.dispatchers_of(queue)
        if key is not None and len(found) > 1:
            return next((each for each in found if any(entry.key == key for entry in each.ready.todo)), found[0])
        return found[0] if found else None

    def make_transfer(self, session: Session, dispatcher: Dispatcher) -> Transfer:
        """Make the transfer that drives a session for a dispatcher."""
        version = session.tls.partition(" ")[0]
        if version:
            self.counters.tls_sessions["out", version] += 1
            self._note_certificate(session, dispatcher.ready.site)
        terms = Terms(
            read_block=self.spool.read_file,
            site=dispatcher.ready.site.name,
            limits=dispatcher.ready.limits,
            timeouts=self.timeouts,
            soft_bounce=self.config.retry.soft_bounce,
            round=self.round,
            depth=dispatcher.ready.depth,
            capacity=dispatcher.ready.capacity,
            adapt=partial(self.adapter.adapt, dispatcher),
        )
        return Transfer(session, dispatcher.next_job, dispatcher.finished, dispatcher.lost, terms, self.clock)

    def _note_certificate(self, session: Session, site: Site) -> None:
        """Show when a relayhost's certificate expires: it is somebody's business here, unlike a stranger's."""
        if site.route.deliver is Deliver.RELAYHOST:
            expires = certificate_expiry(shown_certificate(session.transport))
            self.counters.saw_certificate(site.name, f"{session.host.name}:{session.host.port}", expires)

    def _make_parts(self) -> Parts:
        return Parts(
            intake=self.intake,
            credentials=self.credentials,
            feed=self.feed,
            counters=self.counters,
            clock=self.clock,
            route_refusal=self._route_refusal,
            has_space=lambda: self.has_space,
            limits=self.door_limits,
            tls=self.tls,
        )

    def _route_refusal(self, reverse_path: str, recipient: Recipient, identity: str) -> Reply | None:
        route = self.rules.routing.choose(reverse_path, recipient, identity, "")
        if route.deliver is Deliver.REJECT:
            return REJECTED
        if self.suppression.refuses and self.suppression.is_suppressed(identity, recipient):
            return SUPPRESSED
        return None

    def _awake(self, queues: set[str]) -> None:
        """Let queues be tried at once: a pause or a suspension of their site ends, as a person asked for it."""
        self.connector.clear()
        self.memory.forget_logins()
        self.logins.forget_faults()
        for suspended in [each for each in self.dispatchers.values() if each.ready.suspended_until]:
            if not queues.isdisjoint(suspended.queues):
                self.remedies.lift(suspended)
                queues = queues | suspended.queues
        for queue in queues:
            for dispatcher in self.promoter.dispatchers_of(queue):
                dispatcher.ready.window.until = 0.0
            self.scheduler.unblock(queue)
