"""Connect: the next candidate, and the next, until one gives a session; what failed is remembered for a while."""

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from ipaddress import ip_address
from itertools import groupby
from random import Random

import msgspec

from smarthost.delivery.egress import Egress, families
from smarthost.delivery.pauses import Pauses
from smarthost.delivery.tls_policies import TlsPolicies
from smarthost.delivery.transfer import Ending
from smarthost.mail.envelope import Recipient
from smarthost.mail.outcome import Action, Outcome, Scope, Stage
from smarthost.mail.reply import EnhancedStatus
from smarthost.mail.route import Deliver, Host, Site
from smarthost.network.session import OpenFault, Session, SessionSettings, Timeouts, TlsContexts, open_session
from smarthost.policy.classify import NetFault, Verdict, classify_fault, classify_reply
from smarthost.policy.security import Proof

log = logging.getLogger(__name__)

MAX_ADDRESSES = 5  # tried in one attempt of MX delivery (Postfix: smtp_mx_address_limit)
MAX_SESSIONS = 2  # that got an answer and led to nothing, in one attempt of MX delivery (smtp_mx_session_limit)
NO_TLS = EnhancedStatus(5, 7, 10)  # of a message with REQUIRETLS that no host can take safely (RFC 8689 4.2.1)
_HOPELESS = frozenset({NetFault.TLS_MISSING, NetFault.CERTIFICATE})
TROUBLE = 60.0  # seconds for which an address that did not answer is tried behind all others


class Unreached(msgspec.Struct, frozen=True):
    """Why there is no session: the last fault, what it means, and where it happened ("" where nothing was tried).

    `is_remembered` says that the fault is an older one, for which the place is still left alone.
    """

    fault: OpenFault
    verdict: Verdict
    host: str
    address: str
    is_remembered: bool = False

    @property
    def reason(self) -> str:
        """The fault as a sentence; never empty."""
        return self.fault.reason


