"""Whether limits are used: mail that nothing but limits holds back waits because one of them is used up."""

from collections import deque

from sim_patience import FIRST_SESSIONS, _is_plain, _limits_of, _may_have_mail, _restraints_of
from sim_plan import HOME, WELL, Mail, Plan
from sim_site import Site

from smarthost.policy.rate import Rate, parse_rate

MOST_IDLE = 0.05  # of the time in which mail waits, for which limits have room and nothing goes
AT_ONCE = 5.0  # seconds that count for nothing: the first connection, and the last
BUCKET = 65 / 64  # quotas are counted in parts of their period; worlds with crashes, which cost a 32nd, are left out


class Meter:
    """When one more may go by some rates, by arithmetic of its own: a leaking bucket, or a list of times."""

    def __init__(self, texts: tuple[str, ...]) -> None:
        """Begin with nothing let through."""
        self._rates = tuple(map(parse_rate, texts))
        self._levels = [0.0] * len(self._rates)
        self._last = 0.0
        self._times: deque[float] = deque(maxlen=max((r.count for r in self._rates if r.is_quota), default=1))

    def take(self, now: float) -> None:
        """Count one."""
        for index, rate in enumerate(self._rates):
            self._levels[index] = self._level(index, rate, now) + 1.0
        self._last = now
        self._times.append(now)

    def free_at(self) -> float:
        """Give the time from which one more may go."""
        free = 0.0
        for index, rate in enumerate(self._rates):
            if rate.is_quota:
                # All of it: what a quota may lose is that it lets go a 64th of its period late, which is 98.5 % of use.
                if len(self._times) >= rate.count:
                    free = max(free, self._times[-rate.count] + rate.period * BUCKET)
            else:
                excess = self._levels[index] + 1.0 - rate.burst
                free = max(free, self._last + excess * rate.period / rate.count)
        return free

    def _level(self, index: int, rate: Rate, now: float) -> float:
        return max(0.0, self._levels[index] - (now - self._last) * rate.count / rate.period)


class Group:
    """Mail for one domain of a site that has no fault: what waits, and for how long it need not have waited."""

    def __init__(self, site: Site, meters: dict[str, Meter], sessions: int) -> None:
        """Begin with nothing waiting."""
        self.site, self.meters, self.sessions = site, meters, sessions
        self.waiting: set[tuple[str, str]] = set()  # message and recipient
        self.flying: dict[str, set[str]] = {}  # by message: recipients on their way
        self.idle = self.waited = self.last = 0.0
        temper = site.temper
        self.allowance = 12 * 1.5 * temper.latency + 12 * temper.think + 0.03  # to open a session and come to MAIL

    def advance(self, now: float, is_excused: bool, busy: int) -> None:
        """Take the time since the last event into account."""
        if any(message not in self.flying for message, _ in self.waiting) and not is_excused:
            self.waited += now - self.last
            if busy < self.sessions:
                free = max(meter.free_at() for meter in self.meters.values())
                self.idle += max(0.0, now - max(self.last, free) - self.allowance)
        self.last = now


class Use:
    """Follows all groups of one run whose limits bind, and at the end says which were not used to 95 %."""

    def __init__(self, plan: Plan) -> None:
        """Find the domains of which something can be demanded."""
        self.groups: dict[str, Group] = {}
        self._plan = plan
        others = any(limit.match.sender_domain or limit.match.user for limit in plan.limits)
        if others or plan.relayhosts or plan.rules or plan.acts or plan.moves or plan.dns_outages or plan.full:
            return
        if plan.suppression.enabled or plan.sts or plan.crashes or plan.reloads:
            return
        for site in plan.sites:
            if site.name not in (HOME, WELL) and _is_plain(site) and _may_have_mail(plan, site):
                self._add(site)

    def _add(self, site: Site) -> None:
        plan, limit = self._plan, _limits_of(self._plan, site)
        shared: dict[str, Meter] = {}
        sessions = FIRST_SESSIONS
        if limit is not None:
            shared = {"messages": Meter(limit.message_rate or ()), "recipients": Meter(limit.recipient_rate or ())}
            sessions = min(sessions, limit.max_connections or sessions)
            if limit.max_connection_rate or limit.max_messages_per_connection or limit.max_recipients_per_transaction:
                return
        for domain, hosts in plan.exchangers.items():
            if not hosts[0][1].endswith(f".{site.name}"):
                continue
            meters = dict(shared)
            for number, each in enumerate(_restraints_of(plan, [domain])):
                meters[f"messages {number}"] = Meter(each.message_rate or ())
                meters[f"recipients {number}"] = Meter(each.recipient_rate or ())
                if each.max_connections:
                    return
            if meters:
                self.groups[domain] = Group(site, meters, sessions)

    def came(self, mail: Mail, now: float) -> None:
        """Take a message that is on disk."""
        if mail.held or mail.requiretls or any(recipient in self._plan.refusals for recipient in mail.recipients):
            return
        for recipient in mail.recipients:
            if (group := self.groups.get(recipient.rpartition("@")[2])) is not None:
                self._advance(now)
                group.waiting.add((f"m{mail.number}", recipient))

    def went(self, key: str, recipients: list[str], now: float) -> None:
        """Take a transaction that begins."""
        domain = recipients[0].rpartition("@")[2]
        group = self.groups.get(domain)
        if group is None:
            return
        self._advance(now)
        group.flying.setdefault(key, set()).update(recipients)
        for name, meter in group.meters.items():
            for _ in recipients if name.startswith("recipients") else recipients[:1]:
                meter.take(now)
        group.waiting -= {(key, recipient) for recipient in recipients}

    def ended(self, key: str, recipient: str, now: float) -> None:
        """Take the end of one recipient."""
        group = self.groups.get(recipient.rpartition("@")[2])
        if group is None:
            return
        self._advance(now)
        group.waiting.discard((key, recipient))
        if key in group.flying:
            group.flying[key].discard(recipient)
            if not group.flying[key]:
                del group.flying[key]

    def _advance(self, now: float) -> None:
        for group in self.groups.values():
            busy = sum(len(each.flying) for each in self.groups.values() if each.site is group.site)
            group.advance(now, False, busy)

    def unused(self) -> list[str]:
        """Say which groups have waited though their limits had room."""
        return [
            f"mail for {domain} waited {group.waited:.0f} s, {group.idle:.1f} s of them though its limits had room"
            for domain, group in self.groups.items()
            if group.idle > MOST_IDLE * group.waited + AT_ONCE
        ]
