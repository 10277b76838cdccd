"""Bounces of mail that came by HTTP: its return paths, how its application hears of them, and keys of both doors."""

import asyncio
import json
import smtplib
from typing import Any

import msgspec
from http_house import HttpHouse
from http_peer import Asked, HttpPeer, answer

from smarthost.mail.event import Kind
from smarthost.policy.admission import Auth, Listener, Role, Tls
from smarthost.policy.bounce_terms import BounceTerms
from smarthost.policy.client_sync import OutreachTerms, SyncTarget
from smarthost.policy.suppression import SuppressionRules

TERMS = BounceTerms(domain="bounces.example.org")
LISTENERS = (
    Listener(address="127.0.0.1:0", tls=Tls.NONE, auth=Auth.NONE),
    Listener(address="127.0.0.2:0", tls=Tls.NONE, auth=Auth.NONE, role=Role.BOUNCES),
)
HELLO = {"from": "shop@example.org", "to": ["a@example.net"], "subject": "Hello", "text": "Hello"}
RAW = {"Content-Type": "message/rfc822"}
REPORT = """From: MAILER-DAEMON@example.net
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="b"

--b

It failed.
--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.net

Final-Recipient: rfc822; {recipient}
Action: failed
Status: 5.1.1
Diagnostic-Code: smtp; 550 5.1.1 nobody here

--b
Content-Type: message/rfc822

Return-Path: <{path}>
Subject: Hello

--b--
"""


async def open_bounces(house: HttpHouse, terms: BounceTerms = TERMS, **changes: object) -> None:
    """Start a relay with both doors and a listener for bounces."""
    await house.open_http(listeners=LISTENERS, bounces=terms, suppression=SuppressionRules(enabled=True), **changes)


async def send_mail(address: tuple[str, int], recipient: str, content: str, sender: str = "") -> str:
    """Send a mail by SMTP; gives the last reply."""

    def talk() -> str:
        with smtplib.SMTP(*address, timeout=20) as client:
            client.ehlo()
            client.mail(sender)
            client.rcpt(recipient)
            code, text = client.data(content)
            return f"{code} {text.decode()}"

    return await asyncio.to_thread(talk)


async def bounce(house: HttpHouse, path: str, recipient: str) -> str:
    """Send a delivery report to a return path."""
    host, port = house.server.listening[1].rsplit(":", 1)
    return await send_mail((host, int(port)), path, REPORT.format(path=path, recipient=recipient))


async def post(house: HttpHouse, token: str, **fields: object) -> str:
    """Post a message and wait until it was relayed; gives its id."""
    before = len(house.sink.messages)
    said = await house.ask("POST", "/api/v1/messages", token, HELLO | fields)
    assert said.status == 202, said.body
    await house.until(lambda: len(house.sink.messages) >= before + len(said.json["recipients"]))
    await house.empty()
    name: str = said.json["id"]
    return name


async def test_mail_by_http_has_a_return_path_of_ours(house: HttpHouse) -> None:
    """Each recipient has one, unless the message names a return path; by configuration, then too."""
    await open_bounces(house)
    _, token = await house.make_key()
    await post(house, token, to=["a@example.net", "b@example.net"])
    assert all(each.reverse_path.startswith("bounces+") for each in house.sink.messages)
    assert [len(each.recipients) for each in house.sink.messages] == [1, 1]
    await post(house, token, return_path="own@example.org")
    assert house.sink.messages[-1].reverse_path == "own@example.org"
    raw = b"From: shop@example.org\r\n\r\nHello\r\n"
    for query, expected in (("", "bounces+"), ("&from=own@example.org", "own@example.org")):
        count = len(house.sink.messages)
        said = await house.ask("POST", f"/api/v1/messages?to=c@example.net{query}", token, raw, RAW)
        assert said.status == 202
        await house.until(lambda count=count: len(house.sink.messages) > count)
        assert house.sink.messages[-1].reverse_path.startswith(expected)
    await house.server.stop()
    await open_bounces(house, msgspec.structs.replace(TERMS, replaces_return_path=True))
    await post(house, token, return_path="own@example.org")
    assert house.sink.messages[-1].reverse_path.startswith("bounces+")
    await post(house, token, return_path="")
    assert house.sink.messages[-1].reverse_path == ""
    await house.server.stop()
    await open_bounces(house, msgspec.structs.replace(TERMS, http=False))
    await post(house, token)
    assert house.sink.messages[-1].reverse_path == "shop@example.org"


