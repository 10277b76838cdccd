"""Runs a sink by itself: what `smarthost sink` does."""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

from smarthost.sink.desk import SinkSettings
from smarthost.sink.server import Sink


async def serve(
    listen: str,
    http: str = "",
    maildir: Path | None = None,
    login: str = "",
    tls: ssl.SSLContext | None = None,
    announce: Callable[[str], None] = print,
) -> None:
    """Run a sink until the task is cancelled, then say what it saw.

    `listen` and `http` are host:port, `http` "" leaves it out; `login` is "user:password" to offer AUTH. Raises
    ValueError with a sentence for an address that cannot be read, OSError when a port or the Maildir cannot be had.
    """
    username, _, password = login.partition(":")
    settings = SinkSettings(listen=listen, http=http, maildir=maildir, username=username, password=password)
    sink = Sink(settings, tls)
    host, port = await sink.start()
    announce(f"sink: takes mail at {_write_address(host, port)}" + (" (STARTTLS)" if tls is not None else ""))
    if http:
        announce(f"sink: shows what it saw at http://{_write_address(*sink.http_address)}/counts")
    if maildir is not None:
        announce(f"sink: stores mail in {maildir}")
    try:
        await asyncio.Event().wait()
    finally:
        await sink.stop()
        counts = sink.counts
        refused = sum(counts.recipients_refused.values()) + sum(counts.messages_refused.values())
        announce(
            f"sink: {counts.messages} messages for {counts.recipients_accepted} recipients over "
            f"{counts.connections} connections, {refused} refusals"
        )


def _write_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
