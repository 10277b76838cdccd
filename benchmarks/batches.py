"""Measures batches: how fast recipients are accepted durably and sent, beside mail by SMTP, and the relay's memory.

usage: batches.py [--recipients 10000] [--smtp 10000] [--results FILE]

The batch is written to the relay's socket while it is made, so that this program is not large either. Mail by SMTP
comes from Postfix's smtp-source over 20 connections, in messages of the size of the batch's, and goes to the same sink.
"""

import argparse
import contextlib
import hashlib
import http.client
import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from memory import free_port, wait_for_port
from relay_config import write_config
from results_file import RESULTS, describe_machine, write_section

TOKEN = "benchmark"
TEMPLATE = {
    "name": "benchmark",
    "subject": "News for {{name}}",
    "text": "Dear {{name}},\n\n" + "this is what there is to tell. {{city}}\n" * 12,
    "html": "<p>Dear <b>{{name}}</b></p>" + "<p>this is what there is to tell. {{city}}</p>\n" * 12,
    "variables": {"name": {"type": "string", "required": True}},
}
PORTION = 500  # recipients that are written at a time
MEBIBYTE = 2**20


class Measured(NamedTuple):
    """Recipients, seconds until 201 and until the last was sent, and resident octets before and at the most."""

    recipients: int
    accepted: float
    sent: float
    before: int
    largest: int


class Relay:
    """A relay and its sink, as processes of their own."""

    def __init__(self, command: str, folder: Path) -> None:
        """Start both."""
        self.port, self.http, upstream, self.counts = (free_port() for _ in range(4))
        config = write_config(folder, self.port, upstream)
        digest = hashlib.sha256(TOKEN.encode()).hexdigest()
        http_keys = f'address = "127.0.0.1:{self.http}"\ntokens = ["sha256:{digest}"]\nmax_request_size = "1GiB"'
        config.write_text(config.read_text().replace('address = ""', http_keys))
        sink = ["sink", "--listen", f"127.0.0.1:{upstream}", "--http", f"127.0.0.1:{self.counts}"]
        with (folder / "output.log").open("ab") as log:
            self.sink = subprocess.Popen([sys.executable, "-m", "smarthost", *sink], stdout=log, stderr=log)
            wait_for_port(upstream, self.sink)
            self.relay = subprocess.Popen(shlex.split(command.format(dir=folder)), stdout=log, stderr=log)
        wait_for_port(self.port, self.relay)

    def close(self) -> None:
        """End both."""
        for process in (self.relay, self.sink):
            process.terminate()
            process.wait(60)

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """Ask the API."""
        content = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}/api/v1{path}", content, headers, method=method)
        with urllib.request.urlopen(request, timeout=600) as answer:
            return json.load(answer)

    def sunk(self) -> int:
        """Count what has arrived."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.counts}/counts", timeout=60) as answer:
            return int(json.load(answer)["messages"])

    def wait_for(self, count: int) -> None:
        """Wait until so many messages have arrived."""
        end = time.monotonic() + 600
        while self.sunk() < count:
            if time.monotonic() > end:
                raise SystemExit(f"only {self.sunk()} of {count} messages have arrived")
            time.sleep(0.02)

    @property
    def resident(self) -> int:
        """Give the resident octets of the relay."""
        status = Path(f"/proc/{self.relay.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        return int(found[1]) * 1024 if found else 0


class Watch(threading.Thread):
    """Watches a relay's memory until it is told to end."""

    def __init__(self, relay: Relay) -> None:
        """Begin with what there is now."""
        super().__init__(daemon=True)
        self._relay, self._over = relay, threading.Event()
        self.before = self.largest = relay.resident
        self.start()

    def run(self) -> None:
        """Look twenty times a second."""
        while not self._over.wait(0.05):
            self.largest = max(self.largest, self._relay.resident)

    def end(self) -> int:
        """Give the most that was seen."""
        self._over.set()
        self.join()
        return self.largest


