"""Source addresses through a whole relay: shares, names in EHLO, and addresses that this machine does not have."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from relay_house import SLOW, House

from smarthost.mail.event import Kind
from smarthost.mail.route import Deliver, NextHop, Route, Source, TlsLevel
from smarthost.policy.limits import Limit, LimitMatch

ONE_EACH = (Limit(match=LimitMatch(), max_messages_per_connection=1),)


@asynccontextmanager
async def noting(host: str = "127.0.0.1") -> AsyncIterator[tuple[NextHop, list[tuple[str, str]]]]:
    """Listen: take every message, and note each session's client address and its name in EHLO."""
    sessions: list[tuple[str, str]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(b"220 peer\r\n")
            while line := await reader.readline():
                verb, _, rest = line.decode().strip().partition(" ")
                if verb == "EHLO":
                    sessions.append((writer.get_extra_info("peername")[0], rest))
                if verb == "DATA":
                    writer.write(b"354 go on\r\n")
                    await reader.readuntil(b"\r\n.\r\n")
                writer.write(b"250 ok\r\n")
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, host, 0)
    yield NextHop(host, server.sockets[0].getsockname()[1]), sessions
    server.close()


def route_from(hop: NextHop, *sources: Source) -> Route:
    """Give the route of all mail, with the addresses that its sessions go out from."""
    return Route("relayhost", Deliver.RELAYHOST, (hop,), TlsLevel.NONE, source_address=sources)


async def send(house: House, number: int) -> None:
    """Send some messages, and wait until they are relayed."""
    sent = [await house.send(f"{at}@example.net") for at in range(number)]
    await house.until(lambda: all(Kind.RELAYED in house.kinds(one) for one in sent), 30)


async def test_sessions_are_spread_by_weight(house: House) -> None:
    """Each session greets by the name of its address; with weights 6 and 1 about six in seven have the first."""
    async with noting() as (hop, sessions):
        route = route_from(hop, Source("127.0.0.2", 6, "two.example.org"), Source("127.0.0.3", 1))
        await house.open(fallback=route, retry=SLOW, limits=ONE_EACH)
        await send(house, 80)
        seen = Counter(sessions)
        assert set(seen) == {("127.0.0.2", "two.example.org"), ("127.0.0.3", "relay.example.org")}
        share = seen["127.0.0.2", "two.example.org"] / sum(seen.values())
        assert share > 0.68  # four standard deviations below six sevenths, and three above a half


async def test_a_session_keeps_its_address(house: House) -> None:
    """What one session carries all comes from one address."""
    async with noting() as (hop, sessions):
        route = route_from(hop, Source("127.0.0.2"), Source("127.0.0.3"))
        await house.open(fallback=route, retry=SLOW, limits=(Limit(match=LimitMatch(), max_connections=1),))
        await send(house, 10)
        assert len(sessions) == 1


async def test_an_address_that_is_not_ours_is_passed_over(house: House, caplog: pytest.LogCaptureFixture) -> None:
    """An address that this machine does not have costs nobody an attempt, and is an error in the log, once."""
    async with noting() as (hop, sessions):
        route = route_from(hop, Source("192.0.2.77", 99), Source("127.0.0.3"))
        await house.open(fallback=route, retry=SLOW, limits=ONE_EACH)
        with caplog.at_level(logging.ERROR):
            await send(house, 6)
        assert {address for address, _ in sessions} == {"127.0.0.3"}
        assert not any(event.event is Kind.DELAYED for event in house.events)
        told = [record.getMessage() for record in caplog.records if "192.0.2.77" in record.getMessage()]
        assert len(told) == 1 and told[0].startswith("source_address 192.0.2.77 cannot be used: ")


async def test_without_any_usable_address_mail_waits(house: House) -> None:
    """Where no source address can be used the message is delayed with that reason; other addresses are not taken."""
    async with noting() as (hop, sessions):
        await house.open(fallback=route_from(hop, Source("192.0.2.77"), Source("::1")), retry=SLOW)
        number = await house.send("a@example.net")
        await house.until(lambda: Kind.DELAYED in house.kinds(number) and not house.server.relay.settler.pending)
        [entry] = await house.server.spool.entries_of(number)
        assert "source_address 192.0.2.77 cannot be used" in entry.last and not sessions


async def test_the_family_of_the_source_chooses_the_address(house: House) -> None:
    """From IPv4 and IPv6 addresses both families are reached, each from its own."""
    async with noting("::1") as (hop, sessions):
        await house.open(fallback=route_from(hop, Source("127.0.0.2"), Source("::1", 1, "six.example.org")), retry=SLOW)
        await send(house, 2)
        assert set(sessions) == {("::1", "six.example.org")}
