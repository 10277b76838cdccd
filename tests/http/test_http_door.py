"""The HTTP door itself: who may come in, what is answered where, and how it ends."""

import asyncio
import http.client
import json
import smtplib
import socket
import ssl
import sys
import threading

import pytest
from http_house import HttpHouse

from smarthost.mail.key import Scope
from smarthost.policy.admission import Auth, Listener, Tls
from smarthost.policy.http_terms import HttpTerms
from smarthost.reception.http import serve
from smarthost.reception.keys import digest_of

KEYS = "/api/v1/admin/keys"


async def test_health_and_document(house: HttpHouse) -> None:
    """Whoever asks learns whether the relay is well, and what there is to be asked."""
    await house.open_http()
    said = await house.ask("GET", "/api/v1/health")
    assert (said.status, said.json) == (200, {"status": "ok", "reasons": []})
    assert (await house.ask("GET", "/api/v1/ready")).status == 200
    document = (await house.ask("GET", "/api/v1/openapi.json")).json
    assert document["openapi"].startswith("3.1")
    assert KEYS in document["paths"]


async def test_status_pages_beside_the_api(house: HttpHouse) -> None:
    """The status pages answer at the same address, and on a connection that the API has."""
    await house.open_http()
    assert b"smarthost_" in (await house.ask("GET", "/metrics")).body
    connection = http.client.HTTPConnection(*house.http, timeout=20)

    def talk() -> list[int]:
        seen = []
        for path in ("/api/v1/health", "/healthz", "/metrics", "/api/v1/health"):
            connection.request("GET", path)
            response = connection.getresponse()
            response.read()
            seen.append(response.status)
        return seen

    assert await asyncio.to_thread(talk) == [200, 200, 200, 200]
    connection.close()


async def test_nobody_comes_in_without_a_key(house: HttpHouse) -> None:
    """A request without a key, or with one that is not good, is 401 and says what is needed."""
    await house.open_http()
    for token in ("", "x", "sh_00000000_" + "a" * 43):
        said = await house.ask("GET", KEYS, token)
        assert said.status == 401
        assert said.headers["Content-Type"] == "application/problem+json"
        assert said.headers["WWW-Authenticate"].startswith("Bearer")
        assert said.json["title"] == "Unauthorized"
    _, token = await house.make_key("a", Scope.SEND, Scope.READ)
    assert (await house.ask("GET", KEYS, token)).status == 403
    assert (await house.ask("GET", KEYS, headers={"X-API-Token": token})).status == 403


async def test_keys_by_http(house: HttpHouse) -> None:
    """An admin makes, lists and revokes the keys of its own tenant; a revoked one opens nothing any more."""
    await house.open_http()
    _, admin = await house.make_key("a")
    _, other = await house.make_key("b")
    made = await house.ask("POST", KEYS, admin, {"name": "app", "scopes": ["read"], "message_rate": ["5/s"]})
    assert made.status == 201
    token = made.json["key"]
    assert made.json["tenant"] == "a"
    listed = (await house.ask("GET", KEYS, admin)).json["keys"]
    assert {"app", ""} == {each["name"] for each in listed}
    assert token not in json.dumps(listed)
    assert all(each["name"] != "app" for each in (await house.ask("GET", KEYS, other)).json["keys"])
    revoke = f"{KEYS}/{made.json['id']}/revoke"
    assert (await house.ask("POST", revoke, other)).status == 404
    assert house.server.api.keys.verify(token) is not None
    assert (await house.ask("POST", revoke, admin)).json["revoked_at"]
    assert house.server.api.keys.verify(token) is None
    assert (await house.ask("GET", KEYS, token)).status == 401


async def test_what_a_key_may_not_make(house: HttpHouse) -> None:
    """A key makes none for another tenant, none that may do more than itself, and none that is wrong."""
    await house.open_http()
    _, admin = await house.make_key("a", Scope.ADMIN)
    assert (await house.ask("POST", KEYS, admin, {"tenant": "b", "scopes": ["admin"]})).status == 403
    assert (await house.ask("POST", KEYS, admin, {"scopes": ["send"]})).status == 403
    wrong = await house.ask("POST", KEYS, admin, {"scopes": ["admin"], "message_rate": ["often"]})
    assert (wrong.status, wrong.json["errors"][0]["field"]) == (422, "message_rate[0]")
    assert (await house.ask("POST", KEYS, admin, {"scopes": ["everything"]})).status in (400, 422)
    assert (await house.ask("POST", KEYS, admin, b"{", {"Content-Type": "application/json"})).status == 400
    assert (await house.ask("PUT", KEYS, admin, {})).status == 405
    assert (await house.ask("GET", "/api/v1/nothing", admin)).status == 404


async def test_operator_acts_for_every_tenant(house: HttpHouse) -> None:
    """A token of the configuration may do everything, for the tenant that it names."""
    await house.open_http(http=HttpTerms(tokens=(digest_of("operator's own"),)))
    made = await house.ask("POST", KEYS, "operator's own", {"tenant": "b"})
    assert made.json["tenant"] == "b"
    other = await house.ask("GET", KEYS, "operator's own", headers={"X-Smarthost-Tenant": "b"})
    assert [each["id"] for each in other.json["keys"]] == [made.json["id"]]
    assert (await house.ask("GET", KEYS, "operator's own")).json["keys"] == []


