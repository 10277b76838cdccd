"""A web server on loopback with TLS that serves MTA-STS policies, and misbehaves when told to."""

import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager

import trustme
from https_server import Quiet, https_server


class PolicyServer:
    """What a test sees of it: `text` is what it serves, `asked` the Host fields of the requests so far."""

    def __init__(self, authority: trustme.CA, *names: str) -> None:
        """Show a certificate for the names."""
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*names).configure_cert(self.context)
        self.text = "version: STSv1\nmode: enforce\nmx: mx.example\nmax_age: 86400\n"
        self.status = 200
        self.content_type = "text/plain; charset=utf-8"
        self.delay = 0.0
        self.drips = False
        self.asked: list[str] = []
        self.port = 0


@contextmanager
def policy_server(
    authority: trustme.CA, *names: str, address: tuple[str, int] = ("127.0.0.1", 0)
) -> Iterator[PolicyServer]:
    """Run one."""
    server = PolicyServer(authority, *names)

    class Responder(Quiet):
        def do_GET(self) -> None:
            server.asked.append(self.headers["Host"])
            time.sleep(server.delay)
            if self.path != "/.well-known/mta-sts.txt":
                self.send_error(404)
                return
            body = server.text.encode()
            if server.drips:
                for number in range(1000):
                    self.wfile.write(b"HTTP/1.1 200 OK\r\n"[number % 17 : number % 17 + 1])
                    self.wfile.flush()
                    time.sleep(0.02)
            self.send_response(server.status)
            if server.status == 302:
                self.send_header("Location", "https://elsewhere.example/")
            self.send_header("Content-Type", server.content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with https_server(server.context, Responder, address) as server.port:
        yield server
