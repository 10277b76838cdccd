"""Tells systemd how the service is (sd_notify): ready, reloading, stopping, still alive."""

import os
import socket
import time
from collections.abc import Mapping


class Notifier:
    """Sends states to the socket that systemd named; does nothing when there is none."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        """Read NOTIFY_SOCKET and WATCHDOG_USEC; see sd_notify(3) and sd_watchdog_enabled(3)."""
        self._path = environ.get("NOTIFY_SOCKET", "")
        microseconds = environ.get("WATCHDOG_USEC", "")
        mine = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_interval = int(microseconds) / 2_000_000 if microseconds.isdigit() and mine else 0.0

    def ready(self, status: str) -> None:
        """Say that the relay accepts mail."""
        self._send(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """Say that the configuration is being read again."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Say that the relay is ending."""
        self._send("STOPPING=1")

    def alive(self) -> None:
        """Say that the event loop turns, for the watchdog."""
        self._send("WATCHDOG=1")

    def _send(self, state: str) -> None:
        if not self._path:
            return
        address = "\0" + self._path[1:] if self._path.startswith("@") else self._path
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
                notify.connect(address)
                notify.sendall(state.encode())
        except OSError:
            # A supervisor that does not listen is no reason to stop relaying mail.
            return
