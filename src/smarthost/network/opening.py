"""Words of opening a session: the login, the settings and the timeouts that go in, and the fault that may come out."""

from typing import Protocol

import msgspec

from smarthost.mail.outcome import Stage
from smarthost.mail.reply import Reply
from smarthost.mail.route import TlsLevel
from smarthost.network.oauth_answer import TokenFault
from smarthost.policy.classify import NetFault
from smarthost.policy.security import TlsPolicy


class TokenGiver(Protocol):
    """Where the access tokens of a login come from."""

    async def token(self, refused: str = "") -> str | TokenFault:
        """Give a token, one that was fetched after `refused` if that is given."""


class Credentials(msgspec.Struct, frozen=True):
    """A login. `mechanism` is a SASL mechanism's name, or "" to take the best that is offered.

    With `tokens` it is by access token, by whichever mechanism takes one, and there is no password.
    """

    username: str
    password: str
    mechanism: str = ""
    tokens: TokenGiver | None = None

    def __repr__(self) -> str:
        """Write it without the password, for logs and tracebacks."""
        return f"Credentials({self.username!r}, mechanism={self.mechanism!r})"


class SessionSettings(msgspec.Struct, frozen=True):
    """How sessions of a route are opened.

    `hello` is our name in EHLO; `ca_file` an extra trust anchor or ""; a login goes over plain text only if
    `allow_plaintext_auth`; `source_address` is the local IP address to connect from, "" for the system's choice.
    `policy` is what TLS must prove at the host, where more than the level `tls` of the route decides about that;
    `client` are the files of our certificate and its key, each "" for none.
    """

    hello: str
    tls: TlsLevel = TlsLevel.MAY
    ca_file: str = ""
    credentials: Credentials | None = None
    allow_plaintext_auth: bool = False
    source_address: str = ""
    policy: TlsPolicy | None = None
    client: tuple[str, str] = ("", "")


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
