"""What clients of a mail proxy call, unchanged: tenant, account, messages, run-now, and the reports that are pushed."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from http_house import HttpHouse, Said
from http_peer import Asked, HttpPeer, answer
from relay_house import SLOW

from smarthost.mail.entry import Entry, Why
from smarthost.mail.key import Scope
from smarthost.mail.message import format_id, parse_id
from smarthost.policy.client_sync import OutreachTerms
from smarthost.policy.http_terms import HttpTerms
from smarthost.reception.keys import digest_of

pytestmark = pytest.mark.asyncio
TOKEN = "operator-token"
TERMS = HttpTerms(tokens=(digest_of(TOKEN),))
PRIVATE = OutreachTerms(allow_private_urls=True)


class Application:
    """The client's own server: takes delivery reports, and answers what a test says."""

    def __init__(self) -> None:
        """Take everything."""
        self.status = 200
        self.said: dict[str, Any] = {"ok": True}
        self.reports: list[dict[str, Any]] = []
        self.asked: list[Asked] = []
        self.peer = HttpPeer(self._answer)

    async def _answer(self, asked: Asked) -> bytes:
        self.asked.append(asked)
        if self.status == 200:
            self.reports += json.loads(asked.body)["delivery_report"]
        return answer(self.status, json.dumps(self.said).encode())

    def sent(self) -> list[str]:
        """Give the ids that were told as sent."""
        return [each["id"] for each in self.reports if "sent_ts" in each]


@pytest.fixture
async def application() -> AsyncIterator[Application]:
    """Give an application that listens."""
    application = Application()
    await application.peer.start()
    yield application
    await application.peer.stop()


async def until(house: HttpHouse, path: str, wanted: dict[str, str]) -> None:
    """Wait until messages, by their ids, have a status."""
    async with asyncio.timeout(20):
        while {each["id"]: each["status"] for each in (await call(house, "GET", path)).json["messages"]} != wanted:
            await asyncio.sleep(0.05)


async def call(house: HttpHouse, method: str, path: str, body: object = None, token: str = TOKEN) -> Said:
    """Ask as the proxy's client does."""
    return await house.ask(method, path, "", body, {"X-API-Token": token})


def tenant_of(application: Application, **others: object) -> dict[str, object]:
    """Give a tenant whose application listens."""
    url = f"http://127.0.0.1:{application.peer.port}"
    return {"id": "acme", "name": "Acme", "client_base_url": url, "client_sync_path": "/sync", **others}


def account_of(house: HttpHouse, **others: object) -> dict[str, object]:
    """Give an account at the sink."""
    port = house.sink.address[1]
    return {"id": "main", "tenant_id": "acme", "host": "127.0.0.1", "port": port, "use_tls": False, **others}


def message(name: str, **others: object) -> dict[str, object]:
    """Give a message."""
    return {
        "id": name,
        "tenant_id": "acme",
        "account_id": "main",
        "from": "shop@example.org",
        "to": ["250@example.net"],
        "subject": "Hello",
        "body": "Hello",
        **others,
    }


