"""The HTTP client: what it asks, whom it refuses to ask, and how what goes wrong becomes a value."""

import asyncio
import ssl
from collections.abc import AsyncIterator

import pytest
import trustme
from http_peer import Asked, HttpPeer, answer

from smarthost.network.dns import Resolver
from smarthost.network.http_client import HttpAnswer, HttpClient, HttpFault, HttpFaultKind, HttpRequest


async def plainly(asked: Asked) -> bytes | None:
    """Answer by the last word of the target."""
    match asked.target.rpartition("/")[2]:
        case "moved":
            return answer(302, b"", "Location: http://127.0.0.1:1/")
        case "long":
            return answer(200, b"x" * 100_000)
        case "close":
            return None
        case "hang":
            await asyncio.Event().wait()
        case "noise":
            return b"nothing like HTTP\r\n\r\n"
    return answer(200, b"done", "X-Kind: Good")


@pytest.fixture
async def peer() -> AsyncIterator[HttpPeer]:
    """Give a server."""
    peer = HttpPeer(plainly)
    await peer.start()
    yield peer
    await peer.stop()


def make_client(context: ssl.SSLContext | None = None, **how: object) -> HttpClient:
    """Make a client whose resolver knows nothing."""
    resolver = Resolver(("127.0.0.1:1",), asyncio.get_running_loop().time, lambda *_: None)
    return HttpClient(resolver, lambda: context or ssl.create_default_context(), **how)


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    """Give a client that may speak to loopback."""
    client = make_client(allow_private=True)
    yield client
    await client.close()


async def test_a_question_is_put_as_it_is(peer: HttpPeer, client: HttpClient) -> None:
    """Method, headers and body arrive, and the answer comes back with its headers."""
    found = await client.ask(HttpRequest("POST", peer.url, {"X-Word": "yes"}, b"{}"))
    assert isinstance(found, HttpAnswer)
    assert (found.status, found.body, found.headers["x-kind"]) == (200, b"done", "Good")
    (asked,) = peer.asked
    assert (asked.method, asked.target, asked.body, asked.headers["x-word"]) == ("POST", "/hook", b"{}", "yes")
    assert "secret" not in repr(HttpRequest("POST", "https://h/secret", {"a": "secret"}, b"secret"))


async def test_redirects_are_answers(peer: HttpPeer, client: HttpClient) -> None:
    """A redirect is given back and nobody else is asked."""
    found = await client.ask(HttpRequest("GET", f"{peer.url}/moved"))
    assert isinstance(found, HttpAnswer) and found.status == 302 and len(peer.asked) == 1


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("long", HttpFaultKind.TOO_LONG),
        ("close", HttpFaultKind.UNREACHABLE),
        ("hang", HttpFaultKind.TIMEOUT),
        ("noise", HttpFaultKind.UNREACHABLE),
    ],
)
async def test_what_goes_wrong_is_a_value(peer: HttpPeer, client: HttpClient, word: str, kind: HttpFaultKind) -> None:
    """An answer that is too long, does not come, or is no HTTP is a fault, and the next question goes through."""
    fault = await client.ask(HttpRequest("GET", f"{peer.url}/{word}", timeout=0.5 if word == "hang" else 20.0))
    assert isinstance(fault, HttpFault) and fault.kind is kind
    assert isinstance(await client.ask(HttpRequest("GET", peer.url)), HttpAnswer)


async def test_private_addresses_are_not_spoken_to(peer: HttpPeer) -> None:
    """Neither a number, a name nor another way to write an address leads to this machine, unless that is allowed."""
    client = make_client()
    try:
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "[::1]"):
            fault = await client.ask(HttpRequest("GET", f"http://{host}:{peer.port}/"))
            assert isinstance(fault, HttpFault) and fault.kind is HttpFaultKind.PRIVATE, host
        for host in ("2130706433", "127.1", "0x7f.1"):
            assert isinstance(await client.ask(HttpRequest("GET", f"http://{host}:{peer.port}/")), HttpFault), host
        assert peer.asked == []
        client.allow_private = True
        assert isinstance(await client.ask(HttpRequest("GET", f"http://localhost:{peer.port}/")), HttpAnswer)
    finally:
        await client.close()


@pytest.mark.parametrize("url", ["nonsense", "http://", "ftp://127.0.0.1/", "http://127.0.0.1:99999/", "http://[::1/"])
async def test_a_bad_url_is_a_fault(client: HttpClient, url: str) -> None:
    """What cannot be asked at all is a fault as well."""
    assert isinstance(await client.ask(HttpRequest("GET", url)), HttpFault)


async def test_certificates_are_verified() -> None:
    """A server whose certificate is for another name, or of an unknown authority, is not asked."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("hook.example.org").configure_cert(server)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    peer = HttpPeer(plainly)
    await peer.start(server)
    for context in (None, trusting):
        client = make_client(context, allow_private=True)
        fault = await client.ask(HttpRequest("GET", f"https://127.0.0.1:{peer.port}/"))
        assert isinstance(fault, HttpFault) and fault.kind is HttpFaultKind.TLS
        await client.close()
    assert peer.asked == []
    await peer.stop()


async def test_connections_are_bounded(peer: HttpPeer) -> None:
    """However much is asked at once, no more than the bound is under way."""
    client = make_client(allow_private=True, connections=3)
    requests = [client.ask(HttpRequest("GET", peer.url)) for _ in range(30)]
    assert all(isinstance(found, HttpAnswer) for found in await asyncio.gather(*requests))
    assert peer.most_open <= 3
    await client.close()


async def test_waiting_for_others_is_not_ones_own_time(peer: HttpPeer) -> None:
    """A question that waits for a connection longer than its own time limit is still put, and answered."""
    client = make_client(allow_private=True, connections=1)
    slow = asyncio.ensure_future(client.ask(HttpRequest("GET", f"{peer.url}/hang", timeout=1.5)))
    async with asyncio.timeout(10):
        while not peer.asked:
            await asyncio.sleep(0.01)
    assert isinstance(await client.ask(HttpRequest("GET", peer.url, timeout=1.0)), HttpAnswer)
    assert isinstance(await slow, HttpFault)
    await client.close()
