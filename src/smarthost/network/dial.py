"""Dials one address: a connected TCP socket, from a chosen local address, within a time; says which it would be."""

import asyncio
import socket
from ipaddress import ip_address

# linux/in.h; the socket module has no name for it before 3.14. The kernel then picks the port when it connects, so that
# one local address serves as many connections as there are peers and ports, not 28,000 in all.
_IP_BIND_ADDRESS_NO_PORT = 24


def bind(connection: socket.socket, source_address: str) -> None:
    """Have a socket connect from a local address; raises SourceUnusable where this machine does not have it."""
    connection.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
    try:
        connection.bind((source_address, 0))
    except OSError as error:
        raise SourceUnusable(f"source_address {source_address} cannot be used: {error.strerror}") from error


class SourceUnusable(OSError):
    """The local address cannot be connected from; the text is a sentence."""


async def dial(address: str, port: int, source_address: str, timeout: float) -> socket.socket:
    """Connect to an IP address; `source_address` "" leaves the local address to the system, `timeout` is in seconds.

    Raises SourceUnusable, TimeoutError or another OSError; the socket that failed is closed.
    """
    family = socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if source_address:
            bind(connection, source_address)
        async with asyncio.timeout(timeout):
            await asyncio.get_running_loop().sock_connect(connection, (address, port))
    except BaseException:
        connection.close()
        raise
    return connection


def local_address(toward: str, port: int) -> str:
    """Give the local IP address that the system would connect from to an address; "" when it has no way there.

    Nothing is sent: a datagram socket that is connected has chosen its address.
    """
    family = socket.AF_INET6 if ip_address(toward).version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as asked:
            asked.connect((toward, port))
            return str(asked.getsockname()[0])
    except OSError:
        return ""