class Connector:
    """Opens sessions to sites.

    `pauses` are hosts and logins that are left alone after they refused us as a whole, for the seconds that the
    verdict says; `settings_for` says how sessions of a site are opened, and `policies` what TLS must prove at a host
    (without them: what the settings say). `login_paused` is called with each site whose login is left alone, and why.
    """

    def __init__(
        self,
        settings_for: Callable[[Site], SessionSettings],
        contexts: TlsContexts,
        clock: Callable[[], float],
        rng: Random,
        timeouts: Timeouts | None = None,
        policies: TlsPolicies | None = None,
    ) -> None:
        """Join the parts; begin with nothing paused."""
        self._settings_for = settings_for
        self._contexts = contexts
        self._clock = clock
        self._rng = rng
        self._timeouts = timeouts or Timeouts()
        self._policies = policies
        self.pauses: Pauses[Unreached] = Pauses()
        self._troubled: Pauses[None] = Pauses()
        self.egress = Egress(clock, rng)
        self.login_paused: Callable[[Site, float, Unreached], None] = lambda site, until, cause: None

    async def connect(
        self, site: Site, hosts_tried: Sequence[str] = (), first: Sequence[str] = (), domain: str = ""
    ) -> Session | Unreached:
        """Try the site's hosts in order until one gives a session; those in `hosts_tried` go last, `first` go first.

        `domain` is that of the mail for which it is opened, "" where there is none yet.

        For MX delivery at most 5 addresses are tried, and 2 that answer. A refused login ends the search at once:
        it would be refused everywhere, and counted.
        """
        settings, sources = self._settings_for(site), self.egress.draw(site.route.source_address)
        if settings.credentials is not None and (left := self._left_alone(_login_place(site))):
            return left
        last: Unreached | None = None
        is_hopeless = True
        addresses = sessions = 0
        for host, address in self._candidates(site, hosts_tried, families(sources, settings.source_address), first):
            if left := self._left_alone(_host_place(site, host)):
                last, is_hopeless = last or left, is_hopeless and left.fault.fault in _HOPELESS
                continue
            attempt = partial(self._open, site, host, domain, address)
            opened = await self.egress.open(address, sources, settings, attempt)
            if isinstance(opened, Session):
                self._troubled.resume(address)
                return opened
            last, is_hopeless = self._note(site, host, address, opened), is_hopeless and opened.fault in _HOPELESS
            addresses += 1
            sessions += opened.stage is not Stage.CONNECT
            if last.verdict.scope >= Scope.SITE:
                break
            if site.route.deliver is Deliver.MX and (addresses >= MAX_ADDRESSES or sessions >= MAX_SESSIONS):
                break
        if last is not None and is_hopeless and site.route.demand:
            verdict = Verdict(Action.FAILED, last.verdict.scope, NO_TLS, last.verdict.pause)
            last = msgspec.structs.replace(last, verdict=verdict)
        return last or _no_candidate([*(source.address for source in sources), settings.source_address])

    def leave_alone(self, site: Site, session: Session, ending: Ending) -> None:
        """Leave a host, or for scope SITE the login, alone because of what ended a session with it."""
        now, host = self._clock(), session.host
        fault = OpenFault(ending.stage or Stage.CONTENT, ending.fault, ending.reply, ending.reason)
        status = ending.reply.status if ending.reply is not None else EnhancedStatus(4, 4, 2)
        verdict = Verdict(Action.DELAYED, ending.scope, EnhancedStatus(4, status.subject, status.detail), ending.pause)
        self._pause(site, host, Unreached(fault, verdict, host.name, session.address), now)

    def leave_login_alone(self, login: tuple[str, str, str], until: float, cause: Unreached) -> None:
        """Leave a login, by its route, its name and its upstream, alone until a time, as a life before has found."""
        self.pauses.pause(_login_of(*login), until, cause, self._clock())

    def login_pause(self, site: Site) -> tuple[float, Unreached] | None:
        """Give until when the login of a site is left alone, and why; None when it is not."""
        return self.pauses.cause(_login_place(site), self._clock())

    def is_dead(self, site: Site, host: Host) -> bool:
        """Whether a host of a site is left alone, or none of its addresses has answered lately."""
        now = self._clock()
        if self.pauses.is_paused(_host_place(site, host), now):
            return True
        return all(self._troubled.is_paused(address, now) for address in host.addresses)

    def host_pause(self, site: Site, host: Host) -> tuple[float, Unreached] | None:
        """Give until when a host of a site is left alone, and why; None when it is not."""
        return self.pauses.cause(_host_place(site, host), self._clock())

    def trouble(self, address: str) -> float | None:
        """Give until when an address that did not answer is tried behind all others; None when it is not."""
        paused = self._troubled.cause(address, self._clock())
        return paused[0] if paused is not None else None

    def clear(self) -> None:
        """End all pauses, as after a reload."""
        self.pauses.clear()
        self._troubled.clear()
        self.egress.clear()
        if self._policies is not None:
            self._policies.clear()

    async def _open(
        self, site: Site, host: Host, domain: str, address: str, settings: SessionSettings
    ) -> Session | OpenFault:
        """Open a session to one address as the host's TLS policy wants."""
        if self._policies is not None:
            policy = await self._policies.of(site, host, domain)
            if isinstance(policy, OpenFault):
                return policy
            settings = msgspec.structs.replace(settings, policy=policy)
        try:
            opened = await open_session(host, address, settings, self._contexts, self._timeouts, self._clock)
        except Exception:
            # A fault in this program, which some peer has found: the other hosts are tried, and the mail waits.
            log.exception("opening a session with %s (%s) failed", host.name, address)
            return OpenFault(Stage.CONNECT, NetFault.PROTOCOL_ERROR, None, "a fault in this program; the log has it")
        if isinstance(opened, Session):
            opened.is_named = opened.proof is not Proof.CA or _is_named(site, host)
            if site.route.deliver is not Deliver.MX:
                opened.only_for = ()  # all mail of the route goes to that next hop
            if self._policies is not None:
                self._policies.learn(site, opened)
        return opened

    def _candidates(
        self, site: Site, hosts_tried: Sequence[str], versions: Collection[int] = (), first: Sequence[str] = ()
    ) -> Iterator[tuple[Host, str]]:
        """Give host and address of each candidate in the order of trial.

        Hosts of one preference are shuffled anew for each session, so that they share the load (RFC 5321 5.1).
        Addresses that did not answer lately go last; only those of a source address's family are of use.
        """
        hosts: list[Host] = []
        for _, equals in groupby(site.hosts, key=lambda host: host.preference):
            group = list(equals)
            self._rng.shuffle(group)
            hosts += group
        hosts.sort(key=lambda host: (host.name not in first, host.name in hosts_tried))
        now = self._clock()
        pairs = [(host, address) for host in hosts for address in host.addresses]
        pairs.sort(key=lambda pair: self._troubled.is_paused(pair[1], now))
        return (pair for pair in pairs if not versions or ip_address(pair[1]).version in versions)

    def _note(self, site: Site, host: Host, address: str, fault: OpenFault) -> Unreached:
        """Say what a fault means, and remember whom it touched."""
        now = self._clock()
        verdict = _classify(fault)
        unreached = Unreached(fault, verdict, host.name, address)
        if verdict.pause:
            if verdict.scope >= Scope.SITE and not self.pauses.is_paused(_login_place(site), now):
                # Sessions that were opened together are refused together; that is one alert.
                text = "the login of route %s is left alone for %.0f s: %s"
                where = (
                    f"{site.route.name}, upstream {site.route.upstream}," if site.route.upstream else site.route.name
                )
                log.error(text, where, verdict.pause, unreached.reason)
            self._pause(site, host, unreached, now)
        elif fault.reply is None and fault.fault is not NetFault.SOURCE_UNUSABLE:
            self._troubled.pause(address, now + TROUBLE, None, now)
        return unreached

    def _pause(self, site: Site, host: Host, unreached: Unreached, now: float) -> None:
        """Leave alone what a fault is about: the login, or one host."""
        until = now + unreached.verdict.pause
        if unreached.verdict.scope >= Scope.SITE:
            self.pauses.pause(_login_place(site), until, unreached, now)
            self.login_paused(site, until, unreached)
        else:
            self.pauses.pause(_host_place(site, host), until, unreached, now)

    def _left_alone(self, place: str) -> Unreached | None:
        """Give the fault for which a place is left alone now, None when it may be tried."""
        now = self._clock()
        paused = self.pauses.cause(place, now)
        if paused is None:
            return None
        until, unreached = paused
        reason = f"{unreached.reason} (left alone for {until - now:.0f} s more)"
        fault = msgspec.structs.replace(unreached.fault, reason=reason)
        verdict = msgspec.structs.replace(unreached.verdict, pause=until - now)
        return msgspec.structs.replace(unreached, fault=fault, verdict=verdict, is_remembered=True)


