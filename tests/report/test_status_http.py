"""Status over HTTP: pages, problems and bounds, over real sockets."""

import http.client
import json
import socket
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Counter

from smarthost.report.status_http import REQUEST_SIZE, StatusServer


@pytest.fixture(scope="module")
def reasons() -> list[str]:
    """Why the relay is not ready; a test may add to it."""
    return []


@pytest.fixture(scope="module")
def server(reasons: list[str]) -> Iterator[StatusServer]:
    """Serve a small registry, always healthy, ready unless there are reasons."""
    registry = CollectorRegistry()
    Counter("smarthost_example", "An example.", registry=registry).inc(3)
    server = StatusServer("127.0.0.1:0", registry, list, lambda: reasons)
    yield server
    server.close()


def ask(server: StatusServer, path: str, method: str = "GET") -> tuple[int, str, bytes]:
    """Make one request."""
    connection = http.client.HTTPConnection(*server.address, timeout=5)
    connection.request(method, path)
    response = connection.getresponse()
    try:
        return response.status, response.headers["Content-Type"], response.read()
    finally:
        connection.close()


def ask_raw(server: StatusServer, octets: bytes) -> bytes:
    """Send octets as they are and read until the server closes."""
    with socket.create_connection(server.address, 5) as client:
        client.sendall(octets)
        received = b""
        try:
            while block := client.recv(65536):
                received += block
        except ConnectionResetError:
            pass
        return received


def test_metrics(server: StatusServer) -> None:
    """The registry is shown in the text format."""
    status, content_type, body = ask(server, "/metrics")
    assert (status, content_type.split(";")[0]) == (200, "text/plain")
    assert b"smarthost_example_total 3.0\n" in body


def test_probes(server: StatusServer, reasons: list[str]) -> None:
    """Well and ready is 200; not ready is 503 with the reasons in a problem document."""
    assert ask(server, "/healthz") == (200, "application/json", b'{"status":"ok","reasons":[]}\n')
    assert ask(server, "/readyz")[0] == 200
    reasons.append("the relay is shutting down")
    status, content_type, body = ask(server, "/readyz?verbose")
    assert (status, content_type) == (503, "application/problem+json")
    assert json.loads(body) == {
        "type": "about:blank",
        "title": "The relay is not ready",
        "status": 503,
        "detail": "the relay is shutting down",
        "reasons": ["the relay is shutting down"],
    }
    reasons.clear()


def test_head_has_no_body(server: StatusServer) -> None:
    """HEAD gets the header of GET alone."""
    assert ask(server, "/healthz", "HEAD") == (200, "application/json", b"")


@pytest.mark.parametrize(
    ("path", "method", "wanted"), [("/", "GET", 404), ("/metrics/x", "GET", 404), ("/metrics", "POST", 405)]
)
def test_problems(server: StatusServer, path: str, method: str, wanted: int) -> None:
    """What is not there, or not allowed, is a problem document."""
    status, content_type, body = ask(server, path, method)
    assert (status, content_type, json.loads(body)["status"]) == (wanted, "application/problem+json", wanted)


@pytest.mark.parametrize(
    "octets",
    [
        b"GET /" + b"x" * REQUEST_SIZE + b" HTTP/1.1\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n" + b"X-Field: y\r\n" * 5000 + b"\r\n",
    ],
)
def test_requests_are_bounded(server: StatusServer, octets: bytes) -> None:
    """A request line or a header that never ends is refused."""
    answer = ask_raw(server, octets)
    assert not answer or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4"))
    assert ask(server, "/healthz")[0] == 200


@pytest.mark.parametrize(
    "octets", [b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"]
)
def test_garbage_is_survived(server: StatusServer, octets: bytes) -> None:
    """What is no HTTP gets an error or nothing, and the next request is served."""
    assert b" 200 " not in ask_raw(server, octets)
    assert ask(server, "/healthz")[0] == 200


def test_page_that_raises_is_500() -> None:
    """A bug in a probe is a problem document for the asker."""

    def fail() -> list[str]:
        raise RuntimeError("no")

    server = StatusServer("127.0.0.1:0", CollectorRegistry(), fail, list)
    try:
        assert ask(server, "/healthz")[0] == 500
    finally:
        server.close()


@pytest.mark.parametrize("address", ["9587", "localhost", "127.0.0.1:x"])
def test_bad_address(address: str) -> None:
    """An address without a port is refused at once."""
    with pytest.raises(ValueError, match="host:port"):
        StatusServer(address, CollectorRegistry(), list, list)
