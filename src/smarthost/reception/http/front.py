"""Front: the one way into the HTTP door; finds who asks, takes messages itself, and gives all else to the routes."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Protocol

import msgspec

from smarthost.reception.http.callers import Caller, Callers
from smarthost.reception.http.problem import CONTENT_TYPE, Refused, crashed, stopping

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Scope = MutableMapping[str, Any]
App = Callable[[Any, Any, Any], Awaitable[None]]

MESSAGES, BATCHES_PATH = "/api/v1/messages", "/api/v1/batches"
_JSON = b"application/json"


class Gone(Exception):
    """The client has gone away before its request was complete: nobody is there to be answered."""


class Asked(msgspec.Struct, frozen=True, gc=False):
    """A request as the lean routes see it. `client` is the peer's IP address, "" for a local socket."""

    caller: Caller | None
    headers: Mapping[bytes, bytes]
    query: bytes
    receive: Receive
    client: str = ""
    is_secure: bool = False


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What is answered."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    content_type: bytes = _JSON


class Page(Protocol):
    """A page of the status server."""

    @property
    def status(self) -> int:
        """HTTP's status code."""

    @property
    def content_type(self) -> str:
        """The media type."""

    @property
    def body(self) -> bytes:
        """The content."""


Lean = Callable[[Asked], Awaitable[Answer]]


class Front:
    """An ASGI application. Once `is_stopping`, new requests are refused.

    What is asked most, and where a web framework's own time would be more than ours, stands in `lean`: by method and
    path. `pages` are those of the status server, for connections that the API has already.
    """

    def __init__(self, callers: Callers, routes: App) -> None:
        """Stand before the routes."""
        self._callers, self._routes = callers, routes
        self.lean: dict[tuple[str, str], Lean] = {}
        self.pages: dict[str, Callable[[str], Page]] = {}
        self.is_stopping = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        try:
            await self._serve(scope, receive, send)
        except Refused as refused:
            await send_refusal(send, refused)
        except Gone:
            pass
        except Exception as error:
            await send_refusal(send, crashed(error))

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.is_stopping:
            raise stopping()
        # A field that comes twice counts as it came last; none that is looked at here may.
        headers, client = dict(scope["headers"]), scope["client"]
        caller = self._callers.find(headers, client[0] if client else "")
        lean = self.lean.get((scope["method"], scope["path"]))
        if lean is not None:
            asked = Asked(
                caller,
                headers,
                scope["query_string"],
                receive,
                client[0] if client else "",
                scope["scheme"] == "https",
            )
            await send_answer(send, await lean(asked))
            return
        page = self.pages.get(scope["path"])
        if page is not None and scope["method"] in ("GET", "HEAD"):
            shown = await asyncio.to_thread(page, headers.get(b"accept", b"").decode("latin-1"))
            await send_answer(send, Answer(int(shown.status), shown.body, (), shown.content_type.encode()))
            return
        scope.setdefault("state", {})["caller"] = caller
        await self._routes(scope, receive, send)


async def send_answer(send: Send, answer: Answer) -> None:
    """Send an answer as a whole."""
    body = answer.body
    headers = [(b"content-type", answer.content_type), (b"content-length", b"%d" % len(body)), *answer.headers]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def send_refusal(send: Send, refused: Refused) -> None:
    """Send a problem document."""
    headers = tuple(
        (name.lower().encode(), value.encode("latin-1", "replace")) for name, value in refused.headers.items()
    )
    await send_answer(send, Answer(refused.status, refused.encode(), headers, CONTENT_TYPE))
