"""Templates over HTTP: kept, changed, filled in and sent, each tenant's for itself, with every fault named."""

import asyncio

import pytest
from http_house import HttpHouse

from smarthost.mail.key import Scope
from smarthost.queue.templates import KIND, NAMES
from smarthost.spool.store import Fault

TEMPLATES, MESSAGES = "/api/v1/templates", "/api/v1/messages"
WELCOME = {
    "name": "welcome",
    "subject": "Welcome, {{name}}",
    "html": "<p>Hello <b>{{name}}</b>{{#if plan.title}}, {{plan.title}}{{/if}}</p>",
    "text": "Hello {{name}}\n",
    "variables": {"name": {"type": "string", "required": True}, "plan.title": {"type": "string"}},
}


async def test_a_template_is_made_changed_and_removed(house: HttpHouse) -> None:
    """What was put is shown whole, counts its changes, keeps its id and its time of birth, and is gone when removed."""
    await house.open_http()
    _, token = await house.make_key("shop")
    made = await house.ask("POST", TEMPLATES, token, WELCOME)
    assert made.status == 201
    whole = WELCOME | {
        "variables": {"name": {"type": "string", "required": True}, "plan.title": {"type": "string", "required": False}}
    }
    assert {key: made.json[key] for key in whole} == whole and made.json["revision"] == 1
    place = f"{TEMPLATES}/{made.json['id']}"
    assert (await house.ask("GET", place, token)).json == made.json
    changed = await house.ask("PUT", place, token, {"name": "hello", "subject": "Hi", "text": "Hi"})
    assert changed.status == 200
    assert (changed.json["id"], changed.json["revision"], changed.json["html"]) == (made.json["id"], 2, "")
    assert changed.json["created_at"] == made.json["created_at"] and changed.json["variables"] == {}
    listed = (await house.ask("GET", TEMPLATES, token)).json
    assert [each["name"] for each in listed["templates"]] == ["hello"] and "html" not in listed["templates"][0]
    assert (await house.ask("DELETE", place, token)).status == 204
    for method in ("GET", "DELETE"):
        assert (await house.ask(method, place, token)).status == 404
    assert (await house.ask("PUT", place, token, WELCOME)).status == 404
    assert await house.server.spool.records.count(NAMES, "shop") == 0


async def test_a_name_is_unique_within_its_tenant(house: HttpHouse) -> None:
    """The second template of a name is 409, also of two at once; a name is free once its template has another."""
    await house.open_http()
    _, token = await house.make_key("shop")
    _, other = await house.make_key("other")
    both = await asyncio.gather(*(house.ask("POST", TEMPLATES, token, WELCOME) for _ in range(2)))
    assert sorted(each.status for each in both) == [201, 409]
    made, refused = sorted(both, key=lambda said: said.status)
    assert refused.json["errors"][0]["field"] == "name" and made.json["id"] in refused.json["detail"]
    assert (await house.ask("POST", TEMPLATES, other, WELCOME)).status == 201
    second = await house.ask("POST", TEMPLATES, token, WELCOME | {"name": "second"})
    assert (await house.ask("PUT", f"{TEMPLATES}/{second.json['id']}", token, WELCOME)).status == 409
    assert (await house.ask("PUT", f"{TEMPLATES}/{made.json['id']}", token, WELCOME)).status == 200
    await house.ask("PUT", f"{TEMPLATES}/{made.json['id']}", token, WELCOME | {"name": "first"})
    assert (await house.ask("PUT", f"{TEMPLATES}/{second.json['id']}", token, WELCOME)).status == 200
    found = await house.ask("GET", f"{TEMPLATES}?name=welcome", token)
    assert [each["id"] for each in found.json["templates"]] == [second.json["id"]]
    assert (await house.ask("GET", f"{TEMPLATES}?name=none", token)).json == {"templates": [], "next_cursor": None}