async def test_the_sequence_of_a_client(house: HttpHouse, application: Application) -> None:
    """Tenant, account, messages, run-now: both are sent once, and the application hears of them by its own ids."""
    await house.open_http(http=TERMS, outreach=PRIVATE)
    auth = {"method": "bearer", "token": "s3cret-of-the-client"}
    made = await call(house, "POST", "/tenants/add", tenant_of(application, client_auth=auth))
    assert made.status == 200 and made.json["api_key"].startswith("sh_")
    key = made.json["api_key"]
    assert (await call(house, "POST", "/accounts/add", account_of(house), key)).status == 200
    messages = [message("m-1", tenant_id=None), message("m-2", content_type="html", priority=1, batch_code="b7")]
    added = await call(house, "POST", "/commands/add-messages", {"messages": messages, "default_priority": 2}, key)
    assert (added.status, added.json) == (200, {"ok": True, "queued": 2, "rejected": []})
    one = {key: value for key, value in message("m-3").items() if key != "from"}
    single = await call(house, "POST", "/messages/add", one | {"from_addr": "shop@example.org"}, key)
    assert (single.status, single.json["id"], single.json["status"]) == (200, "m-3", "pending")
    await until(house, "/messages?tenant_id=acme", {"m-1": "sent", "m-2": "sent", "m-3": "sent"})
    assert (await call(house, "POST", "/commands/run-now", {}, key)).json == {"ok": True}
    await house.until(lambda: sorted(application.sent()) == ["m-1", "m-2", "m-3"])
    told = application.asked[-1]
    assert (told.target, told.headers["authorization"]) == ("/sync", "Bearer s3cret-of-the-client")
    assert {each["tenant_id"] for each in application.reports} == {"acme"}
    assert house.sink.counts.messages == 3
    listed = {each["id"]: each for each in (await call(house, "GET", "/messages", token=key)).json["messages"]}
    assert (listed["m-2"]["batch_code"], listed["m-2"]["priority"], listed["m-2"]["account_id"]) == ("b7", 1, "main")
    assert listed["m-2"]["sent_ts"] and listed["m-2"]["error"] is None
    assert (await call(house, "GET", "/status", token=key)).json["ok"] is True


async def test_the_same_id_is_sent_once(house: HttpHouse) -> None:
    """In one request, in two at a time, and after it was sent; another tenant's ids are its own."""
    await house.open_http(http=TERMS)
    for tenant in ("acme", "other"):
        await call(house, "POST", "/accounts/add", account_of(house, tenant_id=tenant))
    batch = {"messages": [message("m-1"), message("m-1"), message("m-2")]}
    said = await asyncio.gather(*(call(house, "POST", "/messages/add_batch", batch) for _ in range(3)))
    assert sum(each.json["queued"] for each in said) == 2
    assert all(len(each.json["rejected"]) == 3 - each.json["queued"] and each.json["ok"] for each in said)
    await until(house, "/messages?tenant_id=acme", {"m-1": "sent", "m-2": "sent"})
    again = await call(house, "POST", "/messages/add_batch", batch)
    assert again.json["queued"] == 0
    told = [(each["id"], each["reason"]) for each in again.json["rejected"]]
    assert told == [("m-1", "already sent"), ("m-1", "already queued"), ("m-2", "already sent")]
    assert (await call(house, "POST", "/messages/add", message("m-1"))).json["status"] == "duplicate"
    assert (await call(house, "POST", "/messages/add", message("m-1", tenant_id="other"))).json["status"] == "pending"
    await until(house, "/messages?tenant_id=other", {"m-1": "sent"})
    assert house.sink.counts.messages == 3


async def test_what_is_wrong_is_rejected_by_its_id(house: HttpHouse) -> None:
    """Each message that cannot be sent is named with its reason in the client's own words; the others are taken."""
    await house.open_http(http=TERMS)
    _, key = await house.make_key("acme")
    await call(house, "POST", "/accounts/add", account_of(house))
    wrong = {
        "no-account": message("no-account", account_id="nobody"),
        "no-to": message("no-to", to=[]),
        "no-body": message("no-body", body=""),
        "not-mine": message("not-mine", tenant_id="other"),
    }
    batch = {"messages": [*wrong.values(), "text", message("good")]}
    said = (await call(house, "POST", "/messages/add_batch", batch, key)).json
    assert (said["ok"], said["queued"]) == (True, 1)
    reasons = {each["id"]: each["reason"] for each in said["rejected"]}
    assert set(reasons) == {*wrong, None}
    assert "account_id" in reasons["no-account"] and "body" in reasons["no-body"] and "to" in reasons["no-to"]
    assert "another tenant" in reasons["not-mine"]
    nothing = await call(house, "POST", "/messages/add_batch", {"messages": [wrong["no-to"]]}, key)
    assert (nothing.json["ok"], nothing.json["queued"]) == (False, 0)
    assert (await call(house, "POST", "/messages/add", wrong["no-to"], key)).status == 422
    assert (await call(house, "POST", "/messages/add_batch", {"messages": {}}, key)).status == 422
    assert (
        await house.ask("POST", "/messages/add_batch", key, b"{", {"Content-Type": "application/json"})
    ).status == 400
    _, reader = await house.make_key("acme", Scope.READ)
    assert (await call(house, "POST", "/messages/add", message("m"), reader)).status == 403
    assert (await call(house, "POST", "/messages/add", message("m"), "")).status == 401


