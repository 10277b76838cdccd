"""The running relay: starts the parts in order, keeps watch over them, reloads, drains, and stops in reverse."""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from smarthost import __version__
from smarthost.accounts import Accounts
from smarthost.api import Api
from smarthost.applications import make_outreach
from smarthost.assembly import Relay
from smarthost.batching import make_batches
from smarthost.bounce_door import BounceDoor
from smarthost.config import Config, ConfigError, load
from smarthost.control import ControlServer
from smarthost.crypto.dkim_keys import KeyUnreadable
from smarthost.dnssec import dnssec_warnings
from smarthost.explain import explain, known_of
from smarthost.from_config import make_keyring, make_return_paths
from smarthost.mail.message import format_id
from smarthost.notify import Notifier
from smarthost.operations import RelayOperations
from smarthost.operations_keys import KeyOperations
from smarthost.operations_suppression import ListOperations
from smarthost.operations_suspension import PauseOperations
from smarthost.operations_templates import TemplateOperations
from smarthost.operations_trial import TrialOperations
from smarthost.queue.burial import bury, forget_records
from smarthost.report.counters import Counters
from smarthost.report.feed import Feed
from smarthost.report.gauges import LoopLag
from smarthost.report.maillog import Line, ProgramLog, encoder, install_program_log, listen_from
from smarthost.report.output import Output
from smarthost.spool.sqlite import SqliteSpool
from smarthost.status import Probes, Status

log = logging.getLogger(__name__)

WATCH = 1.0  # seconds between two looks at sessions, disk, keys and certificates
HISTORY_WATCH = 600.0  # seconds between two clearings of the history
INODES_LEFT = 0.05  # part of the inodes below which no mail is accepted
# Closing has to fit into the 2 s between shutdown_timeout (8 s) and the 10 s after which containers are killed.
LOG_PATIENCE = 1.0  # seconds in which a slow reader takes the log's last lines
UNHEALTHY_LAG = 5.0  # seconds of event loop lag from which /healthz says no


