"""Batches of a real relay: killed while one is sent and while one comes; and how much memory a large one takes."""

import contextlib
import hashlib
import http.client
import json
import re
import socket
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from relay_process import Relay, wait_until
from sink_process import Sink

TOKEN = "of the test"
RECIPIENTS = 400
CRASHES = 2
UPSTREAM_SESSIONS = 4
# What may arrive twice after one crash: four messages on each upstream session that are on their way, and as many whose
# settles wait for their commit.
MOST_TWICE = UPSTREAM_SESSIONS * 8
LARGE = 100_000
MOST_GROWN = 40 * 2**20  # octets; the batch as Python objects would take 100 MB and more
TEMPLATE = {
    "name": "welcome",
    "subject": "{{number}}",
    "text": "Hello {{number}}",
    "variables": {"number": {"type": "integer", "required": True}},
}


@pytest.fixture
def batch_relay(make_relay: Callable[..., Relay]) -> Relay:
    """A relay that runs, with a token of the operator's."""
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    relay = make_relay(limit=[{"match": {}, "max_connections": UPSTREAM_SESSIONS}])
    relay.config["http"] |= {"tokens": [f"sha256:{digest}"]}
    relay.start()
    return relay


def ask(relay: Relay, method: str, path: str, body: object = None) -> Any:
    """Ask the API, by a body that is an object or a generator of octets; gives what it says."""
    connection = http.client.HTTPConnection("127.0.0.1", relay.http_port, timeout=60)
    content = json.dumps(body).encode() if isinstance(body, dict) else body
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    with contextlib.closing(connection):
        connection.request(method, f"/api/v1{path}", content, headers, encode_chunked=isinstance(body, Iterator))  # type: ignore[arg-type]
        answer = connection.getresponse()
        said = json.load(answer)
        assert answer.status < 300, said
        return said


def content_of(template: str, count: int, **more: object) -> Iterator[bytes]:
    """Write a batch some recipients at a time; what is said for all of them comes last."""
    yield b'{"recipients": ['
    for first in range(0, count, 500):
        some = (
            {"email": f"r{n}@example.net", "variables": {"number": n}} for n in range(first, min(first + 500, count))
        )
        yield (b", " if first else b"") + json.dumps(list(some))[1:-1].encode()
    yield b"], " + json.dumps({"template_id": template, "from": "shop@example.org"} | more)[1:].encode()


def test_killed_while_a_batch_is_sent(batch_relay: Relay, sink: Sink) -> None:
    """Everybody is sent to, few are twice, and the batch is told as completed, each recipient counted once."""
    relay = batch_relay
    template = ask(relay, "POST", "/templates", TEMPLATE)["id"]
    batch = ask(relay, "POST", "/batches", content_of(template, RECIPIENTS))["id"]
    for number in range(CRASHES):
        arrived = RECIPIENTS * number // (CRASHES + 1)
        wait_until(lambda arrived=arrived: sink.counts()["messages"] > arrived, "some has gone", 60)  # type: ignore[misc]
        relay.kill()
        relay.start()

    def is_completed() -> bool:
        shown = ask(relay, "GET", f"/batches/{batch}")
        return bool(shown["status"] == "COMPLETED")

    wait_until(is_completed, "the batch is completed", 60, 0.1)
    told = Counter(sink.subjects())
    assert {int(subject) for subject in told} == set(range(RECIPIENTS))
    twice = sum(count - 1 for count in told.values())
    assert twice <= CRASHES * MOST_TWICE, twice
    summary = ask(relay, "GET", f"/batches/{batch}/summary")
    assert summary["events"]["SENT"] == RECIPIENTS and summary["pending"] == 0
    places = set()
    for offset in range(0, RECIPIENTS + twice, 1000):
        page = ask(relay, "GET", f"/batches/{batch}/events?limit=1000&offset={offset}")
        assert RECIPIENTS <= page["total"] <= RECIPIENTS + twice
        places |= {each["index"] for each in page["events"] if each["type"] == "SENT"}
    assert places == set(range(RECIPIENTS))


def test_killed_while_a_batch_comes(batch_relay: Relay, sink: Sink) -> None:
    """A batch that was not answered is not sent, not even in part, and nothing of it stays."""
    relay = batch_relay
    template = ask(relay, "POST", "/templates", TEMPLATE)["id"]
    begun = b"".join([block for _, block in zip(range(3), content_of(template, RECIPIENTS * 10), strict=False)])
    with socket.create_connection(("127.0.0.1", relay.http_port), 20) as client:
        head = f"POST /api/v1/batches HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(begun) + 1000}\r\n\r\n"
        client.sendall(head.encode() + begun)
        wait_until(lambda: count_of(relay, "batch_part") > 0, "a part is stored")
        relay.kill()
    relay.start()
    wait_until(lambda: count_of(relay, "batch_part") + count_of(relay, "batch_draft") == 0, "the parts are removed")
    assert ask(relay, "GET", "/batches")["batches"] == []
    assert sink.counts()["messages"] == 0


def test_memory_of_a_large_batch(batch_relay: Relay) -> None:
    """A hundred thousand recipients that come before all else are stored while they come."""
    relay = batch_relay
    template = ask(relay, "POST", "/templates", TEMPLATE)["id"]
    later = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    ask(relay, "POST", "/batches", content_of(template, 1000, send_at=later))
    before = largest_of(relay)
    made = ask(relay, "POST", "/batches", content_of(template, LARGE, send_at=later))
    assert made["recipients"] == LARGE
    assert largest_of(relay) - before < MOST_GROWN
    assert ask(relay, "POST", f"/batches/{made['id']}/cancel")["counts"]["cancelled"] == LARGE


def count_of(relay: Relay, kind: str) -> int:
    """Count the records of a kind, as a person would by sqlite3."""
    path = Path(relay.config["data_directory"]) / "spool" / "spool.db"
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        return int(database.execute("SELECT count(*) FROM record WHERE kind = ?", (kind,)).fetchone()[0])


def largest_of(relay: Relay) -> int:
    """Give the most memory that the relay has had, in octets."""
    assert relay.running is not None
    status = Path(f"/proc/{relay.running.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024
