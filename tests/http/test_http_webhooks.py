"""Webhooks and bounces over HTTP: a tenant's own alone, secrets shown once, and nobody believed who is not proven."""

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.x509.oid import NameOID
from http_house import HttpHouse
from http_peer import Asked, HttpPeer, answer

from smarthost.mail.event import Kind
from smarthost.mail.key import Scope
from smarthost.network.http_client import HttpAnswer, HttpFault, HttpRequest
from smarthost.policy.client_sync import OutreachTerms
from smarthost.policy.suppression import SuppressionRules, SuppressionScope
from smarthost.wire.sns import read_sns, signed_octets

HOOKS, SES = "/api/v1/webhooks", "/api/v1/webhooks/ses"
TOPIC = "arn:aws:sns:eu-west-1:123456789012:bounces"
CERTIFICATE = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-1.pem"
BOUNCE = {
    "bounce": {
        "bounceType": "Permanent",
        "bouncedRecipients": [{"emailAddress": "Bob@Example.net", "status": "5.1.1", "diagnosticCode": "550 no"}],
    }
}


@pytest.fixture
async def receiver() -> AsyncIterator[HttpPeer]:
    """Give a receiver that takes everything."""

    async def take(_: Asked) -> bytes:
        return answer(200)

    peer = HttpPeer(take)
    await peer.start()
    yield peer
    await peer.stop()


async def test_a_webhook_from_making_to_removing(house: HttpHouse, receiver: HttpPeer) -> None:
    """It is made with a secret that is shown once, listed without, changed, hears of mail, and is removed."""
    await house.open_http(outreach=OutreachTerms(allow_private_urls=True))
    _, token = await house.make_key("shop")
    made = await house.ask("POST", HOOKS, token, {"url": receiver.url, "events": ["message.accepted"]})
    assert made.status == 201 and made.json["secret"].startswith("whsec_") and made.json["active"]
    place = f"{HOOKS}/{made.json['id']}"
    listed = (await house.ask("GET", HOOKS, token)).json["webhooks"]
    assert [each["id"] for each in listed] == [made.json["id"]] and "secret" not in listed[0]
    assert made.json["secret"] not in json.dumps(listed)
    changed = await house.ask("PATCH", place, token, {"description": "mine"})
    assert changed.status == 200 and changed.json["description"] == "mine" and "secret" not in changed.json
    fresh = await house.ask("PATCH", place, token, {"secret": ""})
    assert fresh.json["secret"] != made.json["secret"]
    assert (await house.ask("GET", f"{place}/dead", token)).json == {"events": [], "next": 0}
    assert (await house.ask("POST", f"{place}/replay", token, {"after": 0})).json == {"replayed": None}
    assert (await house.ask("POST", f"{place}/replay", token, {"dead": True})).json == {"replayed": 0}
    assert (await house.ask("POST", f"{place}/replay", token, {})).status == 422
    assert (await house.ask("DELETE", place, token)).status == 204
    assert (await house.ask("GET", place, token)).status == 404


async def test_mail_is_told(house: HttpHouse, receiver: HttpPeer) -> None:
    """Events of mail that came by SMTP reach the default tenant's webhook."""
    await house.open_http(outreach=OutreachTerms(allow_private_urls=True))
    _, token = await house.make_key()
    assert (await house.ask("POST", HOOKS, token, {"url": receiver.url})).status == 201
    await house.send("one@example.net")
    await house.until(lambda: len(receiver.asked) >= 2)
    types = [json.loads(each.body)["type"] for each in receiver.asked]
    assert types[:2] == ["message.accepted", "message.relayed"]


async def test_webhooks_are_a_tenants_own(house: HttpHouse, receiver: HttpPeer) -> None:
    """No route shows or changes another tenant's webhook, and a key without the scope opens none of them."""
    await house.open_http(outreach=OutreachTerms(allow_private_urls=True))
    _, mine = await house.make_key("shop")
    _, other = await house.make_key("other")
    _, weak = await house.make_key("shop", Scope.SEND, Scope.READ)
    made = await house.ask("POST", HOOKS, mine, {"url": receiver.url, "active": False})
    place = f"{HOOKS}/{made.json['id']}"
    for method, path, body in (
        ("GET", place, None),
        ("PATCH", place, {"active": True}),
        ("DELETE", place, None),
        ("GET", f"{place}/dead", None),
        ("POST", f"{place}/replay", {"after": 0}),
        ("POST", f"{place}/replay", {"dead": True}),
    ):
        assert (await house.ask(method, path, other, body)).status == 404, path
        assert (await house.ask(method, path, weak, body)).status == 403, path
        assert (await house.ask(method, path, "", body)).status == 401, path
    assert (await house.ask("GET", HOOKS, other)).json == {"webhooks": []}
    assert (await house.ask("GET", place, mine)).json["active"] is False


async def test_faults_name_their_fields(house: HttpHouse) -> None:
    """What is wrong with a webhook is said by field, and never with the URL or the secret."""
    await house.open_http()
    _, token = await house.make_key()
    wrong = {"url": "ftp://secret-host/", "events": ["nothing"], "secret": "hidden"}
    said = await house.ask("POST", HOOKS, token, wrong)
    assert said.status == 422
    assert [each["field"] for each in said.json["errors"]] == ["url", "events[0]", "secret"]
    assert b"secret-host" not in said.body and b"hidden" not in said.body
    assert (await house.ask("POST", HOOKS, token, {"urls": "x"})).status in (400, 422)


