"""Batches over HTTP: accepted as a whole, sent to everybody once, counted, suspended, resumed, cancelled."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
from http_house import HttpHouse, Said
from relay_house import SLOW

from smarthost.compose.letter import Letter
from smarthost.compose.mime import Composed, Stamp
from smarthost.config_types import DkimKey
from smarthost.crypto.dkim_keys import Algorithm, generate_key
from smarthost.mail.event import Event, Kind
from smarthost.mail.key import Scope
from smarthost.mail.message import parse_id
from smarthost.mail.record import Record
from smarthost.policy.suppression import SuppressionRules
from smarthost.reception.batches import expanding
from smarthost.reception.batches.counting import LOG
from smarthost.reception.batches.record import CURSOR, DRAFT, PART
from smarthost.sink.desk import SinkSettings
from smarthost.sink.server import Sink
from smarthost.spool.store import Fault, Group

BATCHES = "/api/v1/batches"
TEMPLATE = {
    "id": "welcome",
    "name": "Welcome",
    "subject": "Hello {{name}}",
    "text": "Dear {{name}}, your code is {{code}}.",
    "html": "<p>Dear {{name}}</p>",
    "created": 1.0,
    "updated": 1.0,
    "variables": {"name": {"type": "string", "required": True}, "code": {"type": "integer", "required": False}},
}


async def keep_template(house: HttpHouse, tenant: str = "shop", **changes: object) -> None:
    """Keep a template for a tenant."""
    kept = TEMPLATE | changes
    written: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    record = Record("template", tenant, str(kept["id"]), json.dumps(kept).encode())
    house.server.spool.records.write([record], done=written.set_result)
    assert await written is None


def batch_of(count: int, **more: object) -> dict[str, object]:
    """Give a batch for some recipients."""
    recipients = [{"email": f"r{n}@example.net", "variables": {"name": f"Nr {n}", "code": n}} for n in range(count)]
    return {"template_id": "welcome", "recipients": recipients, "from": "shop@example.org"} | more


async def until(house: HttpHouse, token: str, name: str, fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Wait until a batch is shown as it shall be."""
    shown: dict[str, Any] = {}
    for _ in range(1000):
        shown = (await house.ask("GET", f"{BATCHES}/{name}", token)).json
        if fits(shown):
            return shown
        await asyncio.sleep(0.02)
    raise AssertionError(shown)


def is_(status: str) -> Callable[[dict[str, Any]], bool]:
    """Say whether a batch has a status."""
    return lambda shown: bool(shown["status"] == status)


def recipients(house: HttpHouse) -> list[str]:
    """Give who was sent to, as often as it was."""
    return [each.recipients[0] for each in house.sink.messages]


async def test_a_batch_from_beginning_to_end(house: HttpHouse) -> None:
    """Everybody is sent a message of its own, once; the events tell each, and the summary adds up."""
    house.sink = Sink(SinkSettings(keep=1000))
    await house.open_http()
    _, token = await house.make_key("shop")
    await keep_template(house)
    made = await house.ask("POST", BATCHES, token, batch_of(250, metadata={"campaign": 7}, tag="june", priority="low"))
    assert made.status == 201, made.body
    assert made.json["status"] == "SENDING" and made.json["recipients"] == 250
    assert datetime.fromisoformat(made.json["createdAt"]).tzinfo is not None
    name = made.json["id"]
    shown = await until(house, token, name, is_("COMPLETED"))
    assert shown["counts"] == {
        "total": 250,
        "pending": 0,
        "sent": 250,
        "failed": 0,
        "bounced": 0,
        "complained": 0,
        "suppressed": 0,
        "cancelled": 0,
    }
    assert (shown["metadata"], shown["tag"], shown["template"]) == ({"campaign": 7}, "june", "Welcome")
    assert sorted(recipients(house)) == sorted(f"r{n}@example.net" for n in range(250))
    summary = (await house.ask("GET", f"{BATCHES}/{name}/summary", token)).json
    assert summary["progress"] == 1.0 and summary["events"]["SENT"] == 250
    seen = []
    for offset in (0, 70, 140, 210, 280):
        page = (await house.ask("GET", f"{BATCHES}/{name}/events?limit=70&offset={offset}", token)).json
        assert page["total"] == 250 and len(page["events"]) == max(min(70, 250 - offset), 0)
        seen += page["events"]
    assert sorted(each["index"] for each in seen) == list(range(250))
    assert {each["type"] for each in seen} == {"SENT"} and all(each["message_id"] for each in seen)
    place = f"/api/v1/messages/{seen[0]['message_id']}"
    message = (await house.ask("GET", place, token)).json
    assert (message["status"], message["recipients"][0]["address"]) == ("relayed", seen[0]["recipient"])
    _, other = await house.make_key("other")
    assert (await house.ask("GET", place, other)).status == 404
    listed = (await house.ask("GET", BATCHES, token)).json
    assert [each["id"] for each in listed["batches"]] == [name] and listed["next_cursor"] is None


