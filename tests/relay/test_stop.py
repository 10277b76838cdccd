"""How a relay ends, and what keeps it from starting: in time, and with a sentence."""

import asyncio
import socket
import time

import msgspec
import pytest
from relay_house import FAST, House

from smarthost.policy.admission import Auth, Listener, Tls
from smarthost.running import run
from smarthost.spool.store import Accepted, Done


async def test_a_failed_spool_ends_the_relay_at_once(house: House) -> None:
    """Commits that never answer and a session that hangs are not waited for when the spool has failed: no 250."""
    await house.open(shutdown_timeout=30.0)
    await house.send("hang@example.net")
    silent: list[Done] = []

    def accept(accepted: Accepted, done: Done) -> None:
        silent.append(done)

    house.server.spool.accept = accept  # type: ignore[method-assign]
    reader, writer = await asyncio.open_connection(*house.address)
    writer.write(b"EHLO x\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<250@example.net>\r\nDATA\r\n")
    await reader.readuntil(b"\r\n354 ")
    writer.write(b"Subject: x\r\n\r\nx\r\n.\r\n")
    await house.until(lambda: bool(silent))
    house.server._fatal("a write failed")
    await asyncio.wait_for(house.server.wait(), 1)
    started = time.monotonic()
    await house.server.stop()
    assert time.monotonic() - started < 3
    assert b"250" not in await reader.read()
    writer.close()
    await house.sink.stop()
    del house.server


async def test_a_session_that_hangs_is_cut_at_the_deadline(house: House) -> None:
    """An upstream that never answers does not hold a shutdown beyond its timeout, and the message stays."""
    await house.open(shutdown_timeout=0.5, retry=msgspec.structs.replace(FAST, schedule=(600.0,)))
    await house.send("hang@example.net")
    await house.until(lambda: house.sink.counts.dropped.get("hang") == 1)
    started = time.monotonic()
    await house.server.stop()
    assert time.monotonic() - started < 2.5
    await house.open()
    assert (await house.server.spool.count())["total"] == 1


@pytest.mark.parametrize("place", ["listener", "http.address"])
async def test_a_port_in_use_is_named(house: House, capsys: pytest.CaptureFixture[str], place: str) -> None:
    """An address that somebody else has is told in one sentence, with exit status 71."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        listener = Listener(address=address if place == "listener" else "127.0.0.1:0", tls=Tls.NONE, auth=Auth.NONE)
        config = msgspec.structs.replace(
            house.config, listeners=(listener,), http_address=address if place != "listener" else ""
        )
        assert await run(config) == 71
    assert capsys.readouterr().err == f"smarthost: {place} {address}: Address already in use\n"
