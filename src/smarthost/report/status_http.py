"""Status over HTTP: /metrics, /healthz and /readyz, in threads: they answer even when the event loop does not."""

import io
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

REQUEST_TIME = 10.0  # seconds in which a request must be complete
REQUEST_SIZE = 16 * 1024  # octets of request line and header fields
MAX_REQUESTS = 16  # at the same time; more are refused
API_BACKLOG = 1024  # connections that wait to be accepted where the API is behind the address

PAGES = ("/metrics", "/healthz", "/readyz")
_STATUS = re.compile(rb"(?:GET|HEAD) (?:/metrics|/healthz|/readyz)[? ]")
_LONGEST_START = len(b"HEAD /metrics ")
_PROBLEM = "application/problem+json"  # RFC 9457
_log = logging.getLogger(__name__)

# Gives the reasons why the relay is not well, or not ready; none means that it is. Called from other threads.
Probe = Callable[[], Sequence[str]]
# Takes a connection that asks for something else than a status page, with nothing read from it. Called from a thread.
HandOver = Callable[[socket.socket], None]


class StatusServer:
    """Answers GET and HEAD of its pages on one TCP address.

    A connection that begins with anything else is handed over to whoever serves the API there; where nobody does, the
    answer is a problem document (RFC 9457). `answer` gives a page for a connection that the API has already.
    """

    def __init__(
        self,
        address: str,
        registry: CollectorRegistry,
        healthy: Probe,
        ready: Probe,
        hand_over: HandOver | None = None,
    ) -> None:
        """Bind to "host:port" or "[v6]:port" (port 0: any) and answer from now on; raises OSError or ValueError."""
        host, separator, port = address.rpartition(":")
        if not separator or not port.isdigit():
            raise ValueError(f"{address!r} is not host:port")
        host = host.strip("[]")
        self._pages: dict[str, Callable[[str], Answer]] = {
            "/metrics": lambda accept: _metrics(registry, accept),
            "/healthz": lambda _: _probe(healthy, "The relay is not well"),
            "/readyz": lambda _: _probe(ready, "The relay is not ready"),
        }
        self._server = _Server((host, int(port)), self._pages, hand_over)
        self.address: tuple[str, int] = self._server.socket.getsockname()[:2]
        self._thread = threading.Thread(target=self._server.serve_forever, name="smarthost-http", daemon=True)
        self._thread.start()

    def answer(self, path: str, accept: str) -> "Answer":
        """Give a page of `PAGES` for an Accept field; may take as long as a scrape, so it is for a thread."""
        return self._pages[path](accept)

    def close(self) -> None:
        """Stop answering; requests under way are left to end by themselves."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(2)


class Answer(msgspec.Struct, frozen=True):
    """One answer: its status, content type and content."""

    status: HTTPStatus
    content_type: str
    body: bytes


def _metrics(registry: CollectorRegistry, accept: str) -> Answer:
    encode, content_type = choose_encoder(accept)
    return Answer(HTTPStatus.OK, content_type, encode(registry))


def _probe(probe: Probe, title: str) -> Answer:
    reasons = list(probe())
    if reasons:
        return _problem(HTTPStatus.SERVICE_UNAVAILABLE, title, "; ".join(reasons), {"reasons": reasons})
    return Answer(HTTPStatus.OK, "application/json", b'{"status":"ok","reasons":[]}\n')


def _problem(status: HTTPStatus, title: str, detail: str, more: Mapping[str, Any] | None = None) -> Answer:
    document = {"type": "about:blank", "title": title, "status": int(status), "detail": detail} | dict(more or {})
    return Answer(status, _PROBLEM, msgspec.json.encode(document) + b"\n")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 16

    def __init__(
        self, address: tuple[str, int], pages: Mapping[str, Callable[[str], Answer]], hand_over: HandOver | None
    ) -> None:
        self.pages = pages
        self.hand_over = hand_over
        self._places = threading.BoundedSemaphore(MAX_REQUESTS)
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Request)

    def server_bind(self) -> None:
        """Bind without the library's look-up of our own name, which may wait for DNS."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self.hand_over is not None:
            # A connection comes with what it asks first, so that it can be handed over without a thread of its own.
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, int(REQUEST_TIME))
            self.request_queue_size = API_BACKLOG
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Hand a request over or give it to a thread; or refuse it when too many are under way."""
        if self.hand_over is not None and _is_for_api(request, socket.MSG_PEEK | socket.MSG_DONTWAIT):
            self.hand_over(request)
            return
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer one request, or hand over one that was slow to come, and give its place back."""
        try:
            if self.hand_over is not None:
                request.settimeout(REQUEST_TIME)
                if _is_for_api(request, socket.MSG_PEEK | socket.MSG_WAITALL):
                    self.hand_over(request)
                    return
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what went wrong; a client that went away is no news."""
        _log.debug("a status request failed", exc_info=True)


def _is_for_api(request: socket.socket, flags: int) -> bool:
    """Say by its first octets whether a connection asks for something else than a status page; False if none came."""
    try:
        start = request.recv(_LONGEST_START, flags)
    except OSError:
        return False
    is_whole = len(start) == _LONGEST_START or b"\n" in start
    return is_whole and _STATUS.match(start) is None


class _Received(io.RawIOBase):
    """A request's octets, at most REQUEST_SIZE, and none after REQUEST_TIME: trickling does not hold a thread."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._until = time.monotonic() + REQUEST_TIME
        self._room = REQUEST_SIZE

    @property
    def is_too_large(self) -> bool:
        return self._room <= 0

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any) -> int:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("request incomplete after its time")
        if self._room <= 0:
            return 0
        self._connection.settimeout(left)
        count = self._connection.recv_into(memoryview(target)[: self._room])
        self._room -= count
        return count