async def test_what_a_recipient_gets(house: HttpHouse) -> None:
    """The message is filled in, has one recipient, and what the batch says for all."""
    await house.open_http()
    _, token = await house.make_key("shop")
    await keep_template(house)
    asked = batch_of(1, reply_to="help@example.org", headers={"List-Id": "<june.example.org>"})
    asked["recipients"][0]["email"] = "Ada <ada@example.net>"  # type: ignore[index]
    name = (await house.ask("POST", BATCHES, token, asked)).json["id"]
    await until(house, token, name, is_("COMPLETED"))
    message = message_from_bytes(house.sink.messages[0].content, policy=policy.default)
    assert (message["To"], message["Subject"]) == ("Ada <ada@example.net>", "Hello Nr 0")
    assert (message["From"], message["Reply-To"]) == ("shop@example.org", "help@example.org")
    assert message["List-Id"] == "<june.example.org>"
    body = message.get_body(("plain",))
    assert body is not None and body.get_content().strip() == "Dear Nr 0, your code is 0."


async def test_a_batch_without_a_sender_is_the_postmasters(house: HttpHouse) -> None:
    """The smallest form, with the recipients before the template, is sent from the relay's postmaster."""
    await house.open_http()
    _, token = await house.make_key("shop")
    await keep_template(house)
    body = b'{"recipients": [{"variables": {"name": "A"}, "email": "a@example.net"}], "template_id": "welcome"}'
    made = await house.ask("POST", BATCHES, token, body, {"Content-Type": "application/json"})
    assert made.status == 201, made.body
    await until(house, token, made.json["id"], is_("COMPLETED"))
    message = message_from_bytes(house.sink.messages[0].content, policy=policy.default)
    assert message["From"] == "postmaster@example.org"


async def test_a_missing_variable_stops_all_of_it(house: HttpHouse) -> None:
    """It is a 422 that names recipient and variable, nothing is sent, and nothing stays."""
    await house.open_http()
    _, token = await house.make_key("shop")
    await keep_template(house)
    asked = batch_of(150)
    del asked["recipients"][120]["variables"]["name"]  # type: ignore[index]
    asked["recipients"][3]["variables"]["code"] = "x"  # type: ignore[index]
    said = await house.ask("POST", BATCHES, token, asked)
    assert said.status == 422
    assert [each["field"] for each in said.json["errors"]] == [
        "recipients[3].variables.code",
        "recipients[120].variables.name",
    ]
    assert 'r120@example.net: the variable "name" is missing' in said.json["errors"][1]["message"]
    assert (await house.ask("GET", BATCHES, token)).json["batches"] == []
    for kind in (PART, DRAFT):
        while await house.server.spool.records.all(kind):
            await asyncio.sleep(0.02)
    assert not house.sink.messages


