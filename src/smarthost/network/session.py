"""Session: a connection with EHLO, and TLS and login where they are wanted, done; and the settings that lead to one."""

import asyncio

import msgspec

from smarthost.mail.outcome import Stage
from smarthost.mail.reply import Reply
from smarthost.mail.route import Host, TlsLevel
from smarthost.policy.classify import NetFault
from smarthost.wire.extensions import Extensions


class Credentials(msgspec.Struct, frozen=True):
    """A login. `mechanism` is a SASL mechanism's name, or "" to take the best that is offered."""

    username: str
    password: str
    mechanism: str = ""

    def __repr__(self) -> str:
        """Write it without the password, for logs and tracebacks."""
        return f"Credentials({self.username!r}, mechanism={self.mechanism!r})"


class SessionSettings(msgspec.Struct, frozen=True):
    """How sessions of a route are opened.

    `hello` is our name in EHLO; `ca_file` an extra trust anchor or ""; a login goes over plain text only if
    `allow_plaintext_auth`; `source_address` is the local IP address to connect from, "" for the system's choice.
    """

    hello: str
    tls: TlsLevel = TlsLevel.MAY
    ca_file: str = ""
    credentials: Credentials | None = None
    allow_plaintext_auth: bool = False
    source_address: str = ""


class Timeouts(msgspec.Struct, frozen=True):
    """Seconds to wait in each phase (RFC 5321 4.5.3.2; connect, greeting, STARTTLS and RSET are Postfix's numbers)."""

    connect: float = 30.0
    greeting: float = 60.0
    ehlo: float = 300.0
    starttls: float = 30.0
    auth: float = 60.0
    mail: float = 300.0
    rcpt: float = 300.0
    data: float = 120.0
    block: float = 180.0
    dot: float = 600.0
    rset: float = 20.0


class OpenFault(msgspec.Struct, frozen=True):
    """Why a session could not be opened: `reply` if the peer said so, else `fault`; `reason` is never empty."""

    stage: Stage
    fault: NetFault | None
    reply: Reply | None
    reason: str


class Session:
    """A connection that is ready for its first MAIL. Mutable: `carried` counts the transactions that it has taken.

    `tls` is as "TLSv1.3 TLS_AES_256_GCM_SHA384", "" in plain text; `opened_at` is a Unix time and `opening` the
    seconds that opening took.
    """

    __slots__ = ("_waiting", "address", "carried", "extensions", "host", "opened_at", "opening", "tls", "transport")

    def __init__(self, host: Host, address: str, transport: asyncio.Transport, extensions: Extensions) -> None:
        """Take charge of the transport: what comes before `hand_over` is kept."""
        self.host = host
        self.address = address
        self.transport = transport
        self.extensions = extensions
        self.tls = describe_tls(transport)
        self.opened_at = 0.0
        self.opening = 0.0
        self.carried = 0
        self._waiting = _Waiting()
        transport.set_protocol(self._waiting)

    def hand_over(self, protocol: asyncio.Protocol) -> tuple[bytes, bool]:
        """Give the transport to a protocol; returns the octets that came meanwhile, and whether the peer has closed.

        The protocol's `connection_made` is not called.
        """
        self.transport.set_protocol(protocol)
        return bytes(self._waiting.octets), self._waiting.is_closed

    def abandon(self) -> None:
        """Close a session that nobody will use; QUIT is sent and its reply not awaited."""
        if not self.transport.is_closing():
            self.transport.write(b"QUIT\r\n")
            self.transport.close()


class _Waiting(asyncio.Protocol):
    """Holds a session between its opening and its first transaction, so that nothing that the peer does is missed."""

    def __init__(self) -> None:
        self.octets = bytearray()
        self.is_closed = False

    def data_received(self, data: bytes) -> None:
        # A peer has nothing to say here but one 421: more than that is noise, and is not kept.
        if len(self.octets) < 4096:
            self.octets += data

    def eof_received(self) -> None:
        self.is_closed = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True


def describe_tls(transport: asyncio.BaseTransport) -> str:
    """Give a transport's TLS version and cipher suite, "" where there is no TLS."""
    tls = transport.get_extra_info("ssl_object")
    return f"{tls.version()} {tls.cipher()[0]}" if tls is not None else ""
