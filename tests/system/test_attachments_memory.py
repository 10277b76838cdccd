"""Attachments of many megabytes at a time, from everywhere, in a real relay: its memory does not grow by them."""

import contextlib
import hashlib
import http.client
import json
import re
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from relay_process import Relay

TOKEN = "of the test"
MIB = 2**20
EACH = 6 * MIB
AT_ONCE = 6  # requests
MOST_GROWN = 48 * MIB  # of 132 MiB that come; it was 9 of 176: some blocks a request


class _Files(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def files(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """Give a folder with a large and a small file, and where it is served."""
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "large").write_bytes(bytes(range(256)) * (EACH // 256))
    (folder / "small").write_bytes(b"x")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def hand_in(relay: Relay, attachments: list[dict[str, str]]) -> None:
    """Hand in a message that is to be sent tomorrow."""
    message: dict[str, Any] = {"from": "shop@example.org", "to": "ada@example.net", "text": "Files.\n"}
    message["send_at"] = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    message["attachments"] = [{"filename": f"{place}.bin", **each} for place, each in enumerate(attachments)]
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", relay.http_port, timeout=60)) as connection:
        connection.request("POST", "/api/v1/messages", json.dumps(message).encode(), headers)
        answer = connection.getresponse()
        assert answer.status == 202, answer.read()


def largest_of(relay: Relay) -> int:
    """Give the most memory that the relay has had, in octets."""
    assert relay.running is not None
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{relay.running.pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def test_memory_stays_flat(make_relay: Callable[..., Relay], files: tuple[Path, str]) -> None:
    """Files, URLs and base64, several messages at a time."""
    folder, url = files
    relay = make_relay()
    relay.config["http"] |= {
        "tokens": [f"sha256:{hashlib.sha256(TOKEN.encode()).hexdigest()}"],
        "attachments": {"storage_roots": [str(folder)], "allow_private_urls": True},
    }
    relay.start()

    def given(name: str) -> list[list[dict[str, str]]]:
        content = b64encode((folder / name).read_bytes()).decode()
        return [[{"storage_path": name}] * 4, [{"url": f"{url}/{name}"}] * 4, [{"content": content}] * 3]

    for attachments in given("small"):
        hand_in(relay, attachments)
    before = largest_of(relay)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        list(threads.map(partial(hand_in, relay), given("large") * 2))
    grown = largest_of(relay) - before
    assert grown < MOST_GROWN, f"{grown / MIB:.0f} MiB"