async def test_a_batch_is_made_durable_together(house: HttpHouse) -> None:
    """Five hundred messages of one request need a fraction of as many commits, and each is sent."""
    await house.open_http(http=TERMS)
    await call(house, "POST", "/accounts/add", account_of(house))
    await call(house, "POST", "/commands/suspend", {"tenant_id": "acme"})
    before = sum(house.server.counters.commit_histograms()[1].counts)
    batch = {"messages": [message(f"m-{number}") for number in range(500)]}
    assert (await call(house, "POST", "/messages/add_batch", batch)).json == {"ok": True, "queued": 500, "rejected": []}
    assert sum(house.server.counters.commit_histograms()[1].counts) - before < 100
    await call(house, "POST", "/commands/activate", {"tenant_id": "acme"})
    await house.until(lambda: house.sink.counts.messages == 500, 60)


async def test_suspended_mail_waits_also_after_a_restart(house: HttpHouse) -> None:
    """A batch that is suspended waits with a reason while others go, over a restart, until it is activated."""
    await house.open_http(http=TERMS)
    await call(house, "POST", "/accounts/add", account_of(house))
    code = "Newsletter 2026/1"  # no tag has such a name
    said = await call(house, "POST", "/commands/suspend", {"tenant_id": "acme", "batch_code": code})
    assert said.json == {"tenant_id": "acme", "suspended_batches": [code], "active": True, "ok": True}
    batch = {"messages": [message("waits", batch_code=code), message("goes", batch_code="b2"), message("plain")]}
    await call(house, "POST", "/messages/add_batch", batch)
    await until(house, "/messages?tenant_id=acme", {"waits": "pending", "goes": "sent", "plain": "sent"})
    entry = await suspended(house, "waits")
    assert "asked for over HTTP" in entry.last
    shown = await house.ask("GET", f"/api/v1/messages/{format_id(entry.message.id)}", (await house.make_key("acme"))[1])
    assert (shown.status, shown.json["status"]) == (200, "queued")
    await house.server.stop()
    await house.open_http(http=TERMS)
    everything = await call(house, "POST", "/commands/suspend", {"tenant_id": "acme"})
    assert everything.json["suspended_batches"] == ["*"] and everything.json["active"] is False
    await call(house, "POST", "/messages/add", message("later"))
    refused = await call(house, "POST", "/commands/activate", {"tenant_id": "acme", "batch_code": code})
    assert refused.status == 409
    assert house.sink.counts.messages == 2
    activated = await call(house, "POST", "/commands/activate", {"tenant_id": "acme"})
    assert activated.json["suspended_batches"] == []
    await until(house, "/messages?tenant_id=acme", dict.fromkeys(("later", "waits", "goes", "plain"), "sent"))
    assert (await call(house, "POST", "/commands/suspend", {})).status == 422


async def suspended(house: HttpHouse, name: str) -> Entry:
    """Wait until a message waits as suspended; gives its entry."""
    row = (await call(house, "GET", f"/messages/get?tenant_id=acme&message_id={name}")).json
    number = parse_id(row["pk"])
    assert number is not None
    async with asyncio.timeout(20):
        while not (found := await house.server.spool.entries_of(number)) or found[0].why is not Why.SUSPENDED:
            await asyncio.sleep(0.05)
    return found[0]


async def test_reports_come_after_an_outage(house: HttpHouse, application: Application) -> None:
    """What the application missed, or did not find, is told again when it asks for it."""
    await house.open_http(http=TERMS, outreach=PRIVATE)
    await call(house, "POST", "/tenant", tenant_of(application))
    await call(house, "POST", "/account", account_of(house))
    await house.until(lambda: bool(application.asked))
    application.status = 500
    await call(house, "POST", "/messages/add", message("m-1"))
    calls = len(application.asked)
    await house.until(lambda: len(application.asked) > calls)
    assert application.reports == []
    application.status, application.said = 200, {"ok": True, "not_found": ["m-1"]}
    await call(house, "POST", "/commands/run-now", {"tenant_id": "acme"})
    await house.until(lambda: application.sent() == ["m-1"])
    application.said = {"ok": True}
    await call(house, "POST", "/commands/run-now")
    await house.until(lambda: application.sent() == ["m-1", "m-1"])