class _Request(BaseHTTPRequestHandler):
    server: _Server
    timeout = REQUEST_TIME
    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.0"  # and not 0.9, whose answers have no status

    def setup(self) -> None:
        super().setup()
        self._received = _Received(self.connection)
        self.rfile = io.BufferedReader(self._received, 1024)
        self.close_connection = True

    def handle(self) -> None:
        """Answer one request, then close: whoever asks every few seconds does not need the connection kept."""
        self.handle_one_request()

    def version_string(self) -> str:
        """Name the server without its version: whoever may see that has /metrics."""
        return "smarthost"

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Send what the library found wrong with a request as a problem document."""
        status = HTTPStatus.METHOD_NOT_ALLOWED if code == HTTPStatus.NOT_IMPLEMENTED else HTTPStatus(code)
        self._send(_problem(status, status.phrase, message or status.description), with_body=True)

    def log_message(self, format: str, *args: Any) -> None:
        """Log requests at debug level only: scrapes come every few seconds."""
        _log.debug("%s " + format, self.client_address[0], *args)

    def _answer(self, with_body: bool) -> None:
        page = self.server.pages.get(self.path.partition("?")[0])
        if self._received.is_too_large:
            answer = _problem(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "Request too large", f"at most {REQUEST_SIZE} octets"
            )
        elif page is None:
            pages = ", ".join(self.server.pages)
            answer = _problem(HTTPStatus.NOT_FOUND, "No such page", f"{self.path[:200]}: there are {pages}")
        else:
            try:
                answer = page(self.headers.get("Accept", ""))
            except Exception:
                _log.exception("%s failed", self.path[:200])
                answer = _problem(HTTPStatus.INTERNAL_SERVER_ERROR, "Internal error", "the log has the reason")
        self._send(answer, with_body)

    def _send(self, answer: Answer, with_body: bool) -> None:
        self.connection.settimeout(REQUEST_TIME)
        self.send_response(answer.status)
        if answer.status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        if with_body:
            self.wfile.write(answer.body)