async def test_templates_are_listed_page_by_page(house: HttpHouse) -> None:
    """Oldest first, none twice and none left out, and no cursor behind the last."""
    await house.open_http()
    _, token = await house.make_key("shop")
    ids = [(await house.ask("POST", TEMPLATES, token, WELCOME | {"name": f"t{n}"})).json["id"] for n in range(25)]
    found, cursor, pages = [], "", 0
    while cursor is not None:
        page = (await house.ask("GET", f"{TEMPLATES}?limit=5&cursor={cursor}", token)).json
        found += [each["id"] for each in page["templates"]]
        cursor, pages = page["next_cursor"], pages + 1
    assert found == ids and pages == 5
    assert (await house.ask("GET", f"{TEMPLATES}?limit=25", token)).json["next_cursor"] is None


@pytest.mark.parametrize(
    ("changed", "field", "words"),
    [
        ({"html": "<p>\n{{#if name}}"}, "html", ("line 2", "not closed")),
        ({"subject": "{{name"}, "subject", ("line 1",)),
        ({"text": "a\n\n{{#each}}x{{/each}}"}, "text", ("line 3", "takes one argument")),
        ({"html": "", "text": ""}, "html", ("missing",)),
        ({"name": " "}, "name", ("1 to 200",)),
        ({"variables": {"": {"type": "string"}}}, "variables", ("1 to 200",)),
    ],
)
async def test_a_template_that_cannot_be_read_is_refused(
    house: HttpHouse, changed: dict[str, object], field: str, words: tuple[str, ...]
) -> None:
    """422 names the part, the line and what is wrong, and nothing is kept."""
    await house.open_http()
    _, token = await house.make_key("shop")
    said = await house.ask("POST", TEMPLATES, token, WELCOME | changed)
    assert said.status == 422
    assert [error["field"] for error in said.json["errors"]] == [field]
    assert all(word in said.json["errors"][0]["message"] for word in words)
    assert await house.server.spool.records.count(KIND, "shop") == 0


@pytest.mark.parametrize(
    ("body", "field", "words"),
    [
        ({"name": "a", "text": "x"}, "subject", "is missing"),
        ({"name": "a", "subject": "s", "text": "x", "bogus": 1}, "bogus", "is not a field"),
        ({"name": "a", "subject": 3, "text": "x"}, "subject", "str"),
        ([], "", "Expected `object`"),
        (None, "", "the content is missing"),
    ],
)
async def test_what_is_no_template_names_the_field(house: HttpHouse, body: object, field: str, words: str) -> None:
    """A field that is missing, not known, or of another type is named, and so is content that is none at all."""
    await house.open_http()
    _, token = await house.make_key("shop")
    said = await house.ask("POST", TEMPLATES, token, body)
    assert said.status == 422
    (error,) = said.json["errors"]
    assert error["field"] == field and words in error["message"]


async def test_a_preview_fills_in_and_sends_nothing(house: HttpHouse) -> None:
    """HTML is escaped; what is missing or of another type is 422 by its name; a change is seen at once."""
    await house.open_http()
    _, token = await house.make_key("shop")
    made = await house.ask("POST", TEMPLATES, token, WELCOME)
    place = f"{TEMPLATES}/{made.json['id']}"
    filled = await house.ask(
        "POST", f"{place}/preview", token, {"variables": {"name": "<Ann>", "plan": {"title": "A&B"}}}
    )
    assert filled.json == {
        "subject": "Welcome, <Ann>",
        "html": "<p>Hello <b>&lt;Ann&gt;</b>, A&amp;B</p>",
        "text": "Hello <Ann>\n",
    }
    wrong = await house.ask("POST", f"{place}/preview", token, {"variables": {"plan": {"title": 3}}})
    assert wrong.status == 422
    assert [error["field"] for error in wrong.json["errors"]] == ["variables.name", "variables.plan.title"]
    await house.ask("PUT", place, token, WELCOME | {"subject": "Bye, {{name}}"})
    again = await house.ask("POST", f"{place}/preview", token, {"variables": {"name": "Ann"}})
    assert again.json["subject"] == "Bye, Ann"
    assert house.sink.counts.messages == 0


