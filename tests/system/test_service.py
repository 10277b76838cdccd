"""The relay under a service manager: sockets that are handed over, and what it says about its state."""

import smtplib
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from outside import need, succeeds
from relay_process import PASSWORD, USER, Relay, environment, is_listening, wait_until
from sending import compose, submit, transact
from sink_process import Sink

PR_SET_MDWE = 65  # prctl(2): no memory that is writable and executable, as MemoryDenyWriteExecute= asks for


@pytest.fixture
def notices(tmp_path: Path) -> Iterator[socket.socket]:
    """A datagram socket that listens where systemd would."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        yield manager


def start_as_service(relay: Relay, handed: socket.socket, notify: str) -> None:
    """Start a relay as systemd does: the listening socket is descriptor 3, and LISTEN_PID is the relay's own."""
    relay.write_config()
    serve = [sys.executable, "-m", "smarthost", "serve", "--config", str(relay.config_file)]
    become = f"import os; os.dup2({handed.fileno()}, 3); os.environ['LISTEN_PID'] = str(os.getpid()); "
    variables = environment() | {
        "LISTEN_FDS": "1",
        "LISTEN_FDNAMES": "submission",
        "NOTIFY_SOCKET": notify,
        "WATCHDOG_USEC": "2000000",
    }
    with relay.log_file.open("ab") as log, relay.error_file.open("ab") as errors:
        relay.running = subprocess.Popen(
            [sys.executable, "-c", f"{become}os.execv({serve[0]!r}, {serve!r})"],
            stdout=log,
            stderr=errors,
            stdin=subprocess.DEVNULL,
            cwd=relay.folder,
            env=variables,
            pass_fds=[handed.fileno()],
        )


def test_socket_activation_and_notices(
    make_relay: Callable[..., Relay], sink: Sink, notices: socket.socket, tmp_path: Path
) -> None:
    """The relay takes mail on the socket that it was handed, says READY, WATCHDOG and STOPPING, and exits 0."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(16)
        port = listening.getsockname()[1]
        relay = make_relay(listener=[{"address": "systemd:submission", "auth": "optional"}])
        start_as_service(relay, listening, str(tmp_path / "notify"))
        assert b"READY=1" in notices.recv(4096)
        sink.wait_until_up()
        submit(port, "by activation", "250@example.com")
        sink.wait_for("by activation")
        assert notices.recv(4096) == b"WATCHDOG=1"
        assert relay.stop() == 0
        heard = []
        wait_until(lambda: heard.append(notices.recv(4096)) or b"STOPPING=1" in heard, "it says that it stops")


def test_no_writable_code(make_relay: Callable[..., Relay], sink: Sink, certificates: dict[str, str]) -> None:
    """The relay works where memory may not be writable and executable: TLS, password hashes, storage and all."""
    arm = f"import ctypes, sys; refused = ctypes.CDLL(None).prctl({PR_SET_MDWE}, 1, 0, 0, 0)"
    need(succeeds(sys.executable, "-c", f"{arm}; sys.exit(refused)"), "PR_SET_MDWE (Linux 6.3)")
    relay = make_relay()
    relay.write_config()
    serve = f"from smarthost.__main__ import main; sys.exit(main(['serve', '--config', {str(relay.config_file)!r}]))"
    with relay.log_file.open("ab") as log:
        relay.running = subprocess.Popen(
            [sys.executable, "-c", f"{arm}; {serve}"], stdout=log, stderr=log, cwd=relay.folder, env=environment()
        )
    sink.wait_until_up()
    wait_until(lambda: is_listening(relay.port), "the relay takes connections", 20)
    with smtplib.SMTP("localhost", relay.port, timeout=20) as client:
        client.starttls(context=ssl.create_default_context(cafile=certificates["ca"]))
        client.login(USER, PASSWORD)
        transact(client, compose("hardened", ["250@example.com"]), ("250@example.com",), sender="root@example.org")
    sink.wait_for("hardened")
