"""Measures the relay's resident memory while fifty attachments of 20 MB come over HTTP.

usage: attachments.py [--attachments 50] [--size 20] [--at-once 10] [--each 4] [--results FILE]

They come from a folder, from a web server, and as base64, in messages of some attachments each and several messages at
a time. All of it is sent tomorrow, so that what is measured is taking, not sending.
"""

import argparse
import contextlib
import hashlib
import http.client
import json
import re
import socket
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from relay_config import write_config
from results_file import RESULTS, describe_machine, write_section

TOKEN = "of the benchmark"
MEBIBYTE = 2**20


class _Files(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def free_port() -> int:
    """Give a port that nobody uses right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(folder: Path, files: Path) -> Iterator[tuple[int, int]]:
    """Run a relay whose upstream is dead; gives its process and its HTTP port."""
    listen, port = free_port(), free_port()
    config = write_config(folder, listen, free_port())
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    http_keys = (
        f'address = "127.0.0.1:{port}"\ntokens = ["sha256:{digest}"]\n'
        f'[http.attachments]\nstorage_roots = ["{files}"]\nallow_private_urls = true'
    )
    config.write_text(config.read_text().replace('address = ""', http_keys))
    with (folder / "output.log").open("ab") as log:
        relay = subprocess.Popen(
            [sys.executable, "-m", "smarthost", "serve", "--config", str(config)], stdout=log, stderr=log
        )
    try:
        end = time.monotonic() + 30
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if relay.poll() is not None or time.monotonic() > end:
                raise SystemExit((folder / "output.log").read_text())
            time.sleep(0.05)
        yield relay.pid, port
    finally:
        relay.terminate()
        relay.wait(60)


def hand_in(port: int, attachments: list[dict[str, str]]) -> None:
    """Hand in a message."""
    message = {
        "from": "a@sender.test",
        "to": "b@dead.test",
        "text": "Files.\n",
        "send_at": (datetime.now(UTC) + timedelta(days=1)).isoformat(),
        "attachments": [{"filename": f"{place}.bin", **each} for place, each in enumerate(attachments)],
    }
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=600)) as connection:
        connection.request("POST", "/api/v1/messages", json.dumps(message).encode(), headers)
        answer = connection.getresponse()
        if answer.status != 202:
            raise SystemExit(answer.read().decode())
        answer.read()


def memory(process: int) -> tuple[int, int]:
    """Give resident octets, now and at most."""
    status = Path(f"/proc/{process}/status").read_text()
    now, most = (re.search(rf"{name}:\s+(\d+) kB", status) for name in ("VmRSS", "VmHWM"))
    return int(now[1]) * 1024 if now else 0, int(most[1]) * 1024 if most else 0


def measure(source: str, arguments: argparse.Namespace, folder: Path) -> str:
    """Run one relay for one kind of source; gives a row of the table."""
    files = folder / "files"
    size = arguments.size * 1_000_000
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, directory=str(files)))
    Thread(target=server.serve_forever, daemon=True).start()

    def one(name: str) -> dict[str, str]:
        if source == "base64":
            return {"content": b64encode((files / name).read_bytes()).decode()}
        url = f"http://127.0.0.1:{server.server_address[1]}/{name}"
        return {"url": url} if source == "url" else {"storage_path": name}

    (folder / source).mkdir()
    with running(folder / source, files) as (process, port):
        hand_in(port, [one("small")])
        before = memory(process)[1]
        messages = [[one("large")] * arguments.each] * (arguments.attachments // arguments.each)
        left = arguments.attachments % arguments.each
        messages += [[one("large")] * left] if left else []
        begun = time.monotonic()
        with ThreadPoolExecutor(arguments.at_once) as threads:
            list(threads.map(partial(hand_in, port), messages))
        seconds = time.monotonic() - begun
        now, most = memory(process)
    server.shutdown()
    rate = arguments.attachments * size / 1e6 / seconds
    shown = (each / MEBIBYTE for each in (before, most, now))
    return f"| {source} | " + " | ".join(f"{each:.0f}" for each in shown) + f" | {seconds:.1f} | {rate:.0f} |"


def main() -> None:
    """Measure each kind of source, and write a section of the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attachments", type=int, default=50)
    parser.add_argument("--size", type=int, default=20, help="MB of each")
    parser.add_argument("--each", type=int, default=4, help="attachments of a message")
    parser.add_argument("--at-once", type=int, default=10, help="messages at a time")
    parser.add_argument("--source", action="append", choices=("storage_path", "url", "base64"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "files").mkdir()
        (folder / "files" / "large").write_bytes(bytes(range(250)) * (arguments.size * 1_000_000 // 250))
        (folder / "files" / "small").write_bytes(b"x")
        rows = [measure(source, arguments, folder) for source in arguments.source or ("storage_path", "url", "base64")]
    text = (
        f"{describe_machine()}. {arguments.attachments} attachments of {arguments.size} MB, "
        f"{arguments.each} a message, {arguments.at_once} messages at a time; resident memory in MiB.\n\n"
        "| source | before | at most | after | seconds | MB/s |\n|---|---|---|---|---|---|\n" + "\n".join(rows)
    )
    print(text)
    write_section(arguments.results, "Attachments over HTTP", text)


if __name__ == "__main__":
    main()
