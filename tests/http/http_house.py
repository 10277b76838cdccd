"""A relay with an HTTP door on real sockets, keys for two tenants, and one client to ask it."""

import asyncio
import http.client
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent / "relay"))

from relay_house import House

from smarthost.mail.key import Key, Scope


class Said(NamedTuple):
    """What the door answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The content, read."""
        return json.loads(self.body)


class HttpHouse(House):
    """A relay whose HTTP address is a free port."""

    async def open_http(self, **changes: object) -> None:
        """Start the relay."""
        await self.open(http_address="127.0.0.1:0", **changes)
        self.http = self.server._status.address

    async def make_key(self, tenant: str = "default", *scopes: Scope, rate: tuple[str, ...] = ()) -> tuple[Key, str]:
        """Make a key with scopes, all of them if none are named."""
        return await self.server.api.keys.add(tenant, scopes or tuple(Scope), "", 0.0, rate)

    async def ask(
        self, method: str, path: str, token: str = "", body: object = None, headers: Mapping[str, str] | None = None
    ) -> Said:
        """Make one request on a connection of its own, in a thread; a body that is no bytes goes as JSON."""
        sent = dict(headers or {})
        if token:
            sent["Authorization"] = f"Bearer {token}"
        content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        if body is not None and not isinstance(body, bytes):
            sent.setdefault("Content-Type", "application/json")

        def talk() -> Said:
            connection = http.client.HTTPConnection(*self.http, timeout=20)
            connection.request(method, path, content, sent)
            response = connection.getresponse()
            try:
                return Said(response.status, response.headers, response.read())
            finally:
                connection.close()

        return await asyncio.to_thread(talk)