class Server:
    """One relay in this process. `start`, then `wait`; `stop` drains. `listening` are the addresses that were bound."""

    def __init__(
        self,
        config: Config,
        *,
        clock: Callable[[], float] = time.time,
        log_to: int | None = 1,
        listeners: tuple[Callable[..., None], ...] = (),
    ) -> None:
        """Remember what to run; `log_to` is a file descriptor or None for no log, `listeners` hear the event feed."""
        self.config, self._clock, self._log_to = config, clock, log_to
        self.counters = Counters()
        self.feed = Feed((self.counters, *listeners))
        self.listening: list[str] = []
        self.failed = ""
        self._stopped = asyncio.Event()
        self._undo: list[Callable[[], object]] = []
        self._watch: asyncio.Task[None] | None = None
        self._ready = False
        self._notifier = Notifier()
        self._status: Status | None = None

    async def start(self) -> None:
        """Open everything in order; raises SpoolError, KeyUnreadable, TlsFault, OSError, ValueError or ControlBusy."""
        loop, config = asyncio.get_running_loop(), self.config
        config.data_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        dropped = self._start_log(loop)
        for warning in (*config.warnings, *dnssec_warnings(config), *_foreign_owner(config.data_directory)):
            log.warning("%s", warning)
        self.spool = SqliteSpool.open(
            config.data_directory / "spool", loop=loop, clock=self._clock, on_fatal=self._fatal
        )
        self._tell_recovery()
        self.relay = Relay(config, self.spool, self.feed, self.counters, self._clock)
        await self._start_accounts()
        self.operations = RelayOperations(
            self.spool, self.relay.scheduler, self.relay.operator, self.relay.reasons, self.reload, self._clock
        )
        self.operations.suppression = ListOperations(self.spool, self.relay.suppression, self._clock)
        self.operations.suspension = suspension = PauseOperations(self.relay)
        suspension.restore()
        self.operations.explainer = lambda question: explain(known_of(self.relay), question)
        self.control = ControlServer(config.data_directory / "control.sock", self.operations)
        await self.control.start()
        self._lag = LoopLag(loop)
        self._undo.append(self._lag.stop)
        self.api = Api(self.relay, self.accounts, self._unhealthy, self._unready)
        self.outreach = outreach = make_outreach(self.relay, config.data_directory)
        self.api.webhooks, self.api.bounces = outreach.webhooks, outreach
        self.api.tenants, self.api.suspensions = outreach.tenants, suspension
        self.batches = self.api.batches = make_batches(self.relay, self.accounts)
        self.operations.keys = KeyOperations(self.api.keys)
        self.operations.trial = TrialOperations(self.relay)
        self.operations.templates = TemplateOperations(self.api.templates)
        self.operations.about = self._about
        with _naming(f"http.address {config.http_address}"):
            if config.http_address:
                probes = Probes(self._unhealthy, self._unready, lambda: self._lag.seconds, dropped)
                self._status = Status(self.relay, probes, self.api.hand_over, lambda: self.accounts.labels)
                self.api.pages = self._status.pages
        await self.relay.suppression.follow(config.suppression)
        await outreach.start(config.outreach)
        await self.relay.bookkeeper.start()
        await self.relay.scheduler.start()
        self.bounces = BounceDoor(self.relay, outreach.bounces)
        self.bounces.follow(config)
        await self.api.start()
        await self.batches.start()
        for listener in config.listeners:
            door = self.relay.door if listener.protocol == "smtp" else self.api
            with _naming(f"listener {listener.address}"):
                self.listening += await door.open(listener, os.environ)
        self.operations.listening = self.listening
        self._watch = asyncio.create_task(self._keep_watch(), name="watch")
        self._ready = True
        log.info("smarthost %s listens on %s", __version__, ", ".join(self.listening))
        self._notifier.ready(f"listening on {', '.join(self.listening)}")

    def _about(self) -> dict[str, object]:
        """Give what a command tells of the relay: who it is, and where its API is, None where that is closed."""
        api = None
        if self._status is not None:
            host, port = self._status.address
            host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
            api = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        config = self.relay.config
        return {"hostname": config.hostname, "postmaster": config.postmaster, "api": api}

    async def _start_accounts(self) -> None:
        """Lay the tenants' upstreams over the configuration, now and whenever they change."""
        self.accounts = Accounts(
            self.spool.records, self.config.data_directory, self.relay.bookkeeper.ledger, self._clock
        )
        await self.accounts.load()

        def follow(routes: set[str]) -> None:
            self.relay.follow_accounts(self.accounts.lay_over(self.config), routes)

        self.accounts.changed = follow
        if (config := self.accounts.lay_over(self.config)) is not self.config:
            self.relay.follow_accounts(config, ())

    async def wait(self) -> None:
        """Return when the relay has to stop: a signal came, or the spool failed."""
        await self._stopped.wait()

    @property
    def is_asked_to_stop(self) -> bool:
        """Whether `wait` returns at once."""
        return self._stopped.is_set()

    def ask_to_stop(self) -> None:
        """Let `wait` return."""
        self._stopped.set()

    async def stop(self) -> None:
        """Take no more mail, let transactions end within the shutdown timeout, commit, close; safe to call once."""
        self._ready = False
        self._notifier.stopping()
        relay: Relay | None = getattr(self, "relay", None)
        if relay is not None:
            try:
                await self._drain(relay)
            except Exception:
                # Whatever went wrong, what was accepted and settled is still to be committed below.
                log.exception("the shutdown could not wait for what was under way")
        if hasattr(self, "control"):
            await self.control.stop()
        if self._status is not None:
            self._status.close()
        log.info("smarthost has stopped")
        if relay is not None:
            relay.credentials.close()
            await relay.logins.close()
            relay.adapter.close()
            await relay.sts.stop()
            relay.intake.close()
            if not self.failed:
                relay.bookkeeper.stop()
                if hasattr(self, "api"):
                    self.api.keys.close()
        if hasattr(self, "api"):
            await self.api.close()
        if hasattr(self, "outreach"):
            await self.outreach.stop()
        if hasattr(self, "spool"):
            await self.spool.close()
        for undo in reversed(self._undo):
            undo()

    async def _drain(self, relay: Relay) -> None:
        """End sessions, then deliveries, then what watches over them."""
        # A spool that failed answers nobody: nothing that runs can end well, so nothing is waited for.
        patience = 0.0 if self.failed else self.config.shutdown_timeout
        deadline = time.monotonic() + patience
        cut, _ = await asyncio.gather(relay.door.drain(patience / 2), self._drain_api(patience / 2))
        if cut:
            log.warning("%d sessions were cut off at shutdown", cut)
        if hasattr(self, "batches"):
            await self.batches.stop()
        await self._drain_delivery(relay, deadline)
        if self._watch is not None:
            self._watch.cancel()
        await relay.scheduler.stop()
        await relay.promoter.stop()

    async def _drain_api(self, patience: float) -> None:
        if hasattr(self, "api"):
            await self.api.drain(patience)

    async def _drain_delivery(self, relay: Relay, deadline: float) -> None:
        """Let sessions finish what they carry, then end them; what is answered is settled before the spool closes."""
        dispatchers = [*relay.dispatchers.values(), *relay.retired]
        relay.gates.close()
        for dispatcher in dispatchers:
            dispatcher.retire()
        while time.monotonic() < deadline and not all(dispatcher.is_quiet for dispatcher in dispatchers):
            await asyncio.sleep(0.02)
        for dispatcher in dispatchers:
            dispatcher.cut()
        if self.failed:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(max(deadline - time.monotonic(), 1.0)):
                await relay.reporter.idle()
                while relay.settler.pending and not self.spool.settles_stuck:
                    await asyncio.sleep(0.005)

    async def reload(self) -> list[str]:
        """Read the configuration again; gives what is wrong with it, nothing if it is in use now."""
        self._notifier.reloading()
        try:
            config = load(self.config.source, os.environ)
            keyring = make_keyring(config)
            make_return_paths(config)  # their key may be gone
        except ConfigError as error:
            problems = error.render().splitlines()
        except (KeyUnreadable, OSError, ValueError) as error:
            problems = [str(error)]
        else:
            problems = self._fixed_keys(config)
        self._notifier.ready("reloaded" if not problems else "reload refused")
        if problems:
            log.error("the configuration was not reloaded: %s", "; ".join(problems))
            return problems
        self.config = config
        self.api.follow(config)
        self.relay.apply(self.accounts.lay_over(config), keyring)
        self.bounces.follow(config)
        await self.relay.suppression.follow(config.suppression)
        await self.outreach.follow(config.outreach)
        await self.relay.scheduler.refresh()
        log.info("the configuration was reloaded")
        return []

    def _fixed_keys(self, config: Config) -> list[str]:
        """Name what only a restart can change."""
        fixed = ("data_directory", "listeners", "http_address", "log", "dns", "tls")
        changed = [key for key in fixed if getattr(config, key) != getattr(self.config, key)]
        return [f"{key} has changed, which takes a restart" for key in changed]

    def _start_log(self, loop: asyncio.AbstractEventLoop) -> Callable[[], int]:
        if self._log_to is None:
            return lambda: 0
        settings = self.config.log
        output = Output[Line](self._log_to, loop, encoder(settings.format))
        self.feed.listen(listen_from(settings.level, output.write))
        undo = install_program_log(ProgramLog(output.write_from_anywhere), settings.level)
        # What aiosmtpd says of a session, our own events say better; its "debug" has what clients send, logins too.
        logging.getLogger("mail.log").setLevel(logging.ERROR)
        self._undo += [lambda: output.close(LOG_PATIENCE), undo]
        return lambda: output.dropped

    def _unhealthy(self) -> list[str]:
        reasons = [self.failed] if self.failed else []
        if self._lag.seconds > UNHEALTHY_LAG:
            reasons.append(f"the event loop lags by {self._lag.seconds:.1f} s")
        return reasons

    def _unready(self) -> list[str]:
        reasons = self._unhealthy()
        if not self._ready:
            reasons.append("the relay is starting or stopping")
        if not self.relay.has_space:
            reasons.append("the disk is nearly full")
        return reasons

    async def _keep_watch(self) -> None:
        """Once a second: time-outs, disk space, changed keys and certificates, the watchdog, old history."""
        next_history, next_alive = 0.0, 0.0
        while True:
            now = self._clock()
            try:
                self._look(now)
                if now >= next_history:
                    next_history = now + HISTORY_WATCH
                    self.relay.tidy()
                    await self.spool.forget_history(now - self.config.history_keep)
                    await self.relay.suppression.forget_expired()
                    await bury(self.spool, now)
                    await asyncio.to_thread(self.api.attachments.sweep, now)
                    await forget_records(self.spool.records, now)
            except Exception:
                log.exception("the watch failed")
            if self._notifier.watchdog_interval and now >= next_alive:
                next_alive = now + self._notifier.watchdog_interval
                self._notifier.alive()
            await asyncio.sleep(WATCH)

    def _look(self, now: float) -> None:
        relay = self.relay
        self.api.keys.tick(now)
        relay.remedies.tick(now)
        relay.suspender.tick(now)
        for dispatcher in [*relay.dispatchers.values(), *relay.retired]:
            dispatcher.tick(now)
        relay.forget_retired()
        space = self.spool.free_space()
        minimum = self.config.submission.min_free_space
        had_space, relay.has_space = relay.has_space, space.octets >= minimum and space.inode_ratio >= INODES_LEFT
        if had_space and not relay.has_space:
            log.error("mail is refused: %d octets free, %d are wanted", space.octets, minimum)
        for problem in relay.keyring.reload_if_changed():
            log.error("%s", problem)
        relay.intake.signers.tend(relay.keyring.keys)
        if relay.tls is not None:
            changed = relay.tls.reload_if_changed()
            if changed:
                log.log(logging.ERROR if isinstance(changed, str) else logging.INFO, "certificate: %s", changed)

    def _tell_recovery(self) -> None:
        found = self.spool.recovered
        if found.swept:
            log.warning("recovery: %d content files that were never accepted were deleted", len(found.swept))
        if found.set_aside:
            log.error("recovery: damaged files were moved to %s: %s", found.set_aside, found.reason)
        for number in found.lost:
            log.error("recovery: the content of message %s is missing or damaged; it is parked", format_id(number))

    def _fatal(self, reason: str) -> None:
        self.failed = reason
        log.critical("the spool failed, so the relay stops: %s", reason)
        self.ask_to_stop()


def _foreign_owner(folder: Path) -> tuple[str, ...]:
    """Warn when the data directory is another user's, who could not read what this relay will write."""
    owner, mine = folder.stat().st_uid, os.geteuid()
    if owner == mine:
        return ()
    return (f"{folder} belongs to user {owner}, and this relay runs as user {mine}: it should run as that user",)


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """Say in an OSError which of our addresses cannot be had."""
    try:
        yield
    except OSError as error:
        raise type(error)(error.errno, f"{what}: {error.strerror or error}") from error