async def test_a_bare_bounce_needs_a_key(house: HttpHouse) -> None:
    """A tenant's own claim is an event, and suppresses for that tenant alone; without a key nothing is believed."""
    await house.open_http(suppression=SuppressionRules(enabled=True, scope=SuppressionScope.GLOBAL))
    _, token = await house.make_key("shop")
    _, weak = await house.make_key("shop", Scope.SEND)
    assert (await house.ask("POST", SES, "", BOUNCE)).status == 403
    assert (await house.ask("POST", SES, weak, BOUNCE)).status == 403
    assert (await house.ask("POST", SES, token, b"{")).status == 400
    start = house.server.spool.event_log.head
    assert (await house.ask("POST", SES, token, BOUNCE)).json == {"taken": 1}
    async with asyncio.timeout(15):
        await house.server.spool.event_log.beyond(start)
    told, suppressed = (await house.server.spool.event_log.after(start, 9, "shop")).events
    assert (suppressed.event.event, suppressed.event.recipient) == (Kind.SUPPRESSED, "bob@example.net")
    assert (told.event.event, told.event.recipient, told.event.status) == (Kind.BOUNCED, "Bob@Example.net", "5.1.1")
    rows = await house.server.spool.suppressions.page(("", ""), 9)
    assert [(row.owner, row.address) for row in rows] == [("shop", "bob@example.net")]


async def test_what_sns_signed_is_believed_from_our_topic(house: HttpHouse) -> None:
    """A signed notification of a topic of ours is taken without a key; of another topic, or unsigned, it is not."""
    await house.open_http(outreach=OutreachTerms(sns_topics=(TOPIC,)))
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, now - timedelta(1), now + timedelta(1))
    shown = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    fetched: list[str] = []

    async def ask(request: HttpRequest) -> HttpAnswer | HttpFault:
        fetched.append(request.url)
        return HttpAnswer(200, {}, shown if request.url == CERTIFICATE else b"ok")

    house.server.outreach.sns._ask = ask

    def envelope(**changes: str) -> dict[str, str]:
        made = {
            "Type": "Notification",
            "MessageId": "m",
            "TopicArn": TOPIC,
            "Message": json.dumps(BOUNCE | {"notificationType": "Bounce"}),
            "Timestamp": "2027-01-15T08:00:00.000Z",
            "SignatureVersion": "2",
            "Signature": "",
            "SigningCertURL": CERTIFICATE,
        } | changes
        read = read_sns(json.dumps(made).encode())
        assert read is not None
        return made | {"Signature": b64encode(key.sign(signed_octets(read), PKCS1v15(), hashes.SHA256())).decode()}

    plain = {"Content-Type": "text/plain; charset=UTF-8"}
    good = await house.ask("POST", SES, "", json.dumps(envelope()).encode(), plain)
    assert (good.status, good.json) == (200, {"taken": 1}) and fetched == [CERTIFICATE]
    for wrong in (
        envelope() | {"Message": "{}"},
        envelope(TopicArn=TOPIC.replace("bounces", "evil")),
        envelope(SigningCertURL="https://evil.example/SimpleNotificationService-1.pem"),
    ):
        assert (await house.ask("POST", SES, "", wrong)).status == 403
    url = "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&Token=t"
    asked = envelope(Type="SubscriptionConfirmation", Token="t", SubscribeURL=url)
    assert (await house.ask("POST", SES, "", asked)).json == {"taken": 0} and fetched[-1] == url
    evil = envelope(Type="SubscriptionConfirmation", Token="t", SubscribeURL="http://127.0.0.1/")
    assert (await house.ask("POST", SES, "", evil)).json == {"taken": 0} and fetched[-1] == url
    greeting = envelope(Message="Successfully validated SNS topic for Amazon SES event publishing.")
    assert (await house.ask("POST", SES, "", greeting)).json == {"taken": 0}


async def test_mail_that_reports_is_taken_with_a_key(house: HttpHouse) -> None:
    """A delivery report that somebody was sent is handed in as it is; other mail says nothing."""
    await house.open_http()
    _, token = await house.make_key("shop")
    mail = b"""Content-Type: multipart/report; report-type=delivery-status; boundary="b"

--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.net

Final-Recipient: rfc822; bob@example.net
Action: failed
Status: 5.1.1
--b--
"""
    as_mail = {"Content-Type": "message/rfc822"}
    start = house.server.spool.event_log.head
    assert (await house.ask("POST", "/api/v1/bounces", "", mail, as_mail)).status == 401
    assert (await house.ask("POST", "/api/v1/bounces", token, mail, as_mail)).json == {"taken": 1}
    assert (await house.ask("POST", "/api/v1/bounces", token, b"Subject: hello", as_mail)).json == {"taken": 0}
    async with asyncio.timeout(15):
        await house.server.spool.event_log.beyond(start)
    (told,) = (await house.server.spool.event_log.after(start, 9, "shop")).events
    assert (told.event.event, told.event.recipient) == (Kind.BOUNCED, "bob@example.net")
