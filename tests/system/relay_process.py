"""The relay as a process of its own: started, asked, signalled and ended by the system tests."""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

Answer = TypeVar("Answer")

USER = "app1"
PASSWORD = "correct horse"
START_TIMEOUT = 20.0  # seconds


# Below those that outgoing connections get; each process that runs tests has some of them to itself.
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_mine = range(20000 + _worker, 32000, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
_ports = random.sample(_mine, len(_mine))


def free_port() -> int:
    """Give a TCP port of 127.0.0.1 that nobody uses right now; never the same one twice.

    Who is given a port binds it only a moment later: a port given twice would make a relay its own upstream.
    """
    while True:
        port = _ports.pop()
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def wait_until(question: Callable[[], Answer], what: str, seconds: float = 15.0, step: float = 0.02) -> Answer:
    """Ask until the answer is true, and give it; fail by naming what was waited for."""
    deadline = time.monotonic() + seconds
    while True:
        answer = question()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what} (last answer: {answer!r})")
        time.sleep(step)


def is_listening(port: int) -> bool:
    """Whether something accepts connections on a port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def to_toml(config: dict[str, Any]) -> str:
    """Write a configuration as TOML: plain keys first, then tables, then arrays of tables."""
    plain, tables = [], []
    for key, value in config.items():
        rows = value if isinstance(value, list) and value and isinstance(value[0], dict) else None
        if rows is None and not isinstance(value, dict):
            plain.append(f"{key} = {inline(value)}")
        for row in rows or ([value] if isinstance(value, dict) else []):
            tables.append(f"\n[[{key}]]" if rows else f"\n[{key}]")
            tables.extend(f"{name} = {inline(what)}" for name, what in row.items())
    return "\n".join([*plain, *tables, ""])


def inline(value: Any) -> str:
    """Write one value as TOML."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {inline(what)}" for name, what in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(inline(what) for what in value) + "]"
    return json.dumps(value)


def environment() -> dict[str, str]:
    """Give our environment without what would configure a relay or point it at systemd."""
    return {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("SMARTHOST", "NOTIFY_", "WATCHDOG_", "LISTEN_"))
    }


class Relay:
    """One relay with its folder, configuration, log and ports; `config` may be changed before a start or a reload."""

    def __init__(
        self, folder: Path, config: dict[str, Any], ports: tuple[int, int], upstream_up: Callable[[], None]
    ) -> None:
        """Remember what to start, and whom to wait for beside it; nothing runs yet. `ports` are SMTP's and HTTP's."""
        self.folder = folder
        self.config = config
        self.port, self.http_port = ports
        self.upstream_up = upstream_up
        self.config_file = folder / "smarthost.toml"
        self.log_file = folder / "relay.log"
        self.error_file = folder / "relay.err"
        self.running: subprocess.Popen[bytes] | None = None

    def write_config(self) -> None:
        """Write the configuration file as `config` now stands."""
        self.config_file.write_text(to_toml(self.config), encoding="utf-8")

    def start(self, *, wait: bool = True) -> None:
        """Start the relay, and wait until it takes connections."""
        self.write_config()
        with self.log_file.open("ab") as log, self.error_file.open("ab") as errors:
            self.running = subprocess.Popen(
                [sys.executable, "-m", "smarthost", "serve", "--config", str(self.config_file)],
                stdout=log,
                stderr=errors,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                env=environment(),
            )
        if wait:
            # A relay whose upstream is not there yet would leave it alone for a minute.
            self.upstream_up()
            wait_until(self._is_up, "the relay takes connections", START_TIMEOUT, 0.01)

    def _is_up(self) -> bool:
        assert self.running is not None
        if self.running.poll() is not None:
            raise AssertionError(f"the relay ended with {self.running.returncode}:\n{self.errors()[-3000:]}")
        return is_listening(self.port)

    def signal(self, number: int) -> None:
        """Send a signal to the relay."""
        assert self.running is not None
        self.running.send_signal(number)

    def kill(self) -> None:
        """End the relay as a crash would."""
        assert self.running is not None
        self.running.kill()
        self.running.wait(10)
        self.running = None

    def stop(self, seconds: float = 20.0) -> int:
        """End the relay by SIGTERM and give its exit status."""
        assert self.running is not None
        self.running.send_signal(signal.SIGTERM)
        return self.wait(seconds)

    def wait(self, seconds: float = 20.0) -> int:
        """Wait for the relay's end and give its exit status."""
        assert self.running is not None
        status = self.running.wait(seconds)
        self.running = None
        return status

    def close(self) -> None:
        """End whatever still runs, when a test is over."""
        if self.running is not None and self.running.poll() is None:
            self.running.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.running.wait(5)
            if self.running.poll() is None:
                self.running.kill()
                self.running.wait(10)

    def run(self, *arguments: str, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one command of the command line against this relay."""
        command = [sys.executable, "-m", "smarthost", *arguments]
        done = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            cwd=self.folder,
            env=environment() | {"SMARTHOST_CONFIG": str(self.config_file)},
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done

    def queue(self, *filters: str) -> list[dict[str, Any]]:
        """Give the entries that `queue list --json` shows."""
        return read_rows(self.run("queue", "list", "--json", *filters).stdout)

    def wait_for_why(self, why: str, count: int, seconds: float = 20.0) -> None:
        """Wait until the queue holds so many entries and all wait for one reason; else show them, and the log."""
        try:
            wait_until(lambda: [entry["why"] for entry in self.queue()] == [why] * count, why, seconds)
        except AssertionError:
            shown = "\n".join(map(str, [*self.queue(), *self.events()[-5:]]))
            raise AssertionError(
                f"not {count} entries that wait for {why}:\n{shown}\n{self.errors()[-2000:]}"
            ) from None

    def get(self, path: str) -> tuple[int, str]:
        """Ask the relay's HTTP address; give status and body."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refusal:
            return refusal.code, refusal.read().decode()

    def metric(self, name: str, **labels: str) -> float:
        """Give the sum of a metric's samples that have these labels."""
        total = 0.0
        for line in self.get("/metrics")[1].splitlines():
            sample, _, value = line.rpartition(" ")
            series, _, text = sample.partition("{")
            if series == name and all(f'{label}="{wanted}"' in text for label, wanted in labels.items()):
                total += float(value)
        return total

    def events(self, kind: str = "") -> list[dict[str, Any]]:
        """Give the mail log's lines, of one event or all."""
        found = []
        for line in self.log_file.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                found.append(json.loads(line))
        return [event for event in found if not kind or event.get("event") == kind]

    def errors(self) -> str:
        """Give what the relay wrote to its standard error."""
        return self.error_file.read_text(encoding="utf-8", errors="replace") if self.error_file.exists() else ""


def read_rows(text: str) -> list[dict[str, Any]]:
    """Read rows that were written as one JSON object a line."""
    return [json.loads(line) for line in text.splitlines()]