def content_of(template: str, recipients: int) -> Iterator[bytes]:
    """Write a batch, some recipients at a time, and the template behind them."""
    yield b'{"from": "a@sender.test", "recipients": ['
    for first in range(0, recipients, PORTION):
        some = [
            json.dumps({"email": f"user{n}@other.test", "variables": {"name": f"User {n}", "city": "Rome"}})
            for n in range(first, min(first + PORTION, recipients))
        ]
        yield (b", " if first else b"") + ", ".join(some).encode()
    yield b'], "template_id": "%s"}' % template.encode()


def send_batch(relay: Relay, template: str, recipients: int) -> Measured:
    """Send a batch and wait until all of it has arrived."""
    before, watch, begin = relay.sunk(), Watch(relay), time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", relay.http, timeout=600)
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    connection.request("POST", "/api/v1/batches", content_of(template, recipients), headers, encode_chunked=True)
    answer = connection.getresponse()
    said = json.load(answer)
    accepted = time.monotonic() - begin
    if answer.status != 201:
        raise SystemExit(f"the batch was refused: {said}")
    relay.wait_for(before + recipients)
    sent = time.monotonic() - begin
    end = time.monotonic() + 60
    while (shown := relay.ask("GET", f"/batches/{said['id']}"))["status"] != "COMPLETED":
        if time.monotonic() > end:
            raise SystemExit(f"the batch does not end: {shown}")
        time.sleep(0.1)
    return Measured(recipients, accepted, sent, watch.before, watch.end())


def send_smtp(relay: Relay, messages: int, size: int) -> float:
    """Send mail by SMTP; gives the seconds until all of it has arrived."""
    before, begin = relay.sunk(), time.monotonic()
    source = ["smtp-source", "-s", "20", "-m", str(messages), "-l", str(size), "-f", "a@sender.test"]
    subprocess.run([*source, "-t", "b@other.test", f"127.0.0.1:{relay.port}"], check=True)
    relay.wait_for(before + messages)
    return time.monotonic() - begin


def report(runs: list[Measured], smtp: float | None, messages: int) -> str:
    """Write the table."""
    lines = [
        "| recipients | accepted/s | sent/s, from the first octet on | memory before | largest |\n|--:|--:|--:|--:|--:|"
    ]
    for run in runs:
        accepted, sent = run.recipients / run.accepted, run.recipients / run.sent
        memory = f"{run.before / MEBIBYTE:.0f} MiB | {run.largest / MEBIBYTE:.0f} MiB"
        lines.append(f"| {run.recipients:,} | {accepted:,.0f} | {sent:,.0f} | {memory} |")
    if smtp is not None:
        lines.append(f"\nBy SMTP, {messages:,} messages: {messages / smtp:,.0f}/s end to end.")
    return f"{describe_machine()}. All of it on one machine, the sink is smarthost's own.\n\n" + "\n".join(lines) + "\n"


def main() -> None:
    """Read the arguments, measure, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipients", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--smtp", type=int, default=10_000, help="messages by SMTP to compare with; 0 is none")
    parser.add_argument("--size", type=int, default=2000, help="octets of a message by SMTP")
    parser.add_argument(
        "--start", default=f"{sys.executable} -m smarthost serve --config {{dir}}/smarthost.toml", help="the relay"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        relay = Relay(arguments.start, folder)
        stack.callback(relay.close)
        template = relay.ask("POST", "/templates", TEMPLATE)["id"]
        send_batch(relay, template, 500)  # warms everything up
        smtp = None
        if arguments.smtp and shutil.which("smtp-source"):
            smtp = send_smtp(relay, arguments.smtp, arguments.size)
        runs = [send_batch(relay, template, recipients) for recipients in arguments.recipients]
    text = report(runs, smtp, arguments.smtp)
    print(text)
    write_section(arguments.results, "Batches", text)


if __name__ == "__main__":
    main()
