"""The control socket: real Unix sockets, a relay that is a fake."""

import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fake_operations import ENTRY, ID, NUMBER, FakeOperations

from smarthost.control import MAX_CLIENTS, REQUEST_SIZE, ControlServer
from smarthost.control_socket import SOCKET_NAME, ControlBusy, bind_control_socket
from smarthost.spool.store import Filter


@pytest.fixture
def operations() -> FakeOperations:
    """What stands behind the socket."""
    return FakeOperations()


@pytest.fixture
async def path(tmp_path: Path, operations: FakeOperations) -> AsyncIterator[Path]:
    """Serve on a socket."""
    server = ControlServer(tmp_path / SOCKET_NAME, operations)
    await server.start()
    yield tmp_path / SOCKET_NAME
    await server.stop()
    assert not (tmp_path / SOCKET_NAME).exists()


async def ask(path: Path, *requests: bytes) -> list[dict[str, Any]]:
    """Send lines, end, and read all answers."""
    reader, writer = await asyncio.open_unix_connection(path, limit=1 << 22)
    writer.write(b"".join(requests))
    writer.write_eof()
    answers = [json.loads(line) for line in (await reader.read()).splitlines()]
    writer.close()
    return answers


def request(verb: str, **arguments: Any) -> bytes:
    """Write a request."""
    return json.dumps({"verb": verb, "arguments": arguments}).encode() + b"\n"


async def test_only_the_owner_may_use_the_socket(path: Path) -> None:
    """The socket has mode 0600 from the start."""
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_rows_then_done(path: Path, operations: FakeOperations) -> None:
    """A verb with rows sends each as a line and ends with their number; several requests are answered in order."""
    answers = await ask(
        path, request("queue.list", filter={"sender": "*@example.org", "ids": [ID]}, limit=5), request("status")
    )
    assert answers[:2] == [{"row": ENTRY}, {"done": {"rows": 1}}]
    assert answers[2]["done"]["version"] == "0"
    assert operations.asked == [("list", Filter(sender="*@example.org", ids=(NUMBER,)), 5)]


async def test_content_travels_as_base64(path: Path) -> None:
    """Octets of a message are base64 in JSON."""
    answers = await ask(path, request("queue.export"))
    assert [answer["row"].get("content") for answer in answers[:3]] == [None, "U3ViamVjdDog/w0K", "DQpib2R5DQo="]


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"garbage\n", 400),
        (b'{"verb": 3}\n', 400),
        (b'{"verb": "queue.list", "more": 1}\n', 400),
        (b'{"verb": "queue.burn"}\n', 404),
        (request("queue.list", filter={"sendr": "x"}), 400),
        (request("queue.show", id="short"), 400),
        (request("queue.show", id="0" * 12), 404),
        (request("trace", id="0" * 12), 404),
        (request("queue.hold"), 400),
        (request("queue.fail", filter={"ids": [ID]}), 500),
        (b'{"verb": "status", "arguments": {"x": "' + b"y" * REQUEST_SIZE + b'"}}\n', 413),
    ],
)
async def test_problems(path: Path, line: bytes, status: int) -> None:
    """What cannot be served is one problem document, and the socket goes on."""
    (answer,) = await ask(path, line)
    assert answer["problem"]["status"] == status
    assert answer["problem"].keys() == {"type", "title", "detail", "status"}
    assert "done" in (await ask(path, request("status")))[0]


async def test_changes_need_a_filter_or_everything(path: Path, operations: FakeOperations) -> None:
    """A verb that changes the queue takes all of it only when that is said."""
    (answer,) = await ask(path, request("queue.delete", everything=True, dry_run=True))
    assert answer == {"done": {"entries": 1, "messages": 1}}
    assert operations.asked == [("delete", Filter(), True)]


async def test_dry_flush_counts_only(path: Path, operations: FakeOperations) -> None:
    """A flush that is only tried lists what it would touch."""
    (answer,) = await ask(path, request("queue.flush", filter={"route": "relayhost"}, dry_run=True))
    assert answer == {"done": {"entries": 1, "messages": 1}}
    assert [verb for verb, _, _ in operations.asked] == ["list"]


async def test_slow_client_makes_its_own_work_wait(path: Path, operations: FakeOperations) -> None:
    """Rows for a client that does not read are not made, and other clients are served meanwhile."""
    operations.rows = 1_000_000
    slow = socket.socket(socket.AF_UNIX)
    slow.connect(str(path))
    slow.sendall(request("queue.list"))
    before = -1
    while operations.given != before:
        before = operations.given
        await asyncio.sleep(0.1)
    assert 0 < operations.given < 10_000
    assert "done" in (await ask(path, request("status")))[0]
    slow.close()


async def test_too_many_clients(path: Path) -> None:
    """One client more than there is room for is told so."""
    clients = [await asyncio.open_unix_connection(path) for _ in range(MAX_CLIENTS)]
    await asyncio.sleep(0.05)
    reader, writer = await asyncio.open_unix_connection(path)
    assert json.loads(await reader.readline())["problem"]["status"] == 503
    for _, each in [*clients, (reader, writer)]:
        each.close()


async def test_second_relay_is_refused_and_a_dead_one_replaced(path: Path, tmp_path: Path) -> None:
    """Two relays never share a socket; what a dead one left is taken over; a file in the way is not removed."""
    with pytest.raises(ControlBusy):
        await ControlServer(path, FakeOperations()).start()
    dead = tmp_path / "dead.sock"
    bind_control_socket(dead).close()
    bind_control_socket(dead).close()
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(OSError, match="not a socket"):
        bind_control_socket(file)


async def test_path_of_any_length(tmp_path: Path, operations: FakeOperations) -> None:
    """A data directory deeper than a socket address can hold works too."""
    folder = tmp_path / ("x" * 100) / ("y" * 100)
    folder.mkdir(parents=True)
    server = ControlServer(folder / SOCKET_NAME, operations)
    await server.start()
    assert stat.S_ISSOCK(os.lstat(folder / SOCKET_NAME).st_mode)
    await server.stop()
