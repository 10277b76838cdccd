"""Relay: a command's side of the control socket."""

import json
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from smarthost.cli.exits import CommandFailed, refused, unavailable
from smarthost.control_socket import SOCKET_NAME, connect_control_socket

PATIENCE = 120.0  # seconds that the relay may take for the next line: a bulk change of a large queue takes some
LONGEST_LINE = 64 * 1024 * 1024  # octets of one answer line

Row = dict[str, Any]

_EXIT_CODES = {
    400: os.EX_USAGE,
    404: os.EX_NOINPUT,
    409: os.EX_CANTCREAT,
    413: os.EX_USAGE,
    422: os.EX_DATAERR,
    503: os.EX_TEMPFAIL,
}


class RelayDown(CommandFailed):
    """No relay answers in the data directory (69)."""

    def __init__(self, folder: Path) -> None:
        """Say where it was looked for."""
        super().__init__(f"the relay is not running (nobody answers on {folder / SOCKET_NAME})", os.EX_UNAVAILABLE)


class Answer:
    """What the relay says to one request: iterate over its rows; `done` is complete when they have ended."""

    def __init__(self, connection: socket.socket) -> None:
        """Read from a connection on which a request was sent."""
        self.done: Row = {}
        self._connection = connection

    def __iter__(self) -> Iterator[Row]:
        """Give the rows; raises CommandFailed for the relay's problem document, or when the connection breaks."""
        with self._connection, self._connection.makefile("rb") as lines:
            while line := self._read(lines):
                answer = msgspec.json.decode(line)
                if "row" in answer:
                    yield answer["row"]
                elif "done" in answer:
                    self.done = answer["done"]
                    return
                else:
                    problem = answer.get("problem", {})
                    exit_code = _EXIT_CODES.get(problem.get("status", 0), os.EX_SOFTWARE)
                    raise CommandFailed(problem.get("detail", "the relay refused without a reason"), exit_code)
        raise unavailable("the relay closed the connection before its answer was complete")

    def _read(self, lines: Any) -> bytes:
        try:
            line: bytes = lines.readline(LONGEST_LINE)
        except TimeoutError:
            raise unavailable(f"the relay did not answer within {PATIENCE:.0f} s") from None
        except OSError as error:
            raise unavailable(f"the connection to the relay broke: {error.strerror or error}") from None
        return line


def ask(folder: Path, verb: str, arguments: Mapping[str, Any]) -> Answer:
    """Send a request to the relay of a data directory.

    Raises RelayDown when there is none, and CommandFailed (77) when we may not speak to it.
    """
    path = folder / SOCKET_NAME
    try:
        connection = connect_control_socket(path, PATIENCE)
        connection.sendall(json.dumps({"verb": verb, "arguments": arguments}).encode() + b"\n")
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        raise RelayDown(folder) from None
    except PermissionError:
        raise refused(f"no permission to use {path}: run this as the relay's user or as root") from None
    except OSError as error:
        raise unavailable(f"{path} cannot be used: {error.strerror or error}") from None
    return Answer(connection)


def ask_one(folder: Path, verb: str, arguments: Mapping[str, Any]) -> Row:
    """Send a request that has one answer, and give it."""
    answer = ask(folder, verb, arguments)
    for _ in answer:
        pass
    return answer.done