async def test_what_is_wrong_with_a_batch(house: HttpHouse) -> None:
    """Each fault has its status and its field."""
    await house.open_http()
    _, token = await house.make_key("shop")
    await keep_template(house)
    one = {"email": "a@example.net", "variables": {"name": "A"}}

    async def ask(body: object) -> Said:
        return await house.ask("POST", BATCHES, token, body, {"Content-Type": "application/json"})

    def fields(said: Said) -> list[str]:
        return [each["field"] for each in said.json["errors"]]

    assert (await ask(b'{"template_id": ')).status == 400
    assert (await ask(b"[]")).status == 400
    assert (await house.ask("POST", BATCHES, token, b"x", {"Content-Type": "text/plain"})).status == 415
    said = await ask({"template_id": "none", "recipients": [one]})
    assert (said.status, fields(said)) == (422, ["template_id"])
    said = await ask({"template_id": "welcome", "recipients": []})
    assert (said.status, fields(said)) == (422, ["recipients"])
    said = await ask({"template_id": "welcome", "recipients": [one, {"email": 3}, {"mail": "x"}, 7]})
    assert said.status == 422
    assert fields(said)[0] == "recipients[1].email" and len(fields(said)) == 3
    said = await ask({"template_id": "welcome", "recipients": [one], "colour": 1, "from": "nobody", "priority": 9})
    assert said.status == 422 and "colour" in fields(said) and "priority" in fields(said)
    said = await ask({"template_id": "welcome", "recipients": [one], "from": "nobody"})
    assert (said.status, fields(said)) == (422, ["from"])
    said = await ask({"template_id": "welcome", "recipients": [{"email": "nobody", "variables": {"name": "A"}}]})
    assert (said.status, fields(said)) == (422, ["recipients"])
    assert (await ask({"template_id": "welcome", "recipients": [one], "route": "r"})).status == 403
    said = await ask({"template_id": "welcome", "recipients": [one], "account_id": "a"})
    assert (said.status, fields(said)) == (422, ["account_id"])


async def test_bad_and_suppressed_recipients_do_not_keep_the_others(house: HttpHouse) -> None:
    """Who has no address fails, who is suppressed is told as such, and all others are sent to."""
    await house.open_http(suppression=SuppressionRules(enabled=True))
    _, token = await house.make_key("shop")
    await keep_template(house)
    listed = house.server.operations.suppression
    assert listed is not None
    house.server.relay.suppression.note(("shop", "r1@example.net"), "no such user")
    asked = batch_of(4)
    asked["recipients"][2]["email"] = "nowhere"  # type: ignore[index]
    made = await house.ask("POST", BATCHES, token, asked)
    assert made.status == 201 and made.json["invalid"] == 1
    assert made.json["rejected"][0]["email"] == "nowhere"
    shown = await until(house, token, made.json["id"], is_("COMPLETED"))
    assert (shown["counts"]["sent"], shown["counts"]["failed"], shown["counts"]["suppressed"]) == (2, 1, 1)
    assert sorted(recipients(house)) == ["r0@example.net", "r3@example.net"]
    events = (await house.ask("GET", f"{BATCHES}/{made.json['id']}/events", token)).json["events"]
    assert {(each["index"], each["type"]) for each in events} == {
        (0, "SENT"),
        (1, "SUPPRESSED"),
        (2, "FAILED"),
        (3, "SENT"),
    }


async def test_failures_bounces_and_complaints(house: HttpHouse) -> None:
    """What an upstream refuses has failed; what is said later of a message is told, too, also when all is over."""
    await house.open_http()
    _, token = await house.make_key("shop")
    await keep_template(house)
    asked = batch_of(3)
    asked["recipients"][1]["email"] = "550@example.net"  # type: ignore[index]
    name = (await house.ask("POST", BATCHES, token, asked)).json["id"]
    shown = await until(house, token, name, is_("COMPLETED"))
    assert (shown["counts"]["sent"], shown["counts"]["failed"]) == (2, 1)
    events = (await house.ask("GET", f"{BATCHES}/{name}/events", token)).json["events"]
    failed = next(each for each in events if each["type"] == "FAILED")
    assert failed["code"] == 550 and failed["recipient"] == "550@example.net"
    number = parse_id(next(each["message_id"] for each in events if each["index"] == 0))
    assert number is not None
    past = await house.server.spool.events_of(number)
    for kind in (Kind.BOUNCED, Kind.COMPLAINED):
        event = Event(past[0].time, kind, number, past[0].envid, recipient="r0@example.net", user="shop")
        house.server.spool.record((event,))
    shown = await until(house, token, name, lambda shown: bool(shown["counts"]["complained"]))
    assert (shown["counts"]["bounced"], shown["status"]) == (1, "COMPLETED")


