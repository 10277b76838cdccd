"""Runs a relay in this process from its start to the signal that ends it, and says how it ended."""

import asyncio
import gc
import os
import signal
import sys

import uvloop

from smarthost.config import Config
from smarthost.control_socket import ControlBusy
from smarthost.crypto.dkim_keys import KeyUnreadable
from smarthost.crypto.tls import TlsFault
from smarthost.server import Server
from smarthost.spool.store import SpoolError

EX_OK, EX_SOFTWARE, EX_OSERR, EX_TEMPFAIL, EX_NOPERM, EX_CONFIG = 0, 70, 71, 75, 77, 78


def _sentence(error: Exception) -> str:
    """Say what kept the relay from starting, without the system's number for it."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror


def _exit_code(error: Exception) -> int:
    if isinstance(error, KeyUnreadable | TlsFault):
        return EX_CONFIG
    return EX_NOPERM if isinstance(error, PermissionError) else EX_OSERR


async def run(config: Config) -> int:
    """Run a relay until a signal ends it; gives the exit code."""
    server = Server(config)
    loop = asyncio.get_running_loop()
    reloads: set[asyncio.Task[list[str]]] = set()

    def on_stop() -> None:
        if server.is_asked_to_stop:
            os._exit(EX_SOFTWARE)
        server.ask_to_stop()

    def on_reload() -> None:
        task = asyncio.ensure_future(server.reload())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    try:
        await server.start()
    except (SpoolError, KeyUnreadable, TlsFault, ControlBusy, OSError, ValueError) as error:
        print(f"smarthost: {_sentence(error)}", file=sys.stderr)
        await server.stop()
        return _exit_code(error)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_stop)
    loop.add_signal_handler(signal.SIGHUP, on_reload)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    await server.wait()
    await server.stop()
    return EX_TEMPFAIL if server.failed else EX_OK


def main(config: Config) -> int:
    """Run a relay on uvloop; gives the exit code (sysexits)."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run(config))
