"""Two tenants against each other, on every route that the OpenAPI document has."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from http_house import HttpHouse

from smarthost.mail.event import Kind
from smarthost.mail.key import Scope

HELLO = {"from": "shop@example.org", "to": "secret@example.net", "subject": "secret-subject", "tag": "secret-tag"}
HELLO |= {"text": "secret-text", "id": "secret-id", "metadata": {"secret-key": 1}}
PUBLIC = {"/api/v1/health", "/api/v1/ready", "/api/v1/downloads/{name}"}


async def test_no_route_shows_another_tenants_objects(house: HttpHouse) -> None:
    """With every path parameter naming what is another tenant's, nothing is shown and nothing is changed."""
    await house.open_http()
    _, mine = await house.make_key("mine")
    _, theirs = await house.make_key("theirs")
    sent = await house.ask("POST", "/api/v1/messages", theirs, HELLO)
    made = await house.ask("POST", "/api/v1/admin/keys", theirs, {"name": "secret-name", "scopes": ["send"]})
    names = {"message_id": sent.json["id"], "key_id": made.json["id"]}
    batch = await _batch(house, theirs)
    names |= {"batch_id": batch["id"], "template_id": batch["template_id"]}
    before = await house.ask("GET", f"/api/v1/messages/{sent.json['id']}", theirs)
    await house.empty()
    document = (await house.ask("GET", "/api/v1/openapi.json")).json
    asked = 0
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if method not in ("get", "post", "put", "patch", "delete") or path.endswith("/stream"):
                continue
            place = path
            for name in _parameters(operation):
                place = place.replace(f"{{{name}}}", names.get(name, sent.json["id"]))
            body = _body(document, operation)
            said = await house.ask(method.upper(), place, mine, body)
            assert b"secret" not in said.body, place
            assert sent.json["id"].encode() not in said.body, place
            if place != path:
                assert said.status in (400, 404, 405, 422), (method, place, said.status)
                assert said.status == 404 or body is not None, (method, place, said.status)
            asked += 1
    assert asked > 10
    after = await house.ask("GET", f"/api/v1/messages/{sent.json['id']}", theirs)
    assert (before.status, after.status) == (200, 200)
    assert after.json["recipients"][0]["status"] == "relayed"
    assert (await house.ask("GET", "/api/v1/admin/keys", theirs)).json["keys"][1]["revoked_at"] is None
    assert house.server.api.keys.verify(made.json["key"]) is not None
    assert (await house.ask("GET", f"/api/v1/batches/{batch['id']}", theirs)).json["status"] == "SCHEDULED"


async def test_a_report_belongs_to_whose_message_it_is_about(house: HttpHouse) -> None:
    """Events of a report of the relay's own, which name addresses, have the tenant of the message it is about."""
    await house.open_http()
    _, default = await house.make_key()
    _, theirs = await house.make_key("theirs")
    await house.ask("POST", "/api/v1/messages", theirs, {**HELLO, "to": "550@example.net"})
    await house.until(lambda: any(event.event is Kind.RELAYED for event in house.events))
    told = [event for event in house.events if event.event in (Kind.REPORTED, Kind.RELAYED)]
    assert [(event.event, event.user) for event in told] == [(Kind.REPORTED, "theirs"), (Kind.RELAYED, "theirs")]
    assert (await house.ask("GET", "/api/v1/events", default)).json["events"] == []
    assert b"shop@example.org" in (await house.ask("GET", "/api/v1/events", theirs)).body


async def test_every_route_wants_a_key(house: HttpHouse) -> None:
    """Without a key each route is 401, and with one that has no scope for it 403, but for health and links."""
    await house.open_http()
    _, sender = await house.make_key("mine", Scope.SEND)
    document = (await house.ask("GET", "/api/v1/openapi.json")).json
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if path in PUBLIC or "/webhooks/ses" in path or method == "parameters":
                continue
            assert (await house.ask(method.upper(), path, "", _body(document, operation))).status == 401, path
    assert (await house.ask("GET", "/api/v1/messages", sender)).status == 403
    assert (await house.ask("GET", "/api/v1/events", sender)).status == 403


async def _batch(house: HttpHouse, token: str) -> dict[str, Any]:
    """Make a template, and a batch of it that waits for its time."""
    later = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    template = {"name": "secret-t", "subject": "secret", "text": "secret"}
    asked = await house.ask("POST", "/api/v1/templates", token, template)
    body = {"template_id": asked.json["id"], "recipients": [{"email": "secret@example.net"}], "send_at": later}
    made = await house.ask("POST", "/api/v1/batches", token, body)
    assert made.status == 201, made.body
    return {**made.json, "template_id": asked.json["id"]}


def _parameters(operation: dict[str, Any]) -> list[str]:
    return [each["name"] for each in operation.get("parameters", []) if each["in"] == "path"]


def _body(document: dict[str, Any], operation: dict[str, Any]) -> object:
    """Give a body where the operation wants one: an empty object."""
    return {} if "requestBody" in operation else None


def test_bodies_are_json() -> None:
    """What is sent as a body is an object."""
    assert json.dumps(_body({}, {"requestBody": {}})) == "{}"
