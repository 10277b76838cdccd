"""Delivery by MX through a whole relay, with a DNS server that answers from a literal: who gets mail, who waits."""

import errno
import sys
from pathlib import Path

import pytest
from relay_house import SLOW, House

sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))

from dns_server import dns_server

from smarthost.config_types import Dns
from smarthost.mail.entry import Why
from smarthost.mail.event import Kind
from smarthost.mail.route import Deliver, Route, TlsLevel
from smarthost.sink.desk import SinkSettings
from smarthost.sink.server import Sink

HERE = "127.0.0.77"  # a loopback address whose port 25 is likely to be free
ZONE = f"""
good.example. 300 IN MX 20 mx2.good.example.
good.example. 300 IN MX 10 mx1.good.example.
mx1.good.example. 300 IN A {HERE}
mx2.good.example. 300 IN A 127.0.0.78
implicit.example. 300 IN A {HERE}
null.example. 300 IN MX 0 .
empty.example. 300 IN TXT "nothing to send mail to"
example. 300 IN SOA ns.example. root.example. 1 3600 600 86400 300
"""
BY_MX = Route("mx", Deliver.MX, (), TlsLevel.NONE)


async def test_domains_that_cannot_take_mail_fail(house: House) -> None:
    """Null MX is 556 5.1.10, an unknown domain and one without a host fail too; each sender's copy tells the status."""
    async with dns_server(ZONE) as server:
        await house.open(fallback=BY_MX, dns=Dns((server.address,)), retry=SLOW)
        number = await house.send("a@null.example", "b@gone.example", "c@empty.example", sender="")
        await house.until(lambda: house.kinds(number).count(Kind.FAILED) == 3)
        await house.empty()
        statuses = {event.recipient: event.status for event in house.events if event.event is Kind.FAILED}
        assert statuses["a@null.example"] == "5.1.10"
        assert all(status.startswith("5.") for status in statuses.values()), statuses


async def test_a_dns_failure_is_a_delay(house: House) -> None:
    """SERVFAIL and silence fail nobody: the mail waits as unresolved, and the reason is told."""
    async with dns_server(ZONE) as server:
        await house.open(fallback=BY_MX, dns=Dns((server.address,)), retry=SLOW)
        number = await house.send("a@servfail.example")
        await house.until(lambda: Kind.DELAYED in house.kinds(number), 20)
        await house.until(lambda: house.server.relay.scheduler.total == 0)
        [entry] = await house.server.spool.entries_of(number)
        assert entry.why is Why.UNRESOLVED and "servfail.example" in entry.last
        assert Kind.FAILED not in house.kinds(number)


async def test_mail_goes_to_the_best_host(house: House) -> None:
    """The host of the lowest preference gets the mail, an address record serves where there is no MX."""
    sink = Sink(SinkSettings(listen=f"{HERE}:25"))
    try:
        await sink.start()
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EADDRINUSE, errno.EADDRNOTAVAIL):
            raise
        pytest.skip(f"port 25 of {HERE} cannot be had: {error}")
    async with dns_server(ZONE) as server:
        await house.open(fallback=BY_MX, dns=Dns((server.address,)), retry=SLOW)
        number = await house.send("250@good.example", "250@implicit.example")
        await house.until(lambda: house.kinds(number).count(Kind.RELAYED) == 2)
        hosts = {event.recipient: event.host for event in house.events if event.event is Kind.RELAYED}
        assert hosts == {"250@good.example": "mx1.good.example", "250@implicit.example": "implicit.example"}
    await sink.stop()
