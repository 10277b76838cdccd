"""Webhooks of a real relay that is killed again and again, and beside a receiver that never answers."""

import asyncio
import json
import smtplib
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from time import time

import pytest
from relay_process import Relay, wait_until
from sending import compose, transact
from sink_process import Sink

from smarthost.accounts import KEY_FILE
from smarthost.crypto.sealing import Sealer, load_master_key
from smarthost.mail.record import DEFAULT_TENANT
from smarthost.outreach.webhooks import Webhooks
from smarthost.policy.webhook import Webhook, WebhookWish
from smarthost.spool.sqlite import SqliteSpool


class Hook(ThreadingHTTPServer):
    """Takes webhooks in threads, when it `may_answer`, and notes their types by message."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        """Listen on loopback."""
        super().__init__(("127.0.0.1", 0), _Taking)
        self.types: dict[str, list[str]] = defaultdict(list)
        self.count = self.under_way = 0
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Where it takes them."""
        return f"http://127.0.0.1:{self.server_address[1]}/hook"


class _Taking(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hook

    def do_POST(self) -> None:
        told = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            self.server.under_way += 1
            self.server.count += 1
        self.server.may_answer.wait()
        with self.server.lock:
            self.server.under_way -= 1
            self.server.types[told["data"]["id"]].append(told["type"].removeprefix("message."))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hook() -> Iterator[Hook]:
    """Give a receiver."""
    hook = Hook()
    yield hook
    hook.may_answer.set()
    hook.shutdown()
    hook.server_close()


def ask_for(relay: Relay, url: str) -> None:
    """Have a relay that does not run tell a receiver of everything."""
    folder = Path(relay.config["data_directory"])

    async def write() -> None:
        spool = SqliteSpool.open(folder / "spool", loop=asyncio.get_running_loop(), clock=time, on_fatal=print)
        sealer = Sealer(load_master_key(folder / KEY_FILE), "webhooks")

        async def nobody(_: object) -> None:
            raise AssertionError

        hooks = Webhooks(spool, nobody, lambda: sealer, time, Random(1))  # type: ignore[arg-type]
        made = await hooks.create(DEFAULT_TENANT, WebhookWish(url=url))
        assert isinstance(made, Webhook)
        await hooks.stop()
        await spool.close()

    folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(write())


def send(relay: Relay, count: int) -> list[str]:
    """Send messages over one connection; gives their ids."""
    with smtplib.SMTP("127.0.0.1", relay.port, timeout=20) as client:
        content = compose("told", ["250@example.com"])
        return [transact(client, content, ("250@example.com",), sender="root@example.org") for _ in range(count)]


def test_every_event_arrives_over_crashes(make_relay: Callable[..., Relay], hook: Hook) -> None:
    """A relay that is killed while it tells of its mail tells every event of each message, in order."""
    relay = make_relay(outreach={"allow_private_urls": True})
    ask_for(relay, hook.url)
    sent: list[str] = []
    for _ in range(4):
        relay.start()
        before = hook.count
        sent += send(relay, 20)
        wait_until(lambda before=before: hook.count > before + 15, "events are told", 30)  # type: ignore[misc]
        relay.kill()
    relay.start()
    wait_until(lambda: all("relayed" in hook.types[each] for each in sent), "all is told", 60)
    assert all(hook.types[each][0] == "accepted" for each in sent)
    assert relay.stop() == 0


def test_a_receiver_that_hangs_slows_no_mail(make_relay: Callable[..., Relay], hook: Hook, sink: Sink) -> None:
    """Mail is accepted and relayed as ever while a receiver never answers; it holds a connection or two."""
    relay = make_relay(outreach={"allow_private_urls": True})
    ask_for(relay, hook.url)
    hook.may_answer.clear()
    relay.start()
    sent = send(relay, 300)
    wait_until(lambda: len(sink.subjects()) == len(sent), "all mail arrived", 30)
    assert hook.under_way <= 2 and not hook.types
    assert relay.stop() == 0