async def test_the_application_hears_of_a_bounce(house: HttpHouse) -> None:
    """A bounce reaches the message's events, the webhook and the delivery reports, under the application's own name."""
    reports: list[dict[str, Any]] = []
    hooked: list[dict[str, Any]] = []

    async def take(asked: Asked) -> bytes:
        told = json.loads(asked.body)
        if "delivery_report" in told:
            reports.extend(told["delivery_report"])
        else:
            hooked.append(told)
        return answer(200, b"{}")

    peer = HttpPeer(take)
    await peer.start()
    try:
        sync = SyncTarget(peer.url, token="t")
        await open_bounces(house, outreach=OutreachTerms(allow_private_urls=True, sync=sync))
        _, token = await house.make_key("shop")
        wish = {"url": peer.url, "events": ["message.bounced"]}
        assert (await house.ask("POST", "/api/v1/webhooks", token, wish)).status == 201
        name = await post(house, token, id="order-7")
        assert (await bounce(house, house.sink.messages[-1].reverse_path, "elsewhere@example.com")).startswith("250 ")
        await house.until(lambda: any("bounce_ts" in each for each in reports) and bool(hooked))
        told = next(each for each in reports if "bounce_ts" in each)
        assert told.pop("bounce_ts") > 1_600_000_000
        assert (
            told.items()
            >= {
                "id": "order-7",
                "recipient": "a@example.net",
                "bounce_type": "hard",
                "bounce_code": "5.1.1",
                "bounce_reason": "550 5.1.1 nobody here",
            }.items()
        )
        assert hooked[0]["type"] == "message.bounced" and hooked[0]["data"]["recipient"] == "a@example.net"
        story = (await house.ask("GET", f"/api/v1/messages/{name}", token)).json
        assert "bounced" in json.dumps(story)
        refused = await house.ask("POST", "/api/v1/messages", token, HELLO)
        assert refused.status == 422 and b"suppress" in refused.body
    finally:
        await peer.stop()


async def test_no_tenant_speaks_of_anothers_mail(house: HttpHouse) -> None:
    """A report that another tenant posts about a message is not believed, though its return path is right."""
    await open_bounces(house)
    (_, shop), (_, rival) = await house.make_key("shop"), await house.make_key("rival")
    await post(house, shop)
    content = REPORT.format(path=house.sink.messages[-1].reverse_path, recipient="a@example.net").encode()
    said = await house.ask("POST", "/api/v1/bounces", rival, content, RAW)
    assert (said.status, said.json) == (200, {"taken": 0})
    assert not any(event.event is Kind.BOUNCED for event in house.events)
    said = await house.ask("POST", "/api/v1/bounces", shop, content, RAW)
    assert said.json == {"taken": 1}
    said = await house.ask("POST", "/api/v1/bounces", shop, content, RAW)
    assert said.json == {"taken": 0}


async def test_both_doors_share_the_keys(house: HttpHouse) -> None:
    """A key that came by one door is known at the other, of the same tenant; a raw message may have it itself."""
    await house.open_http()
    (_, mine), (_, other) = await house.make_key(), await house.make_key("other")
    key = {"Idempotency-Key": "order-7"}
    assert (await house.ask("POST", "/api/v1/messages", mine, HELLO, key)).status == 202
    mail = "From: shop@example.org\r\nX-Smarthost-Idempotency-Key: {}\r\n\r\nHello\r\n"
    said = await send_mail(house.address, "a@example.net", mail.format("order-7"), "shop@example.org")
    assert said.startswith("554 5.6.0 X-Smarthost-Idempotency-Key")
    assert (await send_mail(house.address, "a@example.net", mail.format("order-8"))).startswith("250 ")
    assert (await house.ask("POST", "/api/v1/messages", mine, HELLO, {"Idempotency-Key": "order-8"})).status == 409
    assert (await house.ask("POST", "/api/v1/messages", other, HELLO, {"Idempotency-Key": "order-8"})).status == 202
    path, raw = "/api/v1/messages?to=a@example.net", mail.format("order-9").encode()
    first = await house.ask("POST", path, mine, raw, RAW)
    again = await house.ask("POST", path, mine, raw, RAW)
    assert first.status == again.status == 202 and first.json == again.json
    assert (await house.ask("POST", path, mine, raw + b"more\r\n", RAW)).status == 409
