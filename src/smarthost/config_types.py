"""The parts of the configuration that are nobody's policy: files, logins, and what the server itself needs."""

from enum import StrEnum
from pathlib import Path

import msgspec

from smarthost.network.dns import Dnssec as Dnssec
from smarthost.network.oauth_grant import Grant
from smarthost.report.maillog import LogFormat, LogLevel


class Mechanism(StrEnum):
    """How to log in at a next hop; "" leaves it to what the next hop offers."""

    NEGOTIATED = ""
    PLAIN = "plain"
    LOGIN = "login"
    CRAM_MD5 = "cram-md5"
    XOAUTH2 = "xoauth2"


class TlsFiles(msgspec.Struct, frozen=True):
    """What the listeners show; both None means a self-signed certificate of ours."""

    certificate: Path | None = None
    key: Path | None = None


class DkimKey(msgspec.Struct, frozen=True):
    """A key that signs mail whose From domain is `domain` (A-label form) or below it."""

    domain: str
    selector: str
    key: Path


class Login(msgspec.Struct, frozen=True):
    """A user name and password for a next hop, or how to get a token; its representation hides the password."""

    username: str
    password: str
    mechanism: Mechanism = Mechanism.NEGOTIATED
    grant: Grant | None = None

    def __repr__(self) -> str:
        """Show everything but the password."""
        return f"Login(username={self.username!r}, mechanism={self.mechanism.value!r})"


class ReportSettings(msgspec.Struct, frozen=True):
    """How reports travel: a route's name, or "" to route them like other mail; reverse_path "" is the null one.

    A message of more than `max_returned_size` octets comes back as its header only.
    """

    route: str = ""
    reverse_path: str = ""
    max_returned_size: int = 1024 * 1024


class DeliverySettings(msgspec.Struct, frozen=True):
    """What holds for all sites together: the connections that they may have, those that are being opened included."""

    max_connections: int = 10_000


class Dns(msgspec.Struct, frozen=True):
    """Which resolvers are asked, as "IP" or "IP:port"; none means the system's."""

    servers: tuple[str, ...] = ()
    dnssec: Dnssec = Dnssec.AUTO


class Log(msgspec.Struct, frozen=True):
    """How the log is written."""

    format: LogFormat = LogFormat.JSON
    level: LogLevel = LogLevel.INFO