async def test_a_deferral_says_until_when(house: HttpHouse) -> None:
    """What waits for its time, or for the limit of its account, is deferred with the time until when."""
    await house.open_http(http=TERMS, retry=SLOW)
    await call(house, "POST", "/account", account_of(house, limit_per_hour=1, limit_behavior="defer"))
    assert (await call(house, "POST", "/messages/add", message("m-1"))).json["status"] == "pending"
    later = (await call(house, "POST", "/messages/add", message("m-2"))).json
    now = house.server.relay.clock()
    assert later["status"] == "deferred" and now < later["deferred_until"] < now + 3700
    timed = (await call(house, "POST", "/messages/add", message("m-3", deferred_ts=int(now) + 500))).json
    assert (timed["status"], timed["deferred_until"]) == ("deferred", max(int(now) + 500, timed["deferred_until"]))
    await until(house, "/messages?tenant_id=acme", {"m-1": "sent", "m-2": "deferred", "m-3": "deferred"})
    row = (await call(house, "GET", "/messages/get?tenant_id=acme&message_id=m-2")).json
    assert now < row["deferred_until"] < now + 3700


async def test_messages_are_deleted_and_forgotten(house: HttpHouse) -> None:
    """What is still to be sent is not, and its id may come again; what was sent is forgotten, and its id may not."""
    await house.open_http(http=TERMS)
    await call(house, "POST", "/account", account_of(house))
    far = int(house.server.relay.clock()) + 5000
    batch = {"messages": [message("sent"), message("waits", deferred_ts=far), message("old")]}
    await call(house, "POST", "/messages/add_batch", batch)
    await until(house, "/messages?tenant_id=acme", {"sent": "sent", "waits": "deferred", "old": "sent"})
    theirs = await call(house, "POST", "/commands/delete-messages", {"ids": ["sent"], "tenant_id": "other"})
    assert theirs.json == {"removed": 0, "not_found": ["sent"], "ok": True}
    wanted = {"ids": ["sent", "waits", "nobody"], "tenant_id": "acme"}
    said = await call(house, "POST", "/commands/delete-messages", wanted)
    assert said.json == {"removed": 2, "not_found": ["nobody"], "ok": True}
    assert [each["id"] for each in (await call(house, "GET", "/messages?tenant_id=acme")).json["messages"]] == ["old"]
    assert (await house.server.spool.count())["total"] == 0
    again = await call(house, "POST", "/messages/add_batch", {"messages": [message("sent"), message("waits")]})
    assert again.json["rejected"] == [{"id": "sent", "reason": "already sent"}]
    clean = {"tenant_id": "acme", "older_than_seconds": 0}
    await until(house, "/messages?tenant_id=acme", {"waits": "sent", "old": "sent"})
    assert (await call(house, "POST", "/commands/cleanup-messages", {"tenant_id": "acme"})).json["removed"] == 0
    assert (await call(house, "POST", "/commands/cleanup-messages", clean)).json == {"removed": 2, "ok": True}