async def test_a_message_can_name_a_template(house: HttpHouse) -> None:
    """Subject and bodies come from it; the template of another tenant is none."""
    await house.open_http()
    _, token = await house.make_key("shop")
    _, other = await house.make_key("other")
    made = await house.ask("POST", TEMPLATES, token, WELCOME)
    letter = {"from": "shop@example.org", "to": "ann@example.net", "template_id": made.json["id"]}
    sent = await house.ask("POST", MESSAGES, token, letter | {"variables": {"name": "Ann"}})
    assert sent.status == 202, sent.body
    await house.empty()
    shown = await house.ask("GET", f"{MESSAGES}/{sent.json['id']}", token)
    assert shown.json["subject"] == "Welcome, Ann"
    assert house.sink.counts.messages == 1
    theirs = await house.ask("POST", MESSAGES, other, letter | {"variables": {"name": "Ann"}})
    assert theirs.status == 422 and theirs.json["errors"][0]["field"] == "template_id"


@pytest.mark.parametrize(
    ("changed", "field", "words"),
    [
        ({}, "variables.name", ("missing", "ann@example.net", "and 1 more")),
        ({"variables": {"name": 5}}, "variables.name", ("a number", "a string is needed", "ann@example.net")),
        ({"variables": {"name": "Ann"}, "subject": "x"}, "subject", ("from the template",)),
        ({"variables": {"name": "Ann"}, "template_id": ""}, "variables", ("template_id",)),
        ({"variables": {"name": "A" * 999}}, "subject", ("998",)),
    ],
)
async def test_what_is_wrong_with_variables_names_recipient_and_variable(
    house: HttpHouse, changed: dict[str, object], field: str, words: tuple[str, ...]
) -> None:
    """A message that a template cannot make is 422, and nothing is sent."""
    await house.open_http()
    _, token = await house.make_key("shop")
    made = await house.ask("POST", TEMPLATES, token, WELCOME)
    letter = {"from": "shop@example.org", "to": ["ann@example.net", "bob@example.net"], "template_id": made.json["id"]}
    said = await house.ask("POST", MESSAGES, token, letter | changed)
    assert said.status == 422
    assert said.json["errors"][0]["field"] == field
    assert all(word in said.json["errors"][0]["message"] for word in words), said.body
    assert (await house.server.spool.count())["total"] == 0


async def test_each_tenant_has_its_own(house: HttpHouse) -> None:
    """Another tenant can neither see, change, fill in nor remove a template; each needs the scope for it."""
    await house.open_http()
    _, token = await house.make_key("shop")
    _, other = await house.make_key("other")
    _, reader = await house.make_key("shop", Scope.READ)
    made = await house.ask("POST", TEMPLATES, token, WELCOME)
    place = f"{TEMPLATES}/{made.json['id']}"
    for method, path, body in (
        ("GET", place, None),
        ("PUT", place, WELCOME),
        ("DELETE", place, None),
        ("POST", f"{place}/preview", {}),
    ):
        assert (await house.ask(method, path, other, body)).status == 404, method
    assert (await house.ask("GET", TEMPLATES, other)).json["templates"] == []
    assert (await house.ask("GET", place, reader)).status == 200
    assert (await house.ask("DELETE", place, reader)).status == 403
    assert (await house.ask("POST", TEMPLATES, reader, WELCOME)).status == 403


async def test_templates_outlive_a_restart(house: HttpHouse) -> None:
    """They are on disk when they are answered for."""
    await house.open_http()
    _, token = await house.make_key("shop")
    made = await house.ask("POST", TEMPLATES, token, WELCOME)
    await house.close()
    await house.open_http()
    shown = await house.ask("GET", f"{TEMPLATES}/{made.json['id']}", token)
    assert shown.json == made.json


async def test_a_full_disk_is_said(house: HttpHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be written is 503 with a time to come again, and nothing has changed."""
    await house.open_http()
    _, token = await house.make_key("shop")
    made = await house.ask("POST", TEMPLATES, token, WELCOME)
    place = f"{TEMPLATES}/{made.json['id']}"
    with monkeypatch.context() as patched:
        patched.setattr(house.server.spool.records, "write", lambda kept, removed, done: done(Fault.DISK_FULL))
        for method, path, body in (
            ("POST", TEMPLATES, WELCOME | {"name": "x"}),
            ("PUT", place, WELCOME),
            ("DELETE", place, None),
        ):
            said = await house.ask(method, path, token, body)
            assert (said.status, "Retry-After" in said.headers) == (503, True), method
    assert (await house.ask("GET", place, token)).json == made.json
