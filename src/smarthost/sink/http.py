"""Shows over HTTP what the sink saw: numbers, ids, and the messages that it still holds."""

import asyncio

import msgspec

from smarthost.sink.desk import Desk, TakenMail

_LONGEST_REQUEST = 8 * 1024
_PATIENCE = 10.0  # seconds for a request to come
_PLAIN = "text/plain; charset=utf-8"
_JSON = "application/json"
_USAGE = b"""GET /counts       what the sink saw, as numbers
GET /ids          how often each X-Test-Id or Message-ID came
GET /messages     the messages that are held, newest last
GET /messages/N   one of them, as it was sent
"""


async def answer_request(desk: Desk, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one GET request and close."""
    try:
        async with asyncio.timeout(_PATIENCE):
            head = await reader.readuntil(b"\r\n\r\n")
        method, _, rest = head.partition(b" ")
        status, kind, text = _find(desk, rest.partition(b" ")[0].decode("latin-1"))
        if method not in (b"GET", b"HEAD"):
            status, kind, text = "405 Method Not Allowed", _PLAIN, b"only GET\n"
        fields = f"Content-Type: {kind}\r\nContent-Length: {len(text)}\r\nConnection: close\r\n"
        writer.write(f"HTTP/1.1 {status}\r\n{fields}\r\n".encode() + (text if method != b"HEAD" else b""))
        await writer.drain()
    except (OSError, TimeoutError, EOFError, asyncio.LimitOverrunError):
        pass  # the client went away or never asked; there is nobody to tell
    finally:
        writer.close()


async def start_http(desk: Desk, host: str, port: int) -> asyncio.Server:
    """Open the port and answer there until the server is closed."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer_request(desk, reader, writer)

    return await asyncio.start_server(answer, host, port, limit=_LONGEST_REQUEST)


def _find(desk: Desk, path: str) -> tuple[str, str, bytes]:
    """Give status, content type and text for a path."""
    path = path.partition("?")[0].rstrip("/")
    if path == "":
        return "200 OK", _PLAIN, _USAGE
    if path == "/counts":
        return "200 OK", _JSON, msgspec.json.encode(desk.counts.snapshot())
    if path == "/ids":
        return "200 OK", _JSON, msgspec.json.encode(desk.counts.ids)
    if path == "/messages":
        return "200 OK", _JSON, msgspec.json.encode([_describe(mail) for mail in desk.messages])
    number = path.removeprefix("/messages/")
    for mail in desk.messages:
        if str(mail.number) == number:
            return "200 OK", "message/rfc822", mail.content
    return "404 Not Found", _PLAIN, b"not here; see /\n"


def _describe(mail: TakenMail) -> dict[str, object]:
    fields: dict[str, object] = msgspec.structs.asdict(mail)
    fields["content"] = len(mail.content)
    return {
        name: value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
        for name, value in fields.items()
    }
