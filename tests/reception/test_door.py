"""The door's listeners: TCP, Unix, systemd; what it refuses to open; how it closes."""

import asyncio
import os
import socket
import stat
import subprocess
import sys

import pytest
from doorstep import Client, doorstep, on_both_loops

from smarthost.policy.admission import Auth, Listener, Tls
from smarthost.reception.listen import name_of, open_sockets, split_address


@pytest.mark.parametrize(
    ("address", "split"),
    [
        ("127.0.0.1:25", ("127.0.0.1", 25)),
        ("relay.example:587", ("relay.example", 587)),
        ("[::1]:2587", ("::1", 2587)),
        (":25", ("", 25)),
        ("*:25", ("", 25)),
    ],
)
def test_addresses_to_listen_on(address, split):
    """host:port, [v6]:port, and every address of the machine."""
    assert split_address(address) == split


@pytest.mark.parametrize("address", ["", "25", "host", "host:", "host:x", "host:70000", "::1:25", "host:²"])
def test_what_is_no_address_to_listen_on(address):
    """The sentence says what may be written."""
    with pytest.raises(ValueError, match=r"address"):
        split_address(address)


@on_both_loops
async def test_an_ipv6_listener_serves(tmp_path):
    """The client's address is the IPv6 one, and trust is decided by it."""
    async with doorstep(tmp_path, address="[::1]:0", trusted=("::1/128",)) as step:
        assert step.addresses[0].startswith("[::1]:")
        client = Client(*await asyncio.open_connection("::1", step.port))
        await client.reply()
        assert (await client.say("EHLO x", "MAIL FROM:<a@x.example>")).startswith("250")
        client.close()


@on_both_loops
async def test_a_unix_socket_serves_its_group_only(tmp_path):
    """Mode 0660 from the first moment, a stale file is replaced, the file goes with the door; AUTH is offered."""
    path = tmp_path / "smtp.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()
    for trusted, relays in ((("127.0.0.0/8",), "250"), ((), "530")):
        async with doorstep(tmp_path, address=f"unix:{path}", trusted=trusted, tls=Tls.NONE) as step:
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
            client = Client(*await asyncio.open_unix_connection(str(path)))
            assert (await client.reply()).startswith("220")
            assert "AUTH" in await client.say("EHLO x")
            assert (await client.say("MAIL FROM:<a@x.example>")).startswith(relays)
            (session,) = step.door.sessions
            assert session.dialogue.client == ""
            client.close()
        assert not path.exists()


async def test_a_socket_in_use_is_not_taken_away(tmp_path):
    """Neither a Unix socket that someone listens on nor a file that is no socket is replaced; a port in use is told."""
    path = tmp_path / "smtp.sock"
    async with doorstep(tmp_path, address=f"unix:{path}", tls=Tls.NONE):
        with pytest.raises(OSError, match="in use"):
            open_sockets(f"unix:{path}", {})
    path.write_text("precious")
    with pytest.raises(OSError, match="in use"):
        open_sockets(f"unix:{path}", {})
    assert path.read_text() == "precious"
    async with doorstep(tmp_path) as step:
        with pytest.raises(OSError, match="in use"):
            open_sockets(f"127.0.0.1:{step.port}", {})


def test_systemds_sockets_are_taken_by_name():
    """LISTEN_FDS and LISTEN_FDNAMES as sd_listen_fds(3) has them; in a process of its own, for descriptor 3."""
    code = """
import os, socket, sys
from smarthost.reception.listen import open_sockets
other, ours = socket.socket(), socket.socket(socket.AF_INET, socket.SOCK_STREAM)
for opened in (other, ours):
    opened.bind(("127.0.0.1", 0))
place = ours.getsockname()
first, second = os.dup(other.fileno()), os.dup(ours.fileno())
other.close(), ours.close()
os.dup2(first, 3), os.dup2(second, 4)
environment = {"LISTEN_FDS": "2", "LISTEN_FDNAMES": "other:submission", "LISTEN_PID": str(os.getpid())}
(taken,) = open_sockets("systemd:submission", environment)
assert taken.getsockname() == place and taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
socket.create_connection(place).close()
for wrong in ({}, {**environment, "LISTEN_PID": "1"}, {**environment, "LISTEN_FDNAMES": "a:b"}):
    try:
        open_sockets("systemd:submission", wrong)
    except ValueError as error:
        assert "no socket of that name" in str(error)
    else:
        sys.exit("taken")
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=20)


async def test_what_cannot_be_served_is_not_opened(tmp_path):
    """PROXY would make strangers look trusted, so it is refused until it works; TLS wants a certificate."""
    async with doorstep(tmp_path, parts={"tls": None}, tls=Tls.NONE) as step:
        with pytest.raises(ValueError, match="proxy_protocol"):
            await step.door.open(Listener("127.0.0.1:0", tls=Tls.NONE, proxy_protocol=True), os.environ)
        with pytest.raises(ValueError, match="certificate"):
            await step.door.open(Listener("127.0.0.1:0", tls=Tls.STARTTLS), os.environ)


async def test_several_listeners_share_one_house(tmp_path):
    """Each has its own rules; limits and counts are the door's; new terms hold for new sessions."""
    async with doorstep(tmp_path) as step:
        await step.door.open(Listener("127.0.0.1:0", tls=Tls.NONE, auth=Auth.NONE), {})
        client = await step.greeted()
        assert len(step.door._servers) == 2
        assert name_of(next(iter(step.door._servers)).sockets[0]) == step.addresses[0]
        before = step.door.terms
        step.door.terms = type(before)("new.example", "", before.submission)
        assert (await client.say("HELO x")) == "250 relay.example\r\n"
        other = await step.connect(greeting=False)
        assert (await other.reply()) == "220 new.example ESMTP smarthost\r\n"


async def test_the_clock_of_the_door_ticks(tmp_path, monkeypatch):
    """One timer for all sessions, once a second."""
    monkeypatch.setattr("smarthost.reception.accept.TICK", 0.01)
    async with doorstep(tmp_path, terms={"idle_timeout": 3}) as step:
        client = await step.connect()
        assert (await client.rest()).startswith(b"421 4.4.2")