def outcomes_of(unreached: Unreached, recipients: Sequence[Recipient]) -> list[Outcome]:
    """Give each recipient the outcome of an attempt that found no session."""
    fault, verdict = unreached.fault, unreached.verdict
    action, scope, status = verdict.action, verdict.scope, verdict.status
    return [
        Outcome(
            recipient, action, scope, fault.stage, status, fault.reason, fault.reply, unreached.host, unreached.address
        )
        for recipient in recipients
    ]


def _classify(fault: OpenFault) -> Verdict:
    if fault.reply is not None:
        return classify_reply(fault.stage, fault.reply, soft_bounce=False)
    assert fault.fault is not None
    return classify_fault(fault.stage, fault.fault)


def _no_candidate(sources: Sequence[str]) -> Unreached:
    what = " ".join(["no address that can be reached", *(f"from {source}" for source in sources if source)])
    fault = OpenFault(Stage.CONNECT, NetFault.UNREACHABLE, None, what)
    return Unreached(fault, _classify(fault), "", "")


def _is_named(site: Site, host: Host) -> bool:
    """Whether the configuration names a host, or DNSSEC proves how we came to its name."""
    return host.secure or any(hop.host == host.name and not hop.by_mx for hop in site.route.next_hops)


# Routes do not share pauses: what one may not do, with its login and TLS level, another may; nor do demands.
def _host_place(site: Site, host: Host) -> str:
    route = site.route
    demand = f"{route.tls} {site.sts} {route.demand} {bool(host.tlsa_names)}"
    return f"host {route.name} {host.name}:{host.port} {demand}"


def _login_place(site: Site) -> str:
    return _login_of(site.route.name, site.route.login, site.route.upstream)


# Nor do the upstreams of a pool that log in alike: who refuses a password says nothing about others.
def _login_of(route: str, login: str, upstream: str) -> str:
    return f"login {route} {login} {upstream}"