async def test_what_cannot_be_made_fails_alone(house: HttpHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """A template beyond its bounds, and a fault of ours, cost the recipient its message and nobody else."""
    await house.open_http()
    _, token = await house.make_key("shop")
    await keep_template(
        house, text="{{#each list}}{{#each ../list}}{{#each ../../list}}{{/each}}{{/each}}{{/each}}Hello"
    )
    asked = batch_of(4)
    asked["recipients"][1]["variables"]["list"] = list(range(300))  # type: ignore[index]
    make = expanding.compose

    def compose(letter: Letter, stamp: Stamp) -> Composed:
        if letter.recipients[0].address == "r2@example.net":
            raise RuntimeError
        return make(letter, stamp)

    monkeypatch.setattr(expanding, "compose", compose)
    name = (await house.ask("POST", BATCHES, token, asked)).json["id"]
    await until(house, token, name, is_("COMPLETED"))
    events = (await house.ask("GET", f"{BATCHES}/{name}/events", token)).json["events"]
    told = {each["index"]: (each["type"], each.get("reason", "")) for each in events}
    assert told[0][0] == told[3][0] == "SENT"
    assert told[1] == ("FAILED", "text: the template takes too many steps: its loops go round too often")
    assert told[2] == ("FAILED", "the message could not be made")


async def test_the_same_key_gives_the_same_batch(house: HttpHouse) -> None:
    """With an Idempotency-Key a batch is made once; with another content it is 409."""
    await house.open_http()
    _, token = await house.make_key("shop")
    await keep_template(house)
    headers = {"Idempotency-Key": "june"}
    first = await house.ask("POST", BATCHES, token, batch_of(3), headers)
    again = await house.ask("POST", BATCHES, token, batch_of(3), headers)
    assert (first.status, again.status) == (201, 201) and first.json == again.json
    assert again.headers["idempotent-replayed"] == "true"
    assert (await house.ask("POST", BATCHES, token, batch_of(4), headers)).status == 409
    await until(house, token, first.json["id"], is_("COMPLETED"))
    assert len(house.sink.messages) == 3


async def test_a_scheduled_batch_waits_and_is_cancelled(house: HttpHouse) -> None:
    """Before its time nothing of it is in the queue; cancelled, nothing ever is."""
    await house.open_http()
    _, token = await house.make_key("shop")
    await keep_template(house)
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    made = await house.ask("POST", BATCHES, token, batch_of(5, send_at=later))
    assert made.json["status"] == "SCHEDULED"
    assert (await house.server.spool.count())["total"] == 0
    place = f"{BATCHES}/{made.json['id']}"
    assert (await house.ask("POST", f"{place}/cancel", token)).json["status"] == "CANCELLED"
    shown = (await house.ask("GET", place, token)).json
    assert (shown["counts"]["cancelled"], shown["counts"]["pending"]) == (5, 0)
    assert (await house.ask("POST", f"{place}/cancel", token)).status == 409
    assert (await house.ask("POST", f"{place}/resume", token)).status == 409
    while await house.server.spool.records.all(PART):
        await asyncio.sleep(0.02)


async def test_suspend_resume_and_cancel_reach_the_queue(house: HttpHouse) -> None:
    """What waits in the queue is held, let go, and deleted with its batch, and nobody else's mail is."""
    await house.open_http(retry=SLOW)
    _, token = await house.make_key("shop")
    await keep_template(house)
    asked = batch_of(120)
    for n, each in enumerate(asked["recipients"]):  # type: ignore[arg-type, var-annotated]
        each["email"] = f"451.{n}@example.net"
    name = (await house.ask("POST", BATCHES, token, asked)).json["id"]
    place = f"{BATCHES}/{name}"
    await house.until(lambda: sum(event.event is Kind.DELAYED for event in house.events) == 120)
    assert (await house.ask("POST", f"{place}/suspend", token)).json["status"] == "SUSPENDED"
    counts = await house.server.spool.count()
    assert (counts["parked"], counts["active"]) == (120, 0)
    assert (await house.ask("POST", f"{place}/suspend", token)).status == 409
    assert (await house.ask("POST", f"{place}/resume", token)).json["status"] == "SENDING"
    await house.until(lambda: sum(event.event is Kind.DELAYED for event in house.events) == 240)
    assert (await house.ask("POST", f"{place}/cancel", token)).json["status"] == "CANCELLED"
    await house.empty()
    shown = await until(house, token, name, lambda shown: bool(shown["counts"]["cancelled"] == 120))
    assert (shown["counts"]["sent"], shown["counts"]["pending"]) == (0, 0)


async def test_a_batch_keeps_to_the_rate_of_its_key(house: HttpHouse) -> None:
    """No more goes than the rate of the key allows; the rest waits for its time, and goes with a higher rate."""
    await house.open_http()
    key, token = await house.make_key("shop", rate=("130/h",))
    await keep_template(house)
    asked = batch_of(250)
    asked["recipients"][7]["email"] = "nowhere"  # type: ignore[index]
    name = (await house.ask("POST", BATCHES, token, asked)).json["id"]
    await until(house, token, name, lambda shown: bool(shown["counts"]["sent"] == 130))
    _, other = await house.make_key("other")
    await keep_template(house, "other")
    second = (await house.ask("POST", BATCHES, other, batch_of(150))).json["id"]
    await until(house, other, second, is_("COMPLETED"))
    shown = (await house.ask("GET", f"{BATCHES}/{name}", token)).json
    assert (shown["status"], shown["counts"]["sent"], shown["counts"]["failed"]) == ("SENDING", 130, 1)
    assert house.server.relay.credentials.wait("shop", key.id) > 0.0
    await house.close()
    house.sink = Sink(SinkSettings(keep=1000))
    await house.open_http()
    tally = await house.server.batches.find("shop", name)
    assert tally is not None
    tally.batch.key = ""
    await house.server.batches.suspend(tally)
    await house.server.batches.resume(tally)
    shown = await until(house, token, name, is_("COMPLETED"))
    assert shown["counts"]["sent"] == 249
    assert sorted(recipients(house)) == sorted(f"r{n}@example.net" for n in range(131, 250))


async def test_a_batch_goes_on_after_a_restart(house: HttpHouse) -> None:
    """What is suspended stays so over a restart, and is sent when it is resumed; what was counted stands."""
    await house.open_http()
    _, token = await house.make_key("shop")
    await keep_template(house)
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    name = (await house.ask("POST", BATCHES, token, batch_of(5, send_at=later))).json["id"]
    assert (await house.ask("POST", f"{BATCHES}/{name}/suspend", token)).json["status"] == "SUSPENDED"
    other = (await house.ask("POST", BATCHES, token, batch_of(7))).json["id"]
    await until(house, token, other, is_("COMPLETED"))
    await house.server.stop()
    await house.open_http()
    assert (await house.ask("GET", f"{BATCHES}/{other}", token)).json["counts"]["sent"] == 7
    assert (await house.ask("GET", f"{BATCHES}/{name}", token)).json["status"] == "SUSPENDED"
    tally = await house.server.batches.find("shop", name)
    assert tally is not None
    tally.batch.form = type(tally.batch.form)(template_id="welcome", author="shop@example.org")
    assert (await house.ask("POST", f"{BATCHES}/{name}/resume", token)).json["status"] == "SENDING"
    await until(house, token, name, is_("COMPLETED"))
    assert len(house.sink.messages) == 12


async def test_batches_are_a_tenants_own(house: HttpHouse) -> None:
    """Neither a batch nor a template of another tenant can be used, and each route wants its scope."""
    await house.open_http()
    _, mine = await house.make_key("shop")
    _, other = await house.make_key("other")
    _, reader = await house.make_key("shop", Scope.READ)
    _, sender = await house.make_key("shop", Scope.SEND)
    await keep_template(house)
    name = (await house.ask("POST", BATCHES, mine, batch_of(1))).json["id"]
    for tail in ("", "/events", "/summary"):
        assert (await house.ask("GET", f"{BATCHES}/{name}{tail}", other)).status == 404
        assert (await house.ask("GET", f"{BATCHES}/{name}{tail}", sender)).status == 403
        assert (await house.ask("GET", f"{BATCHES}/{name}{tail}", reader)).status == 200
    for tail in ("/suspend", "/resume", "/cancel"):
        assert (await house.ask("POST", f"{BATCHES}/{name}{tail}", other)).status == 404
        assert (await house.ask("POST", f"{BATCHES}/{name}{tail}", reader)).status == 403
    assert (await house.ask("GET", BATCHES, other)).json["batches"] == []
    assert (await house.ask("POST", BATCHES, other, batch_of(1))).status == 422
    assert (await house.ask("POST", BATCHES, reader, batch_of(1))).status == 403
    assert (await house.ask("POST", BATCHES, "", batch_of(1))).status == 401


async def test_a_batch_is_signed(house: HttpHouse, tmp_path: Path) -> None:
    """Messages that are signed beside the loop, and come back in any order, go with their part all the same."""
    keys = []
    for algorithm in Algorithm:
        path = tmp_path / f"{algorithm}.pem"
        generate_key(algorithm, path)
        keys.append(DkimKey("example.org", algorithm[:3], path))
    house.sink = Sink(SinkSettings(keep=1000))
    await house.open_http(dkim=tuple(keys))
    _, token = await house.make_key("shop")
    await keep_template(house)
    name = (await house.ask("POST", BATCHES, token, batch_of(230))).json["id"]
    await until(house, token, name, is_("COMPLETED"))
    assert sorted(recipients(house)) == sorted(f"r{n}@example.net" for n in range(230))
    assert {each.content.lower().count(b"dkim-signature:") for each in house.sink.messages} == {2}


async def test_suspend_and_cancel_while_it_is_sent(house: HttpHouse) -> None:
    """Suspended in the middle nothing more goes; resumed it goes on; cancelled what has not gone never does."""
    house.sink = Sink(SinkSettings(keep=5000))
    await house.open_http()
    _, token = await house.make_key("shop")
    await keep_template(house)
    name = (await house.ask("POST", BATCHES, token, batch_of(1500))).json["id"]
    place = f"{BATCHES}/{name}"
    await house.until(lambda: len(house.sink.messages) > 20)
    assert (await house.ask("POST", f"{place}/suspend", token)).json["status"] == "SUSPENDED"
    count = (await house.server.spool.count())["active"]
    assert count == 0
    gone = len(house.sink.messages)
    assert gone < 1500
    assert (await house.ask("POST", f"{place}/resume", token)).json["status"] == "SENDING"
    await house.until(lambda: len(house.sink.messages) > gone + 20)
    assert (await house.ask("POST", f"{place}/cancel", token)).json["status"] == "CANCELLED"
    await house.empty()
    gone = len(house.sink.messages)
    shown = await until(house, token, name, lambda shown: bool(shown["counts"]["sent"] == gone))
    assert shown["counts"]["cancelled"] == 1500 - gone
    assert len(set(recipients(house))) == gone


async def test_a_full_disk_refuses_a_batch(house: HttpHouse) -> None:
    """Without space it is 503, with a time to come again."""
    await house.open_http()
    _, token = await house.make_key("shop")
    await keep_template(house)
    house.server.relay.has_space = False
    said = await house.ask("POST", BATCHES, token, batch_of(1))
    assert said.status == 503 and said.headers["retry-after"]


async def test_a_batch_that_could_not_be_written_takes_nothing_from_the_next(
    house: HttpHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From where a tenant's events are counted comes with its first batch that is written, not with one that is not."""
    await house.open_http()
    _, token = await house.make_key("shop")
    await keep_template(house)
    spool, accept = house.server.spool, house.server.spool.accept_group

    def refuse(group: Group, done: Callable[[Fault | None], None]) -> None:
        if group.removed:
            done(Fault.DISK_FULL)
        else:
            accept(group, done)

    monkeypatch.setattr(spool, "accept_group", refuse)
    assert (await house.ask("POST", BATCHES, token, batch_of(1))).status == 503
    monkeypatch.setattr(spool, "accept_group", accept)
    cursor = (CURSOR, "shop", LOG)
    assert await spool.records.find([cursor]) == {}
    assert (await house.ask("POST", BATCHES, token, batch_of(1))).status == 201
    assert await spool.records.find([cursor]) != {}
