"""Settings: where the relay is, the key that opens it, and with how much patience; shared by both clients."""

import os
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec

from smarthost import __version__

URL = "http://127.0.0.1:9587"
_PREFIX = "/api/v1"


class Place(msgspec.Struct, frozen=True):
    """Where the API is; `path` is what stands before /api/v1, as behind a proxy."""

    host: str
    port: int
    is_secure: bool
    path: str = ""

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.is_secure else 'http'}://{host}:{self.port}"


class Retries(msgspec.Struct, frozen=True):
    """How often a request is made, the first time included, and how long at most is waited in between (seconds).

    A relay that wants to be left alone for longer than `longest_wait` is: the call ends at once with its error.
    """

    attempts: int = 5
    first_wait: float = 0.5
    longest_wait: float = 60.0


RETRIES = Retries()


class Settings:
    """What holds for all calls of a client. The key is shown nowhere."""

    __slots__ = ("_key", "context", "place", "retries", "tenant", "timeout")

    def __init__(
        self,
        url: str = "",
        key: str = "",
        *,
        timeout: float = 30.0,
        ca: ssl.SSLContext | str | os.PathLike[str] | None = None,
        tenant: str = "",
        retries: Retries = RETRIES,
    ) -> None:
        """Take the address and the key as they were given, else from SMARTHOST_URL and SMARTHOST_API_KEY.

        `timeout` is for how many seconds the relay may be silent. `ca` is a PEM file with the certificates that are
        trusted, or a context, else what the system trusts is. `tenant` is for whom an operator's token acts. Raises
        ValueError where something cannot be used, and OSError where the file cannot be read.
        """
        self.place = read_url(url or os.environ.get("SMARTHOST_URL", "") or URL)
        self._key = (key or os.environ.get("SMARTHOST_API_KEY", "")).strip()
        if not self._key.isascii() or not self._key.isprintable() or " " in self._key:
            raise ValueError("the API key has characters that no key has")
        if not timeout > 0.0 or retries.attempts < 1:
            raise ValueError("a timeout above 0 and at least one attempt are needed")
        self.timeout, self.tenant, self.retries = timeout, tenant, retries
        self.context: ssl.SSLContext | None = None
        if self.place.is_secure:
            self.context = ca if isinstance(ca, ssl.SSLContext) else ssl.create_default_context(cafile=ca)

    def headers(self) -> Mapping[str, str]:
        """Give the headers of every request."""
        headers = {"User-Agent": f"smarthost/{__version__}", "Accept": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        if self.tenant:
            headers["X-Smarthost-Tenant"] = self.tenant
        return headers

    def __repr__(self) -> str:
        """Show where the relay is."""
        return f"{self.place.origin}{self.place.path}"


def read_url(url: str) -> Place:
    """Read the address of a relay, with or without /api/v1; raises ValueError."""
    parts = urlsplit(url.strip())
    if parts.username is not None or parts.password is not None:
        raise ValueError("url: a name or password in it is not used; give the API key as key")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"url: {url!r} is no address of the form http://HOST:PORT or https://HOST:PORT")
    is_secure = parts.scheme == "https"
    path = parts.path.rstrip("/").removesuffix(_PREFIX)
    return Place(parts.hostname, parts.port or (443 if is_secure else 80), is_secure, path)
