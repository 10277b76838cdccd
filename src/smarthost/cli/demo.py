"""smarthost demo: runs a relay and an upstream together, and follows one message through them."""

import argparse
import asyncio
import errno
import os
import signal
import socket
import sys
import tempfile
from pathlib import Path

import msgspec

from smarthost.cli.demo_story import Story, send_message, verify_arrival
from smarthost.cli.exits import CommandFailed, unavailable
from smarthost.cli.trace import format_event
from smarthost.config import Config, DkimKey
from smarthost.crypto.dkim_keys import Algorithm, generate_key
from smarthost.mail.event import Event
from smarthost.mail.route import Deliver, NextHop, Route, TlsLevel
from smarthost.policy.admission import Listener, Submission
from smarthost.report.rows import event_row
from smarthost.server import Server
from smarthost.sink.server import Sink

RELAY_PORT = 2587
HTTP_PORT = 9587
PATIENCE = 30.0  # seconds in which the message has to arrive
DOMAIN = "example.org"
SELECTOR = "demo"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("--once", action="store_true", help="end after the first message: 0 if it arrived and verified")


def run(chosen: argparse.Namespace) -> int:
    """Run the demo; gives the exit code."""
    with tempfile.TemporaryDirectory(prefix="smarthost-demo-") as folder:
        try:
            return asyncio.run(_demonstrate(Path(folder), chosen.once))
        except BrokenPipeError:
            raise  # nobody reads our output any more, which is no trouble of the demo's
        except OSError as error:
            raise unavailable(f"the demo cannot start: {error.strerror or error}") from None


async def _demonstrate(folder: Path, once: bool) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    generate_key(Algorithm.RSA_SHA256, folder / "demo.pem")
    sink = Sink()
    sink_port = (await sink.start())[1]
    story = Story()
    try:
        server, relay_port, http_port = await _start(folder, sink_port, story)
        try:
            story.follow(server.spool.stats)
            _say(f"the relay listens on 127.0.0.1:{relay_port}, its upstream (a sink) on 127.0.0.1:{sink_port}")
            await _follow_first(server, sink, story, relay_port, folder / "demo.pem")
            if not once:
                _explain(folder, relay_port, http_port)
                server.feed.listen(_show)
                await stop.wait()
                _say("stopping")
        finally:
            await server.stop()
    finally:
        await sink.stop()
    return os.EX_OK


async def _start(folder: Path, sink_port: int, story: Story) -> tuple[Server, int, int]:
    """Start the relay, and give its ports; a port that somebody takes before the relay does is replaced."""
    tries = 3
    while True:
        relay_port, http_port = _port_near(RELAY_PORT, "the relay"), _port_near(HTTP_PORT, "status")
        server = Server(_configure(folder, relay_port, http_port, sink_port), log_to=None, listeners=(story,))
        tries -= 1
        try:
            await server.start()
            return server, relay_port, http_port
        except BaseException as error:
            await server.stop()
            if not tries or not isinstance(error, OSError) or error.errno != errno.EADDRINUSE:
                raise


async def _follow_first(server: Server, sink: Sink, story: Story, port: int, key: Path) -> None:
    """Send one message over the wire and tell each step as it happens; raises CommandFailed when one is missing."""
    reply = await asyncio.to_thread(send_message, port, DOMAIN)
    _say(f"sent one message by SMTP; the relay answered: {reply}")
    try:
        async with asyncio.timeout(PATIENCE):
            await story.relayed.wait()
    except TimeoutError:
        last = f"; last: {story.trouble}" if story.trouble else ""
        raise unavailable(f"the message did not arrive within {PATIENCE:.0f} s{last}") from None
    for line in story.tell():
        _say(line)
    verdict = verify_arrival(sink.messages[-1].content, DOMAIN, SELECTOR, key)
    if verdict:
        raise CommandFailed(f"the signature did not verify on arrival: {verdict}", os.EX_SOFTWARE)
    _say("signature verified on arrival")


def _configure(folder: Path, relay_port: int, http_port: int, sink_port: int) -> Config:
    return Config(
        hostname="relay.example.org",
        default_domain=DOMAIN,
        postmaster=f"postmaster@{DOMAIN}",
        data_directory=folder / "data",
        shutdown_timeout=2.0,
        listeners=(Listener(address=f"127.0.0.1:{relay_port}"),),
        # A temporary directory is often small, and the demo's mail is smaller.
        submission=msgspec.structs.replace(Submission(), min_free_space=16 * 1024 * 1024),
        dkim=(DkimKey(DOMAIN, SELECTOR, folder / "demo.pem"),),
        fallback=Route("relayhost", Deliver.RELAYHOST, (NextHop("127.0.0.1", sink_port),), TlsLevel.MAY),
        http_address=f"127.0.0.1:{http_port}",
    )


def _port_near(wanted: int, what: str) -> int:
    """Give the wanted port of 127.0.0.1, or a free one when somebody has it."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                _say(f"port {wanted} is busy: {what} takes a free one")
                continue
            found: int = probe.getsockname()[1]
            return found
    raise unavailable("no port of 127.0.0.1 is free")


def _explain(folder: Path, relay_port: int, http_port: int) -> None:
    data = folder / "data"
    print(
        f"""
It keeps running. Send more, and see what becomes of it here:

  swaks --server 127.0.0.1:{relay_port} --from app@{DOMAIN} --to you@example.net
  python3 -c 'import smtplib; smtplib.SMTP("127.0.0.1", {relay_port}).sendmail(
    "app@{DOMAIN}", ["you@example.net"], "From: app@{DOMAIN}\\r\\nSubject: hello\\r\\n\\r\\nhello\\r\\n")'

  The recipient tells the upstream how to misbehave: 451.once@example.net is refused once and then taken,
  550@example.net is refused for good, hang@example.net is never answered.

Look at it:

  curl http://127.0.0.1:{http_port}/metrics       (also /healthz and /readyz)
  smarthost queue list --data-directory {data}
  smarthost trace ID   --data-directory {data}

Ctrl-C stops it; everything is in {folder} and goes with it.
""",
        flush=True,
    )


def _show(event: Event) -> None:
    _say(format_event(event_row(event)))


def _say(line: str) -> None:
    print(f"demo: {line}", file=sys.stdout, flush=True)