async def test_keys_outlive_the_relay(house: HttpHouse) -> None:
    """After a restart the keys are there, the revoked one too, and none of their tokens is on disk."""
    await house.open_http()
    good, token = await house.make_key("a")
    bad, gone = await house.make_key("a")
    await house.server.api.keys.revoke("a", bad.id)
    await house.server.stop()
    octets = b"".join(path.read_bytes() for path in house.folder.rglob("*") if path.is_file())
    assert good.id.encode() in octets
    assert token.encode() not in octets
    await house.open_http()
    assert (await house.ask("GET", KEYS, token)).status == 200
    assert (await house.ask("GET", KEYS, gone)).status == 401


async def test_a_key_is_an_smtp_password(house: HttpHouse) -> None:
    """A key logs in by SMTP under any name, as its tenant; when it is revoked, the open session ends."""
    listener = Listener(address="127.0.0.1:0", tls=Tls.NONE, auth=Auth.REQUIRED, allow_plaintext_auth=True)
    await house.open_http(listeners=(listener,))
    key, token = await house.make_key("shop", Scope.SEND)
    _, reader = await house.make_key("shop", Scope.READ)
    client = smtplib.SMTP(timeout=20)
    await asyncio.to_thread(client.connect, *house.address)
    with pytest.raises(smtplib.SMTPAuthenticationError):
        await asyncio.to_thread(client.login, "anybody", reader)
    await asyncio.to_thread(client.login, "anybody", token)
    await asyncio.to_thread(client.sendmail, "a@example.org", ["b@example.net"], "Subject: x\r\n\r\nhello\r\n")
    assert [event.user for event in house.events if event.event == "accepted"] == ["shop"]
    await house.server.api.keys.revoke(None, key.id)
    code, _ = await asyncio.to_thread(client.noop)
    assert code == 421
    client.close()


async def test_listener_with_tls(house: HttpHouse) -> None:
    """A listener of protocol http shows the relay's certificate."""
    await house.open(
        listeners=(
            Listener(address="127.0.0.1:0", tls=Tls.NONE, auth=Auth.NONE),
            Listener(address="127.0.0.1:0", protocol="http", tls=Tls.IMPLICIT),
        )
    )
    host, port = house.server.listening[1].rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port), ssl=_no_check())
    writer.write(b"GET /api/v1/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_nothing_is_loaded_before_it_is_asked_for(house: HttpHouse) -> None:
    """A relay that nobody asks over HTTP has no HTTP door in memory."""
    await house.open_http()
    assert house.server.api._door is None
    await house.ask("GET", "/healthz")
    assert house.server.api._door is None
    await house.ask("GET", "/api/v1/health")
    assert house.server.api._door is not None
    assert "litestar" in sys.modules


async def test_stop_with_an_open_connection(house: HttpHouse) -> None:
    """A connection that is kept open does not keep the relay from stopping."""
    await house.open_http()
    await house.ask("GET", "/api/v1/health")
    with socket.create_connection(house.http) as idle:
        idle.sendall(b"GET /api/v1/health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await asyncio.to_thread(idle.recv, 100)).startswith(b"HTTP/1.1 200")
        async with asyncio.timeout(10):
            await house.server.stop()
    await house.open_http()


async def test_status_answers_while_the_loop_hangs(house: HttpHouse) -> None:
    """Whoever asks for a status page is answered by a thread, whatever the event loop does."""
    await house.open_http()
    await house.ask("GET", "/api/v1/health")
    said: list[int] = []

    def talk() -> None:
        connection = http.client.HTTPConnection(*house.http, timeout=20)
        connection.request("GET", "/healthz")
        said.append(connection.getresponse().status)
        connection.close()

    thread = threading.Thread(target=talk)
    thread.start()
    thread.join(20)  # on the loop, which does nothing else meanwhile
    assert said == [200]


async def test_a_request_that_does_not_come(house: HttpHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection on which a request was begun and never ended is closed."""
    monkeypatch.setattr(serve, "LOOK", 0.05)
    monkeypatch.setattr(serve, "FIRST_REQUEST", 0.2)
    await house.open_http()
    with socket.create_connection(house.http, 20) as slow:
        slow.sendall(b"GET /api/v1/health HTTP/1.1\r\nHost:")
        assert await asyncio.to_thread(slow.recv, 100) == b""


async def test_the_page_for_people(house: HttpHouse) -> None:
    """The documentation is one page that needs nothing from elsewhere."""
    await house.open_http()
    said = await house.ask("GET", "/api/v1/docs")
    assert said.headers["Content-Type"].startswith("text/html")
    assert b"/api/v1/messages" in said.body
    assert b"<script" not in said.body and b"https:" not in said.body


def _no_check() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
