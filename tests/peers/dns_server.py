"""A DNS server on loopback, UDP and TCP on one port, that answers from a zone literal and misbehaves by name."""

import asyncio
import struct
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

# What a name may do instead of answering; the first label says it: servfail.example., refused.example. ...
RCODES = {"servfail": dns.rcode.SERVFAIL, "refused": dns.rcode.REFUSED}


class DnsServer:
    """What a test sees of the server. `questions` counts questions by (name, type); `zone` may be replaced.

    Names whose first label is servfail, refused, silent, garbage or truncated do what the label says; "truncated" only
    over UDP. `is_validating` lets answers have the AD bit, where it was asked for, but for names of `insecure`.
    """

    def __init__(self, zone: str) -> None:
        """Take records with absolute owner names, TTL first: "www.example. 300 IN A 192.0.2.1"."""
        self.load(zone)
        self.questions: Counter[tuple[str, str]] = Counter()
        self.over_tcp = 0
        self.is_down = False
        self.failing: set[tuple[str, str]] = set()
        self.delay = 0.0
        self.is_validating = False
        self.insecure: set[str] = set()
        self.address = ""

    def load(self, zone: str) -> None:
        """Replace the zone."""
        self.zone: dict[tuple[dns.name.Name, int], dns.rrset.RRset] = {}
        for line in filter(None, map(str.strip, zone.splitlines())):
            owner, ttl, klass, rdtype, data = line.split(maxsplit=4)
            found = dns.rrset.from_text(owner, int(ttl), klass, rdtype, data)
            self.zone.setdefault((found.name, found.rdtype), found).update(found)

    def answer(self, wire: bytes, *, udp: bool) -> bytes | None:
        """Answer one message; None means silence."""
        query = dns.message.from_wire(wire)
        question = query.question[0]
        name, rdtype = question.name, dns.rdatatype.to_text(question.rdtype)
        self.questions[name.to_text(), rdtype] += 1
        label = name.labels[0].decode()
        if self.is_down or label == "silent" or (name.to_text(), rdtype) in self.failing:
            return None
        if label == "garbage":
            return wire[:2] + b"\xff\xff nonsense"
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        if label in RCODES:
            response.set_rcode(RCODES[label])
        elif label == "truncated" and udp:
            response.flags |= dns.flags.TC
        else:
            self.fill(response, name, question.rdtype)
            if self.is_validating and query.flags & dns.flags.AD and name.to_text() not in self.insecure:
                response.flags |= dns.flags.AD
        return response.to_wire()

    def fill(self, response: dns.message.Message, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> None:
        """Put the answer of the zone into a response, aliases followed as far as the zone knows them."""
        names = {owner for owner, _ in self.zone}
        while (rrset := self.zone.get((name, rdtype))) is None:
            alias = self.zone.get((name, dns.rdatatype.CNAME))
            if alias is None:
                if not (response.answer or any(other.is_subdomain(name) for other in names)):
                    response.set_rcode(dns.rcode.NXDOMAIN)
                soas = (rrset for (owner, kind), rrset in self.zone.items() if kind == dns.rdatatype.SOA)
                response.authority += [soa for soa in soas if name.is_subdomain(soa.name)]
                return
            response.answer.append(alias)
            name = alias[0].target
        response.answer.append(rrset)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self.server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        answer = self.server.answer(data, udp=True)
        if answer is not None:
            asyncio.get_running_loop().call_later(self.server.delay, self.transport.sendto, answer, address)


@asynccontextmanager
async def dns_server(zone: str) -> AsyncIterator[DnsServer]:
    """Serve a zone on a free port of 127.0.0.1; `address` is as the Resolver wants it."""
    server = DnsServer(zone)

    async def over_tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        server.over_tcp += 1
        answer = server.answer(await reader.readexactly(length), udp=False)
        if answer is not None:
            writer.write(struct.pack("!H", len(answer)) + answer)
        writer.close()

    loop = asyncio.get_running_loop()
    while True:
        listener = await asyncio.start_server(over_tcp, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        try:
            transport, _ = await loop.create_datagram_endpoint(
                lambda: _Datagrams(server), local_addr=("127.0.0.1", port)
            )
            break
        except OSError:  # somebody asks name servers by UDP from just this port
            listener.close()
    server.address = f"127.0.0.1:{port}"
    try:
        yield server
    finally:
        transport.close()
        listener.close()


class Clock:
    """A clock that goes only when told to; gives Unix seconds."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        """Begin at a time."""
        self.now = now

    def __call__(self) -> float:
        """Give the time."""
        return self.now
