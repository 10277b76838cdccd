"""The demo, as a process."""

import argparse
import os
import re
import select
import signal
import smtplib
import socket
import subprocess
import sys
import time

import pytest

from smarthost.cli import demo

COMMAND = [sys.executable, "-m", "smarthost", "demo"]


@pytest.mark.system
def test_demo_once() -> None:
    """One message is accepted, committed, signed, relayed and verified, each told with its time, and the exit is 0."""
    ended = subprocess.run([*COMMAND, "--once"], capture_output=True, text=True, timeout=40, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    for pattern in (
        r"accepted as [0-9A-Z]{12} ",
        r"committed in \d+\.\d ms",
        r"signed as d=example\.org s=demo",
        r"relayed to the sink in \d+\.\d ms",
        r"signature verified on arrival",
    ):
        assert re.search(pattern, ended.stdout), ended.stdout


@pytest.mark.system
def test_demo_goes_on() -> None:
    """It says how to send more, shows what becomes of it, and ends with 0 at Ctrl-C."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, text=True, env=environment) as running:
        try:
            assert running.stdout is not None
            seen = _read_until(running, "Ctrl-C stops it")
            found = re.search(r"swaks --server 127\.0\.0\.1:(\d+)", seen)
            assert found is not None
            with smtplib.SMTP("127.0.0.1", int(found[1]), timeout=5) as client:
                client.sendmail("a@example.org", ["550@example.net"], "From: a@example.org\r\n\r\nhello\r\n")
            assert "to <550@example.net>" in _read_until(running, "failed")
        finally:
            running.send_signal(signal.SIGINT)
            running.communicate(timeout=20)
    assert running.returncode == 0


def test_a_port_that_is_taken_meanwhile(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody takes the port between the look and the start: the demo takes another one."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = iter([taken.getsockname()[1], 0, *[0] * 10])
        monkeypatch.setattr(demo, "_port_near", lambda wanted, what: next(ports) or _free_port())
        assert demo.run(argparse.Namespace(once=True)) == 0
    assert "signature verified on arrival" in capsys.readouterr().out


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _read_until(demo: "subprocess.Popen[str]", word: str) -> str:
    """Read lines until one has a word; gives all of them."""
    assert demo.stdout is not None
    seen = ""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if select.select([demo.stdout], [], [], 0.5)[0] or seen:
            line = demo.stdout.readline()
            seen += line
            if word in line or not line:
                return seen
    return seen
