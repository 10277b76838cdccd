"""The upstream of the system tests: `smarthost sink` as a process, with a Maildir and counts to look at."""

import email
import email.policy
import json
import subprocess
import sys
import urllib.request
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from relay_process import environment, free_port, is_listening, wait_until


class Sink:
    """One sink; it misbehaves by recipient and keeps what it accepted."""

    def __init__(self, folder: Path) -> None:
        """Remember where to keep mail; nothing runs yet."""
        self.folder = folder
        self.maildir = folder / "maildir"
        self.port = free_port()
        self.http_port = free_port()
        self.running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the sink; it may take a moment until it takes connections."""
        command = [sys.executable, "-m", "smarthost", "sink", "--listen", f"127.0.0.1:{self.port}"]
        command += ["--http", f"127.0.0.1:{self.http_port}", "--maildir", str(self.maildir)]
        with (self.folder / "sink.log").open("ab") as log:
            self.running = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.folder, env=environment()
            )

    def wait_until_up(self) -> None:
        """Wait until the sink takes connections."""
        wait_until(self._is_up, "the sink takes connections", 20, 0.01)

    def _is_up(self) -> bool:
        if self.running is None:
            return True  # a test has ended it on purpose
        if self.running.poll() is not None:
            raise AssertionError(f"the sink ended: {(self.folder / 'sink.log').read_text()[-3000:]}")
        return is_listening(self.port)

    def close(self) -> None:
        """End the sink."""
        if self.running is not None and self.running.poll() is None:
            self.running.terminate()
            try:
                self.running.wait(5)
            except subprocess.TimeoutExpired:
                self.running.kill()
                self.running.wait(5)
        self.running = None

    def counts(self) -> dict[str, Any]:
        """Give what the sink counted."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/counts", timeout=5) as answer:
            return json.load(answer)

    def transactions(self) -> list[dict[str, Any]]:
        """Give what MAIL and RCPT said for each message that was accepted."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/messages", timeout=5) as answer:
            return json.load(answer)

    def octets(self) -> list[bytes]:
        """Give every message that was accepted, as it was stored."""
        folder = self.maildir / "new"
        return [path.read_bytes() for path in sorted(folder.iterdir())] if folder.is_dir() else []

    def messages(self) -> list[EmailMessage]:
        """Give every message that was accepted, parsed."""
        return [email.message_from_bytes(octets, policy=email.policy.default) for octets in self.octets()]

    def subjects(self) -> list[str]:
        """Give the subjects of the messages that were accepted, reports left out."""
        return [str(message["Subject"]) for message in self.messages() if not is_report(message)]

    def reports(self) -> list[EmailMessage]:
        """Give the delivery status notifications that were accepted."""
        return [message for message in self.messages() if is_report(message)]

    def wait_for(self, subject: str, seconds: float = 15.0) -> EmailMessage:
        """Wait for a message with a subject, and give it."""

        def find() -> EmailMessage | None:
            found = [message for message in self.messages() if str(message["Subject"]) == subject]
            return found[0] if found else None

        message = wait_until(find, f"the sink has {subject!r}", seconds)
        assert message is not None
        return message


def is_report(message: EmailMessage) -> bool:
    """Whether a message is a delivery status notification."""
    return message.get_content_type() == "multipart/report"
