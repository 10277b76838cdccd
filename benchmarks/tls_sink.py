"""An upstream that takes everything, in plain text or behind STARTTLS and a login, and prints how many messages it has.

usage: tls_sink.py PORT [CERTIFICATE KEY]
"""

import asyncio
import ssl
import sys

import uvloop

_OFFER = ["PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "SIZE 0"]
_REPLIES = {b"RCPT": b"250 2.1.5 Ok\r\n", b"RSET": b"250 2.0.0 Ok\r\n", b"AUTH": b"235 2.7.0 Ok\r\n"}


class Session(asyncio.Protocol):
    """One connection; where TLS is offered, MAIL is refused before it and before a login."""

    count = 0

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context
        self._buffer, self._in_content = b"", False
        self._is_secret = self._is_known = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        is_first = not self._is_secret
        self._transport = transport
        if is_first:
            transport.write(b"220 sink ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        replies: list[bytes] = []
        while self._buffer and (self._take_content(replies) if self._in_content else self._take_command(replies)):
            pass
        if replies:
            self._transport.write(b"".join(replies))

    def _take_content(self, replies: list[bytes]) -> bool:
        end = self._buffer.find(b"\r\n.\r\n")
        if end < 0:
            # What was looked at is forgotten, but for what may be the beginning of the end.
            self._buffer = self._buffer[-4:]
            return False
        self._buffer, self._in_content = self._buffer[end + 5 :], False
        Session.count += 1
        sys.stdout.write(f"mesg={Session.count}\r")
        sys.stdout.flush()
        replies.append(b"250 2.0.0 Ok\r\n")
        return True

    def _take_command(self, replies: list[bytes]) -> bool:
        line, end, rest = self._buffer.partition(b"\r\n")
        if not end:
            return False
        self._buffer, verb = rest, line[:4].upper()
        if verb == b"EHLO":
            offer = [*_OFFER, *self._more()]
            replies.append("".join(f"250-{word}\r\n" for word in ["sink", *offer[:-1]]).encode())
            replies.append(f"250 {offer[-1]}\r\n".encode())
        elif verb == b"STAR" and self._context is not None:
            self._transport.write(b"220 2.0.0 Ready\r\n")
            self._task = asyncio.ensure_future(self._start_tls(self._context))
        elif verb == b"QUIT":
            self._transport.write(b"".join(replies) + b"221 2.0.0 Bye\r\n")
            replies.clear()
            self._transport.close()
            return False
        elif verb == b"DATA":
            self._in_content = True
            replies.append(b"354 Go\r\n")
        elif verb == b"MAIL" and self._context is not None and not self._is_known:
            replies.append(b"530 5.7.0 Log in first\r\n")
        else:
            self._is_known = self._is_known or (verb == b"AUTH" and self._is_secret)
            replies.append(_REPLIES.get(verb, b"250 2.1.0 Ok\r\n"))
        return True

    def _more(self) -> list[str]:
        if self._context is None:
            return []
        return ["AUTH PLAIN"] if self._is_secret else ["STARTTLS"]

    async def _start_tls(self, context: ssl.SSLContext) -> None:
        self._is_secret = True
        loop = asyncio.get_running_loop()
        try:
            secured = await loop.start_tls(self._transport, self, context, server_side=True)
        except (OSError, ssl.SSLError):
            return
        assert secured is not None
        self._transport = secured


async def main() -> None:
    """Serve until the end."""
    context = None
    if len(sys.argv) > 2:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[2], sys.argv[3])
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Session(context), "127.0.0.1", int(sys.argv[1]), backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
