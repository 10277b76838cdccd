"""The world around the relay: its network, its name servers, and what people there think of recipients."""

import asyncio
import ssl
from collections.abc import Callable
from hashlib import sha256
from random import Random
from typing import Any

from sim_loop import Clock
from sim_oracle import Oracle
from sim_patience import patience_of
from sim_plan import GONE, HOME, NULL, UNSURE, WELL, Plan
from sim_site import Session, Site, Temper, numbers_in
from sim_tls import Tls
from sim_tokens import TokenServer
from sim_wire import Line, Wire

from smarthost.network.dns_query import DnsFault, Records


class World:
    """Answers connections and questions of all lives of one relay."""

    def __init__(self, plan: Plan, rng: Random, clock: Clock) -> None:
        """Begin with nobody connected; `trace` is the story so far, times since the beginning with each line."""
        self.plan, self.rng, self.clock = plan, rng, clock
        self.trace: list[tuple[float, str, tuple[Any, ...]]] = []
        self._patience = patience_of(plan)
        self.oracle = Oracle(clock, self.say, self._patience_for, plan)
        self._wires: dict[Wire, None] = {}
        self._reached: dict[Wire, str] = {}
        self._connections = self._crashes = 0
        self.most_open: dict[str, int] = {}  # connections at once, by site
        self.tls, self.tokens = Tls(self, plan), TokenServer(self, plan)

    def _patience_for(self, recipient: str) -> float:
        return 0.0 if recipient in self.plan.refusals else self._patience.get(recipient.rpartition("@")[2], 0.0)

    def say(self, text: str, *values: Any) -> None:
        """Add a line to the trace."""
        self.trace.append((self.clock.elapsed, text, values))

    def story(self, last: int = 0) -> str:
        """Write the trace, or its last lines: seconds since the beginning, and what happened."""
        return "\n".join(f"{at:11.4f}  {text % values if values else text}" for at, text, values in self.trace[-last:])

    def digest(self) -> str:
        """Give a hash of the whole trace, to the microsecond: a replay is the same run if this is the same."""
        found = sha256()
        for at, text, values in self.trace:
            found.update(f"{at:.6f} {text % values if values else text}\n".encode())
        return found.hexdigest()[:16]

    def describe(self) -> str:
        """Write what was drawn."""
        plan, plain = self.plan, vars(Temper())
        lines = []
        for site in plan.sites:
            temper = {name: value for name, value in vars(site.temper).items() if value != plain[name]}
            hosts = sorted(address for address, owner in plan.owner.items() if owner is site)
            lines.append(f"{site.name} at {', '.join(hosts)}: {temper}")
        for name in (
            "limits",
            "refusals",
            "crashes",
            "reloads",
            "full",
            "dns_outages",
            "bounds",
            "moves",
            "relayhosts",
            "pool",
            "relayed",
            "acts",
            "sts",
            "token_lifetime",
            "token_outages",
            "revocations",
            "rules",
            "aside",
        ):
            if found := getattr(plan, name):
                lines.append(f"{name}: {found}")
        lines += [f"tls: {plan.tls}", str(plan.conversion), str(plan.suppression)]
        return "\n".join([*lines, f"{len(plan.mails)} messages", ""])

    def blame(self, fault: str) -> None:
        """Note something that is wrong."""
        self.oracle.blame(fault)

    def is_within(self, spans: list[tuple[float, float]]) -> bool:
        """Whether it is now one of these times."""
        now = self.clock.elapsed
        return any(since <= now < until for since, until in spans)

    def refusal_of(self, recipient: str) -> bytes:
        """Give what a site answers to a recipient now, b"" for yes."""
        until, reply = self.plan.refusals.get(recipient, (0.0, b""))
        return reply if self.clock.elapsed < until else b""

    def crash(self) -> None:
        """The relay's machine is gone."""
        for wire in tuple(self._wires):
            wire.vanish()
        self._wires.clear()
        self._reached.clear()
        for site in self.plan.sites:
            site.open = 0
        self._crashes += 1
        self.oracle.crashed()

    def accepted(
        self, site: Site, key: str, reverse_path: str, recipients: list[str], content: bytes
    ) -> Callable[[], None]:
        """Take a message that a site took; gives what to call when the 250 is read."""
        self.say("%s accepts %s for %s", site.name, key, ", ".join(recipients))
        if key.startswith("r") and recipients[0].endswith(f"@{HOME}"):
            self.oracle.reported(key, numbers_in(content), content)
            if reverse_path:
                self.blame(f"report {key} travels with the reverse-path {reverse_path}")
        return self.oracle.accepted(key, recipients, content)

    async def dial(self, address: str, _port: int) -> None:
        """Let a connection stand after a while, or not."""
        site, crashes = self.plan.owner[address], self._crashes
        site.open += 1
        self.most_open[site.name] = max(self.most_open.get(site.name, 0), site.open)
        if site.limits and site.open > site.limits.max_connections:
            self.blame(f"{site.name} has {site.open} connections, {site.limits.max_connections} are allowed")
        stands = False
        try:
            mode = site.temper.modes.get(address, "ok")
            if self.is_within(site.temper.down):
                mode = ("refuse", "timeout")[int(site.temper.down[0][0]) % 2]
            if mode == "timeout":
                await asyncio.sleep(1000.0)
            await asyncio.sleep(2 * site.temper.latency)
            if mode == "refuse":
                raise ConnectionRefusedError(111, "connection refused")
            stands = True
        finally:
            if not stands:
                self.say("%s cannot be reached", address)
                site.open -= crashes == self._crashes  # a crash has forgotten those that were being opened

    def connect(self, address: str, protocol: asyncio.Protocol) -> Wire:
        """Give the transport of a connection that stands now."""
        site, rng = self.plan.owner[address], self.rng
        temper = site.temper
        line = Line(temper.latency, temper.split)
        if rng.random() < temper.cuts:
            if rng.random() < 0.5:
                line.cut_up = rng.randrange(rng.choice((200, 2000)))
            else:
                line.cut_down = rng.randrange(rng.choice((150, 800)))
        self._connections += 1
        self.say("%s is connected (%d)", address, self._connections)

        def closed() -> None:
            site.open -= 1
            self._wires.pop(wire, None)
            self._reached.pop(wire, None)
            self.say("%s is closed", address)

        wire = Wire(protocol, line, rng, closed)
        self._wires[wire], self._reached[wire] = None, address
        protocol.connection_made(wire)
        wire.peer = Session(self, site, address, wire)
        return wire

    async def shake_hands(
        self, transport: Wire, context: ssl.SSLContext, name: str, timeout: float
    ) -> asyncio.Transport:
        """End a handshake."""
        address = self._reached[transport]
        return await self.tls.shake_hands(self.plan.owner[address], address, transport, context, name, timeout)

    def _mail_hosts_of(self, domain: str) -> Records:
        """Answer for a domain as it stands now; while it moves to nowhere, its name servers fail."""
        now = domain
        for at, moved, to in self.plan.moves:
            if moved == domain and at <= self.clock.elapsed:
                now = to
        if not now:
            return Records(fault=DnsFault.TEMPORARY)
        return Records(mx=tuple(self.plan.exchangers[now]), ttl=self.plan.ttl)

    async def ask(self, _stub: object, name: str, rdtype: str) -> Records:
        """Answer a question of DNS."""
        plan = self.plan
        await asyncio.sleep(self.rng.uniform(0.001, 0.1))
        if (
            name not in (HOME, WELL)
            and not name.endswith((f".{HOME}", f".{WELL}"))
            and self.is_within(plan.dns_outages)
        ):
            return Records(fault=DnsFault.TEMPORARY)
        if name == NULL and rdtype == "MX":
            return Records(mx=((0, ""),), ttl=300.0)
        if name == UNSURE:
            return Records(fault=DnsFault.TEMPORARY)
        if rdtype == "MX" and name in plan.exchangers:
            return self._mail_hosts_of(name)
        if rdtype == "TXT" and name.removeprefix("_mta-sts.") in plan.sts:
            return Records(texts=(b"v=STSv1; id=1;",), ttl=plan.ttl)
        if rdtype == "A" and name.removeprefix("mta-sts.") in plan.sts:
            return Records(addresses=("10.99.0.1",), ttl=plan.ttl)
        if rdtype == "A" and name in plan.addresses:
            return Records(addresses=plan.addresses[name], ttl=plan.ttl)
        known = (
            name.removeprefix("mta-sts.") in plan.sts
            or name in plan.addresses
            or name in plan.exchangers
            or name == NULL
        )
        return Records(fault=DnsFault.NO_RECORDS if known and name != GONE else DnsFault.NO_NAME)
