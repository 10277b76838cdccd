"""Draws a run from its seed: sites and their tempers, DNS, limits, mail, and when the relay crashes."""

from dataclasses import dataclass, field
from random import Random

from sim_site import Site, Temper

from smarthost.mail.envelope import Notify, Priority
from smarthost.mail.route import TlsLevel
from smarthost.policy.automation import AutomationRule
from smarthost.policy.conversion import Conversions
from smarthost.policy.limits import Limit, LimitMatch
from smarthost.policy.suppression import SuppressionRules

ARRIVING = 600.0  # seconds in which mail arrives
LIFETIME = 1800.0  # seconds that a message is tried
OVER = ARRIVING + 3 * LIFETIME  # seconds after which everything, reports on reports' senders too, has ended
HOME, WELL = "home.example", "well.example"  # the senders' own domain, and one whose site never fails
GONE, NULL, UNSURE = "gone.example", "null.example", "unsure.example"  # no such name, null MX, DNS that fails


@dataclass(frozen=True)
class Mail:
    """One message: when it arrives (seconds since the beginning), from whom, to whom, how long and how urgent it is."""

    number: int
    at: float
    reverse_path: str
    recipients: tuple[str, ...]
    notify: int
    size: int
    identity: str = ""
    priority: Priority = Priority.MEDIUM
    held: float = 0.0  # seconds for which it is to wait first
    script: str = ""  # "body" for octets above 127 there, "header" for some in a field as well
    requiretls: bool = False

    @property
    def content(self) -> bytes:
        """Write it; its number stands in the Subject."""
        header = (
            f"From: <{self.reverse_path or 'x@home.example'}>\r\nDate: Mon, 1 Jan 2029 00:00:00 +0000\r\n"
            f"Message-ID: <sim{self.number}@home.example>\r\nSubject: sim {self.number}\r\n\r\n"
        )
        line = b"..dots and words, " * 3 + b"\r\n.x\r\n"
        if self.script:
            field = "To: J\u00fcrg <x@home.example>\r\n" if self.script == "header" else ""
            field += (
                "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"
            )
            header, line = f"{field}{header}", "..Gr\u00fc\u00dfe \u4f60\u597d\r\n.x\r\n".encode()
        return header.encode() + line * max(1, self.size // len(line))


@dataclass
class Plan:
    """Everything that is decided before a run. Spans of time are seconds since the beginning."""

    sites: list[Site] = field(default_factory=list)
    exchangers: dict[str, list[tuple[int, str]]] = field(default_factory=dict)  # by domain; none: its own addresses
    addresses: dict[str, tuple[str, ...]] = field(default_factory=dict)  # by host
    owner: dict[str, Site] = field(default_factory=dict)  # by address
    refusals: dict[str, tuple[float, bytes]] = field(default_factory=dict)  # by recipient: until when, and what
    limits: list[Limit] = field(default_factory=list)
    mails: list[Mail] = field(default_factory=list)
    crashes: list[tuple[float, float]] = field(default_factory=list)  # when, and for how long the relay is down
    reloads: list[float] = field(default_factory=list)
    full: list[tuple[float, float]] = field(default_factory=list)  # when the disk is
    dns_outages: list[tuple[float, float]] = field(default_factory=list)
    moves: list[tuple[float, str, str]] = field(default_factory=list)  # when, which domain, to whose hosts
    ttl: float = 300.0  # seconds that DNS records may be kept
    relayhosts: list[str] = field(default_factory=list)  # sites that are next hops, in order
    pool: list[tuple[int, int, tuple[str, ...]]] = field(
        default_factory=list
    )  # their order, weight, quota; none: a list
    relayed: list[str] = field(default_factory=list)  # domains whose mail goes to them; none: all
    acts: list[tuple[float, str, str]] = field(
        default_factory=list
    )  # when a person does what, with which domain's mail
    bounds: dict[str, int] = field(default_factory=dict)  # of the scheduler's memory
    disk_stalls: bool = True
    tls: TlsLevel = TlsLevel.NONE  # of all routes
    sts: dict[str, tuple[str, str]] = field(default_factory=dict)  # by domain: mode, and the pattern of its mail hosts
    token_lifetime: float = 0.0  # seconds that an access token is good for; 0: logins are by password
    token_outages: list[tuple[float, float]] = field(default_factory=list)  # when the token server gives none
    revocations: list[float] = field(default_factory=list)  # when all tokens are taken back
    rules: list[AutomationRule] = field(default_factory=list)
    aside: str = ""  # the site that mail is led to by rules that switch routes
    suppression: SuppressionRules = field(default_factory=SuppressionRules)
    conversion: Conversions = field(default_factory=Conversions)


def draw(seed: int) -> Plan:
    """Draw a run."""
    rng, plan = Random(seed), Plan()
    for domain in (HOME, WELL):
        temper = Temper()
        temper.latency, temper.split = rng.uniform(0.001, 0.2), rng.choice((0.0, 0.2, 0.8))
        temper.pipelining = rng.random() < 0.7
        temper.chunking = rng.choice(("", "reads", "keeps"))
        if domain == HOME:
            temper.deaths, temper.cuts = rng.choice((0.0, 0.1)), rng.choice((0.0, 0.1))
        _add_site(plan, domain, [domain], [1], temper)
    domains = [HOME, WELL]
    for number in range(rng.randint(1, 5)):
        name = f"s{number}.example"
        hosted = [name] + [f"also{n}.{name}" for n in range(rng.choice((0, 0, 1, 2)))]
        hosts = [rng.randint(1, 3) for _ in range(rng.choice((1, 1, 2, 3)))]
        temper = _draw_temper(rng)
        site = _add_site(plan, name, hosted, hosts, temper, even=rng.random() < 0.5)
        _break_some(rng, plan, site)
        _limit(rng, plan, site)
        _restrain(rng, plan, hosted)
        domains += hosted
    domains += [name for name in (GONE, NULL, UNSURE) if rng.random() < 0.2]
    _draw_mail(rng, plan, domains)
    _draw_trouble(rng, plan)
    if rng.random() < 0.35:
        _draw_relayhosts(rng, plan, domains)
        _draw_pool(Random(f"pool {seed}"), plan)
    elif rng.random() < 0.3:
        _draw_moves(rng, plan, domains)
    if rng.random() < 0.3:
        _draw_acts(rng, plan, domains)
    return plan


def _add_site(
    plan: Plan, name: str, domains: list[str], hosts: list[int], temper: Temper, *, even: bool = True
) -> Site:
    site = Site(name, temper)
    plan.sites.append(site)
    records = []
    for number, count in enumerate(hosts):
        host = f"mx{number}.{name}"
        records.append((10 if even else 10 * (number + 1), host))
        plan.addresses[host] = tuple(f"10.{len(plan.sites)}.{number}.{n}" for n in range(1, count + 1))
        for address in plan.addresses[host]:
            plan.owner[address] = site
    for domain in domains:
        plan.exchangers[domain] = records
    return site


def _spans(rng: Random, count: int, longest: float) -> list[tuple[float, float]]:
    starts = [rng.uniform(0.0, ARRIVING) for _ in range(count)]
    return [(start, start + rng.uniform(1.0, longest)) for start in starts]


def _draw_temper(rng: Random) -> Temper:
    """Give a site some of the faults that there are; about a fifth has none."""
    temper = Temper()
    temper.latency = rng.choice((0.0005, 0.01, 0.05, 0.3, 1.0))
    temper.think = rng.choice((0.0001, 0.01, 0.5, 3.0))
    temper.split = rng.choice((0.0, 0.3, 1.0))
    temper.pipelining, temper.dsn, temper.old = rng.random() < 0.7, rng.random() < 0.5, rng.random() < 0.05
    temper.pipelining = temper.pipelining and not temper.old
    temper.dsn = temper.dsn and not temper.old
    if rng.random() < 0.5 and not temper.old:
        temper.chunking = rng.choice(("reads", "keeps", "closes", "reads", "keeps", "closes", "liar"))
    if rng.random() < 0.2:
        return temper
    some = lambda chance, value: value if rng.random() < chance else 0.0  # noqa: E731
    temper.greylist = some(0.25, rng.uniform(10.0, 400.0))
    temper.cuts = some(0.4, rng.choice((0.05, 0.2, 0.6)))
    temper.deaths = some(0.35, rng.choice((0.02, 0.1, 0.4)))
    temper.tarpits = some(0.2, rng.choice((0.02, 0.3)))
    temper.delay = rng.choice((10.0, 120.0, 700.0))
    temper.dismissals = some(0.2, rng.choice((0.01, 0.1)))
    temper.refusals = some(0.3, rng.choice((0.05, 0.3)))
    temper.patience = some(0.3, rng.choice((0.5, 3.0, 30.0)))
    temper.max_recipients = int(some(0.25, rng.choice((1, 2, 3))))
    temper.max_transactions = int(some(0.2, rng.choice((1, 2, 5))))
    if rng.random() < 0.25:
        temper.storms = _spans(rng, rng.randint(1, 3), 400.0)
    if rng.random() < 0.25:
        temper.down = _spans(rng, rng.randint(1, 2), 1000.0)
    elif rng.random() < 0.1:
        temper.down = [(0.0, 1e9)]
    return temper


def _break_some(rng: Random, plan: Plan, site: Site) -> None:
    """Half-dead sets of hosts: some addresses never work, others do."""
    if rng.random() < 0.3:
        for address in [address for address, owner in plan.owner.items() if owner is site]:
            if rng.random() < 0.5:
                site.temper.modes[address] = rng.choice(("refuse", "timeout", "busy", "rude"))


def _limit(rng: Random, plan: Plan, site: Site) -> None:
    if rng.random() < 0.5:
        return
    rates = ("30/min", "2/s,max_burst=3", "10/min,max_burst=4", "40/h")
    plan.limits.append(
        Limit(
            LimitMatch(site=f"mx0.{site.name}"),
            max_connections=rng.choice((None, 1, 2, 3)),
            max_connection_rate=rng.choice((None, None, "1/s", "20/min,max_burst=2")),
            message_rate=rng.choice((None, None, (rng.choice(rates),), ("2/s,max_burst=3", "40/h"))),
            max_messages_per_connection=rng.choice((None, 1, 3)),
            max_recipients_per_transaction=rng.choice((None, 1, 2)),
            idle_timeout=rng.choice((None, 0.5, 20.0)),
        )
    )


def _restrain(rng: Random, plan: Plan, hosted: list[str]) -> None:
    """Limit a destination of the site, or each of them, whatever the site may be given in all."""
    if rng.random() < 0.7:
        return
    plan.limits.append(
        Limit(
            LimitMatch(destination=rng.choice((hosted[-1], f"*{hosted[0]}"))),
            message_rate=rng.choice((None, ("20/min",), ("1/s,max_burst=3", "60/h"), ("90/h",))),
            recipient_rate=rng.choice((None, ("1/s,max_burst=4",), ("90/h",))),
            max_connections=rng.choice((None, 1, 2)),
            number=len(plan.limits) + 1,
        )
    )


def _draw_mail(rng: Random, plan: Plan, domains: list[str]) -> None:
    people = [f"{name}@{domain}" for domain in domains for name in ("ann", "bob", "cat", "dan")]
    people += [f"{name}@{domain}" for domain in domains[2:] for name in ("eve", "fay", "gus", "hal")]
    for person in people:
        if not person.endswith((f"@{HOME}", f"@{WELL}")) and rng.random() < 0.15:
            until = rng.choice((200.0, 900.0, 1e9))
            plan.refusals[person] = rng.choice(
                ((1e9, b"550 5.1.1 no such user"), (until, b"450 4.2.1 not now"), (until, b"452 4.2.2 mailbox full"))
            )
    at, burst, is_mixed = 0.0, rng.random() < 0.3, rng.random() < 0.4
    for number in range(rng.choice((5, 10, 20, 40, 80))):
        at = min(at + rng.expovariate(1 / (0.01 if burst else 15.0)), ARRIVING)
        if burst and rng.random() < 0.05:
            at = min(at + rng.uniform(0.0, 300.0), ARRIVING)
        plan.mails.append(
            Mail(
                number,
                at,
                rng.choice((f"ann@{HOME}", f"bob@{HOME}", "")),
                tuple(rng.sample(people, rng.choice((1, 1, 1, 2, 3, 5)))),
                rng.choice((0, 0, Notify.NEVER, Notify.SUCCESS | Notify.FAILURE, Notify.SUCCESS, Notify.FAILURE)),
                rng.choice((100, 100, 100, 2000, 20_000)) if rng.random() < 0.995 else 300_000,
                rng.choice(("", "app1", "app2")) if is_mixed else "",
                rng.choice(tuple(Priority)) if is_mixed else Priority.MEDIUM,
                rng.uniform(1.0, ARRIVING) if is_mixed and rng.random() < 0.1 else 0.0,
            )
        )


def _draw_trouble(rng: Random, plan: Plan) -> None:
    """Trouble of the relay's own: crashes, reloads, a full disk, name servers that fail, little memory."""
    if rng.random() < 0.5:
        times = sorted(rng.uniform(0.0, ARRIVING + 600.0) for _ in range(rng.randint(1, 4)))
        if rng.random() < 0.5 and plan.mails:
            # In the thick of it: while a message is under way.
            times = sorted(rng.choice(plan.mails).at + rng.uniform(0.0, 1.0) for _ in times)
        plan.crashes = [(at, rng.choice((0.0, 5.0, 300.0))) for at in times]
    if rng.random() < 0.2:
        plan.reloads = sorted(rng.uniform(0.0, ARRIVING) for _ in range(rng.randint(1, 3)))
    if rng.random() < 0.15:
        plan.full = _spans(rng, 1, 120.0)
    if rng.random() < 0.15:
        plan.dns_outages = _spans(rng, rng.randint(1, 2), 300.0)
    if rng.random() < 0.3:
        plan.bounds = {"QUEUE_BOUND": 6, "CROWDED_BOUND": 2, "TOTAL_BOUND": 60}


def _draw_relayhosts(rng: Random, plan: Plan, domains: list[str]) -> None:
    """Next hops, tried in order, that may want a login; for all mail, or for some domains."""
    chosen = []
    for number in range(rng.choice((1, 2, 3))):
        name = f"r{number}.example"
        site = _add_site(plan, name, [], [rng.randint(1, 2)], _draw_temper(rng))
        _break_some(rng, plan, site)
        _limit(rng, plan, site)
        chosen.append(site)
    plan.relayhosts = [site.name for site in chosen]
    if rng.random() < 0.5:
        plan.relayed = [domain for domain in domains[2:] if rng.random() < 0.5] or domains[2:3]
    if rng.random() < 0.4:
        for site in chosen:
            site.temper.wants_login, site.temper.old = True, False
            if rng.random() < 0.3:
                site.temper.login_refused = _spans(rng, 1, 300.0)


def _draw_pool(rng: Random, plan: Plan) -> None:
    """Half of the lists of next hops are pools: some share, some have quotas."""
    if rng.random() < 0.5:
        return
    order = 0
    for _ in plan.relayhosts:
        order += rng.random() < 0.5
        plan.pool.append(
            (order, rng.choice((1, 1, 3)), rng.choice(((), (), ("5/h",), ("12/h",), ("30/min",), ("2/s", "20/h"))))
        )
    if rng.random() < 0.4:
        # One that never fails; what may be ambiguous stays where it is, so that half of these worlds have none of it.
        sites = [site for site in plan.sites if site.name in plan.relayhosts]
        wanted, sites[-1].temper = sites[-1].temper.wants_login, Temper()
        sites[-1].temper.wants_login = wanted
        plan.pool[-1] = (*plan.pool[-1][:2], ())
        plan.limits = [limit for limit in plan.limits if limit.match.site != f"mx0.{sites[-1].name}"]
        for temper in (site.temper for site in sites if rng.random() < 0.7):
            temper.deaths = temper.cuts = temper.tarpits = temper.patience = 0.0


def _draw_moves(rng: Random, plan: Plan, domains: list[str]) -> None:
    """Mail hosts of domains that become others while mail waits."""
    names = [site.name for site in plan.sites if site.name not in (HOME, WELL)]
    plan.ttl = rng.choice((5.0, 60.0, 300.0))
    movable = [domain for domain in domains if domain in plan.exchangers and domain not in (HOME, WELL)]
    plan.moves = sorted(
        (rng.uniform(0.0, 2 * ARRIVING), rng.choice(movable), rng.choice((*names, "")))
        for _ in range(rng.randint(1, 6))
    )


def _draw_acts(rng: Random, plan: Plan, domains: list[str]) -> None:
    """What a person does to the queue. Mail for home is let alone where it would be lost: reports are among it."""
    for _ in range(rng.randint(1, 12)):
        act = rng.choice(("hold", "hold", "release", "flush", "flush", "retry", "fail", "delete"))
        chosen = rng.choice(domains[1:] if act in ("fail", "delete") else ["", *domains])
        if act == "retry" and rng.random() < 0.5:
            act, chosen = "suspend", rng.choice(("app1", "app2", *(f"mx0.{site.name}" for site in plan.sites[1:])))
        plan.acts.append((rng.uniform(0.0, ARRIVING + LIFETIME / 2), act, chosen))
    plan.acts.sort()
