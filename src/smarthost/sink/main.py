"""Runs a sink by itself: what `smarthost sink` does."""

import asyncio
import ssl
from collections.abc import Callable

from smarthost.sink.desk import SinkSettings
from smarthost.sink.server import Sink


async def serve(
    settings: SinkSettings, tls: ssl.SSLContext | None = None, announce: Callable[[str], None] = print
) -> None:
    """Run a sink until the task is cancelled, then say what it saw.

    Raises ValueError with a sentence for an address that cannot be read, OSError when a port or the Maildir cannot be
    had.
    """
    sink = Sink(settings, tls)
    host, port = await sink.start()
    announce(f"sink: takes mail at {_write_address(host, port)}" + (" (STARTTLS)" if tls is not None else ""))
    if settings.http:
        announce(f"sink: shows what it saw at http://{_write_address(*sink.http_address)}/counts")
    if settings.maildir is not None:
        announce(f"sink: stores mail in {settings.maildir}")
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
