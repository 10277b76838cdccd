"""Turns a listener's address into sockets that listen: TCP, Unix, or handed over by systemd."""

import os
import socket
import stat
from collections.abc import Mapping
from pathlib import Path

BACKLOG = 1024
UNIX_MODE = 0o660  # who may write to the socket may connect: its owner and group
_FIRST_HANDED_OVER = 3  # sd_listen_fds(3): SD_LISTEN_FDS_START


def open_sockets(address: str, environment: Mapping[str, str]) -> list[socket.socket]:
    """Open the sockets of "host:port", "[v6]:port", "unix:/path" or "systemd:NAME", ready to accept from.

    "*:port" and ":port" are every address of the machine. `environment` has LISTEN_FDS and its like for systemd.
    Raises OSError when the address cannot be had, and ValueError with a sentence when it is not one.
    """
    if address.startswith("unix:"):
        return [_open_unix(Path(address[5:]))]
    if address.startswith("systemd:"):
        return _take_over(address[8:], environment)
    host, port = split_address(address)
    return _open_tcp(host, port)


def split_address(address: str) -> tuple[str, int]:
    """Split "host:port" or "[v6]:port"; the host of "*:port" and ":port" is "". Raises ValueError with a sentence."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(
            f"{address!r} is no address to listen on; write host:port, [v6]:port, unix:/path, systemd:NAME"
        )
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{address!r}: an IPv6 address stands in brackets, as in [::1]:587")
    return "" if host == "*" else host, int(port)


def _open_tcp(host: str, port: int) -> list[socket.socket]:
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, _, _, _, place in dict.fromkeys(found):
            # The protocol is named: asyncio sets TCP_NODELAY only on sockets that know theirs, and accepted sockets
            # inherit it from here; without it each reply may wait 40 ms for a delayed acknowledgement.
            opened = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
            sockets.append(opened)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if family == socket.AF_INET6:
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            opened.bind(place)
            _listen(opened)
    except OSError:
        for opened in sockets:
            opened.close()
        raise
    return sockets


def _open_unix(path: Path) -> socket.socket:
    _clear_stale(path)
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Before bind, so that the file never exists with a wider mode (Linux takes the mode of the socket's inode).
        os.fchmod(opened.fileno(), UNIX_MODE)
        opened.bind(str(path))
        path.chmod(UNIX_MODE)
        _listen(opened)
    except OSError:
        opened.close()
        raise
    return opened


def _clear_stale(path: Path) -> None:
    """Remove a socket that nobody listens on any more; anything else stays, and bind will say so."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()


def _take_over(name: str, environment: Mapping[str, str]) -> list[socket.socket]:
    """Take the sockets that systemd opened under a name (sd_listen_fds_with_names(3))."""
    count = environment.get("LISTEN_FDS", "0")
    if environment.get("LISTEN_PID", str(os.getpid())) != str(os.getpid()) or not count.isdigit():
        count = "0"
    names = environment.get("LISTEN_FDNAMES", "").split(":")
    sockets = []
    for number in range(int(count)):
        if (names[number] if number < len(names) else "unknown") == name:
            taken = socket.socket(fileno=_FIRST_HANDED_OVER + number)
            if taken.family in (socket.AF_INET, socket.AF_INET6):
                taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _listen(taken)
            sockets.append(taken)
    if not sockets:
        raise ValueError(f"systemd:{name}: no socket of that name was handed over (FileDescriptorName= in its unit)")
    return sockets


def _listen(opened: socket.socket) -> None:
    opened.setblocking(False)
    opened.listen(BACKLOG)


def name_of(opened: socket.socket) -> str:
    """Write a listening socket's own address as "host:port", "[v6]:port" or "unix:/path"."""
    place = opened.getsockname()
    if opened.family == socket.AF_UNIX:
        return f"unix:{place}"
    host = f"[{place[0]}]" if opened.family == socket.AF_INET6 else place[0]
    return f"{host}:{place[1]}"
