"""Accounts over HTTP: made, used, changed and removed while the relay runs, by their own tenant alone."""

import asyncio

import pytest
from http_house import HttpHouse
from relay_house import SLOW

from smarthost.mail.key import Scope
from smarthost.sink.desk import SinkSettings
from smarthost.sink.server import Sink

pytestmark = pytest.mark.asyncio
LETTER = {"from": "a@example.org", "to": ["250@example.net"], "subject": "x", "text": "hello", "account_id": "main"}


async def taken(sink: Sink, count: int) -> None:
    """Wait until a sink has so many messages."""
    async with asyncio.timeout(20):
        while sink.counts.messages < count:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("path", ["/account", "/accounts/add", "/api/v1/accounts"])
async def test_mail_goes_by_an_account_that_was_just_made(house: HttpHouse, path: str) -> None:
    """The payload of a mail proxy's client makes an upstream that takes mail at once, with its login."""
    await house.open_http(retry=SLOW)
    upstream = Sink(SinkSettings(username="u", password="p4ss", require_auth=True))
    await upstream.start()
    _, token = await house.make_key()
    account = {
        "id": "main",
        "host": "127.0.0.1",
        "port": upstream.address[1],
        "user": "u",
        "password": "p4ss",
        "use_tls": False,
        "limit_per_minute": None,
        "limit_per_hour": 1000,
        "limit_per_day": None,
        "limit_behavior": "defer",
        "ttl": 300,
        "batch_size": 50,
    }
    made = await house.ask("POST", path, token, account)
    assert (made.status, made.json) == (200, {"id": "main", "created": True, "ok": True})
    again = await house.ask("POST", path, token, {key: value for key, value in account.items() if key != "password"})
    assert again.json["created"] is False
    listed = await house.ask("GET", "/accounts", token)
    assert listed.json["accounts"] == [
        {key: value for key, value in account.items() if key != "password"} | {"tenant_id": "default"}
    ]
    assert b"p4ss" not in listed.body + made.body
    sent = await house.ask("POST", "/api/v1/messages", token, LETTER)
    assert sent.status == 202
    await taken(upstream, 1)
    assert house.sink.counts.messages == 0
    removed = await house.ask("DELETE", "/account/main", token)
    assert (removed.status, removed.json) == (200, {"ok": True})
    assert (await house.ask("DELETE", "/account/main", token)).status == 404
    refused = await house.ask("POST", "/api/v1/messages", token, LETTER)
    assert refused.status == 422 and b"account_id" in refused.body
    await upstream.stop()


async def test_an_account_is_its_tenants(house: HttpHouse) -> None:
    """Another tenant neither sees, uses, changes nor removes it, and a key without the scope makes none."""
    await house.open_http()
    _, mine = await house.make_key("acme")
    _, theirs = await house.make_key("other")
    _, sender = await house.make_key("acme", Scope.SEND, Scope.READ)
    account = {"id": "main", "host": "up.example.net"}
    assert (await house.ask("POST", "/account", mine, account)).status == 200
    assert (await house.ask("GET", "/accounts", theirs)).json["accounts"] == []
    assert (await house.ask("DELETE", "/account/main", theirs)).status == 404
    assert (await house.ask("POST", "/account", theirs, account | {"tenant_id": "acme"})).status == 403
    assert (await house.ask("GET", "/accounts?tenant_id=acme", theirs)).status == 403
    assert (await house.ask("POST", "/api/v1/messages", theirs, LETTER)).status == 422
    assert (await house.ask("POST", "/account", sender, account)).status == 403
    assert (await house.ask("POST", "/account", "", account)).status == 401
    assert len((await house.ask("GET", "/accounts", mine)).json["accounts"]) == 1


async def test_every_fault_is_named(house: HttpHouse) -> None:
    """What is wrong with an account is told by field, and nothing is kept."""
    await house.open_http()
    _, token = await house.make_key()
    wrong = {"id": "a b", "host": "x y", "port": 0}
    refused = await house.ask("POST", "/account", token, wrong)
    assert refused.status == 422
    assert {error["field"] for error in refused.json["errors"]} == {"id", "host", "port"}
    for body, field in (({"id": "a"}, "host"), ({"id": "a", "host": "h.example", "limit_per_day": 0}, "limit_per_day")):
        refused = await house.ask("POST", "/account", token, body)
        assert refused.status in (400, 422) and field.encode() in refused.body, refused
    assert (await house.ask("GET", "/accounts", token)).json["accounts"] == []


async def test_what_is_beyond_a_limit_waits_or_is_refused(house: HttpHouse) -> None:
    """With "reject" the third message of two an hour is 429 with Retry-After, a repeat of the second is not counted."""
    await house.open_http(retry=SLOW)
    _, token = await house.make_key()
    account = {"id": "main", "host": "127.0.0.1", "port": house.sink.address[1], "use_tls": False, "limit_per_hour": 2}
    await house.ask("POST", "/account", token, account | {"limit_behavior": "reject"})
    for name in ("a", "b", "b"):
        sent = await house.ask("POST", "/api/v1/messages", token, LETTER, {"Idempotency-Key": name})
        assert sent.status == 202
    refused = await house.ask("POST", "/api/v1/messages", token, LETTER)
    assert refused.status == 429 and int(refused.headers["Retry-After"]) > 60
    await house.ask("POST", "/account", token, account | {"limit_behavior": "defer"})
    assert (await house.ask("POST", "/api/v1/messages", token, LETTER)).status == 202
    await taken(house.sink, 2)
