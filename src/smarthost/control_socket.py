"""Finds, binds and connects the control socket, however long its path is."""

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

SOCKET_NAME = "control.sock"
_LONGEST = 100  # octets; a Unix socket's address holds 107


class ControlBusy(OSError):
    """Another relay answers on the control socket: two may not share a data directory."""


def bind_control_socket(path: Path) -> socket.socket:
    """Bind a socket that only its owner may use; what a dead relay left behind is removed.

    Raises ControlBusy when a relay answers there, and OSError when the folder cannot be written.
    """
    _remove_dead(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _reachable(path) as address:
            bound.bind(address)
            # Nobody can connect before listen(), so that there is no moment in which others may.
            os.chmod(address, 0o600)
        bound.setblocking(False)
    except OSError:
        bound.close()
        raise
    return bound


def connect_control_socket(path: Path, timeout: float) -> socket.socket:
    """Connect to a relay; raises OSError (FileNotFoundError, ConnectionRefusedError, PermissionError, ...)."""
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connected.settimeout(timeout)
    try:
        with _reachable(path) as address:
            connected.connect(address)
    except OSError:
        connected.close()
        raise
    return connected


def _remove_dead(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise OSError(f"{path} is there and is not a socket")
        connect_control_socket(path, 2.0).close()
    except FileNotFoundError:
        return
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
        return
    raise ControlBusy(f"another relay answers on {path}")


@contextlib.contextmanager
def _reachable(path: Path) -> Iterator[str]:
    """Give an address for a socket's path; a long one goes through the descriptor of its folder."""
    if len(os.fsencode(path)) <= _LONGEST:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
