"""The story of the demo's first message: sent over the wire, heard from the event feed, verified on arrival."""

import asyncio
import smtplib
import time
from collections.abc import Iterator
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path
from typing import Protocol

import msgspec

from smarthost.crypto.dkim_keys import load_key, public_record
from smarthost.crypto.dkim_verify import verify
from smarthost.mail.event import Event, Kind
from smarthost.mail.message import format_id


class CommitStats(Protocol):
    """What is asked of the spool's counters."""

    commit_seconds_sum: float


class Story:
    """Listens to the event feed, and notes when each step of the first message really happened."""

    def __init__(self) -> None:
        """Start before anything happened."""
        self.relayed = asyncio.Event()
        self.trouble = ""
        self._stats: CommitStats | None = None
        self._committed_before = 0.0
        self._commit_seconds = 0.0
        self._accepted: tuple[float, Event] | None = None
        self._arrived: tuple[float, Event] | None = None

    def follow(self, stats: CommitStats) -> None:
        """Measure commits from now on."""
        self._stats = stats
        self._committed_before = stats.commit_seconds_sum

    def __call__(self, event: Event) -> None:
        """Hear an event."""
        now = time.perf_counter()
        if event.event is Kind.ACCEPTED and self._accepted is None:
            self._accepted = now, event
            if self._stats is not None:
                self._commit_seconds = self._stats.commit_seconds_sum - self._committed_before
        elif event.event is Kind.RELAYED and self._arrived is None:
            self._arrived = now, event
            self.relayed.set()
        elif event.reply and self._arrived is None:
            self.trouble = event.reply

    def tell(self) -> Iterator[str]:
        """Give a line for each step, with the times that were measured."""
        if self._accepted is None or self._arrived is None:
            return
        accepted_at, accepted = self._accepted
        arrived_at, arrived = self._arrived
        yield f"accepted as {format_id(accepted.message)} ({accepted.size} octets)"
        yield f"committed in {self._commit_seconds * 1000:.1f} ms (on disk before the 250)"
        for signature in accepted.signed:
            yield f"signed as {signature}"
        phases = ""
        if arrived.seconds is not None:
            spans = msgspec.structs.asdict(arrived.seconds).items()
            phases = " (" + ", ".join(f"{name} {seconds * 1000:.1f}" for name, seconds in spans) + ")"
        elapsed = (arrived_at - accepted_at) * 1000
        yield f"relayed to the sink in {elapsed:.1f} ms{phases}: {arrived.code} {arrived.status} {arrived.reply}"


def send_message(port: int, domain: str) -> str:
    """Send one message over the wire, as an application would; gives the relay's reply to the content. Blocks."""
    message = EmailMessage()
    message["From"] = f"Demo <demo@{domain}>"
    message["To"] = "you@example.net"
    message["Subject"] = "smarthost demo"
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain=domain)
    message.set_content("This message went through smarthost: accepted, signed, stored, relayed.\n")
    with smtplib.SMTP("127.0.0.1", port, local_hostname="demo.example.org", timeout=10) as client:
        client.ehlo()
        client.mail(f"demo@{domain}")
        client.rcpt("you@example.net")
        code, text = client.data(message.as_bytes())
    return f"{code} {text.decode('utf-8', 'replace')}"


def verify_arrival(content: bytes, domain: str, selector: str, path: Path) -> str:
    """Verify the signature of a message that arrived, with the record made from the key; gives "" or what is wrong."""
    key = load_key(domain, selector, path)
    found = verify(content, lambda name: public_record(key).encode() if name == key.record_name else None)
    if not found:
        return "it has no signature"
    return "; ".join(signature.reason for signature in found if not signature.ok)