async def test_a_tenant_and_its_key(house: HttpHouse, application: Application) -> None:
    """Only the operator makes one; its secret and key are shown to nobody, and its key is replaced and revoked."""
    await house.open_http(http=TERMS, outreach=PRIVATE)
    auth = {"method": "basic", "user": "u", "password": "p4ss-w0rd"}
    made = await call(house, "POST", "/tenant", tenant_of(application, client_auth=auth, rate_limits={"per_day": 5}))
    key = made.json["api_key"]
    assert b"p4ss" not in made.body and made.json["rate_limits"] == {"per_day": 5}
    assert (await call(house, "POST", "/tenant", {"id": "more"}, key)).status == 403
    assert (await call(house, "GET", "/tenant/more", token=key)).status == 404
    changed = await call(house, "PUT", "/tenant/acme", {"name": "Acme Corp"}, key)
    assert (changed.json["name"], changed.json["client_auth"]) == ("Acme Corp", {"method": "basic", "user": "u"})
    assert "api_key" not in changed.json
    await house.until(lambda: bool(application.asked))
    assert application.asked[0].headers["authorization"].startswith("Basic ")
    assert [each["id"] for each in (await call(house, "GET", "/tenants")).json["tenants"]] == ["acme"]
    for wrong in (
        {"client_auth": {"method": "bearer"}},
        {"client_base_url": "ftp://x"},
        {"client_sync_path": "sync"},
        {"client_base_url": "http://thief.example"},
        {"client_base_url": "http://127.0.0.1:9"},
    ):
        assert (await call(house, "PUT", "/tenant/acme", wrong, key)).status == 422, wrong
    await house.server.stop()
    await house.open_http(http=TERMS, outreach=PRIVATE)
    assert (await call(house, "GET", "/tenants/get?tenant_id=acme")).json["name"] == "Acme Corp"
    second = (await call(house, "POST", "/tenant/acme/api-key")).json["api_key"]
    assert (await call(house, "GET", "/status", token=key)).status == 401
    assert (await call(house, "GET", "/status", token=second)).status == 200
    assert (await call(house, "DELETE", "/tenant/acme", token=second)).status == 403
    assert (await call(house, "DELETE", "/tenant/acme")).status == 200
    assert (await call(house, "GET", "/status", token=second)).status == 401
    assert (await call(house, "GET", "/tenants")).json["tenants"] == []


async def test_an_application_at_a_private_address_has_to_be_allowed(
    house: HttpHouse, application: Application
) -> None:
    """Who may make tenants may not have the relay ask what only it can reach, unless the configuration says so."""
    await house.open_http(http=TERMS)
    await call(house, "POST", "/tenant", tenant_of(application))
    await house.until(lambda: house.server.counters.client_syncs["failed"] > 0)
    assert application.asked == []


async def test_a_trusted_network_needs_no_token(house: HttpHouse) -> None:
    """From there anybody is the operator, but no page in a browser and nobody behind a proxy; a bad token stays bad."""
    await house.open_http(http=HttpTerms(trusted_networks=("127.0.0.0/8",)))
    assert (await house.ask("GET", "/status")).status == 200
    assert (await house.ask("POST", "/tenants/add", "", {"id": "bench"})).status == 200
    for name, value in (("Origin", "http://evil.example"), ("X-Forwarded-For", "192.0.2.1"), ("X-API-Token", "")):
        assert (await house.ask("GET", "/status", "", None, {name: value})).status == 401, name
    house.server.api.follow(msgspec.structs.replace(house.server.config, http=HttpTerms()))
    assert (await house.ask("GET", "/status")).status == 401


async def test_the_routes_of_the_last_release(house: HttpHouse) -> None:
    """Its lists are bare, and accounts are shown and deleted by routes of their own."""
    await house.open_http(http=TERMS)
    await call(house, "POST", "/tenants/add", {"id": "acme"})
    await call(house, "POST", "/accounts/add", account_of(house))
    await call(house, "POST", "/messages/add", message("m-1"))
    assert [each["id"] for each in (await call(house, "GET", "/tenants/list")).json] == ["acme"]
    assert [each["id"] for each in (await call(house, "GET", "/messages/list?tenant_id=acme")).json] == ["m-1"]
    assert [each["id"] for each in (await call(house, "GET", "/accounts/list?tenant_id=acme")).json] == ["main"]
    assert (await call(house, "GET", "/accounts/get?tenant_id=acme&account_id=main")).json["host"] == "127.0.0.1"
    gone = await call(house, "POST", "/accounts/delete", {"tenant_id": "acme", "account_id": "main"})
    assert gone.json == {"ok": True}
    assert (await call(house, "GET", "/accounts/get?tenant_id=acme&account_id=main")).status == 404
    assert (await call(house, "POST", "/instance/run_now", {})).json == {"ok": True}
