"""Suppressions over HTTP: put on the list one or many at a time, listed, taken off, each tenant's for itself."""

import asyncio
import csv
import hashlib
import io
from datetime import UTC, datetime, timedelta

import pytest
from http_house import HttpHouse

from smarthost.cli.suppress_file import read_list
from smarthost.mail.event import Kind
from smarthost.mail.key import Scope
from smarthost.mail.message import parse_id
from smarthost.policy.http_terms import HttpTerms
from smarthost.policy.suppression import SuppressionPoint, SuppressionRules

LIST, MESSAGES = "/api/v1/admin/suppressions", "/api/v1/messages"
ON = SuppressionRules(enabled=True)
OPERATOR = "sho_operator"
TERMS = HttpTerms(tokens=(hashlib.sha256(OPERATOR.encode()).hexdigest(),))


def letter(*recipients: str) -> dict[str, object]:
    """A message to some."""
    return {"from": "shop@example.org", "to": list(recipients), "subject": "x", "text": "hello"}


async def emails(house: HttpHouse, token: str, query: str = "") -> list[str]:
    """Give the addresses of one page."""
    return [each["email"] for each in (await house.ask("GET", LIST + query, token)).json["suppressions"]]


async def suppressed(house: HttpHouse, token: str, count: int) -> list[str]:
    """Wait for so many events that tell of a suppression; gives their recipients."""
    async with asyncio.timeout(15):
        while True:
            log = (await house.ask("GET", "/api/v1/events", token)).json["events"]
            found = [each["recipient"] for each in log if each["event"] == "suppressed"]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("enabled", [False, True])
async def test_nothing_is_sent_to_an_address_that_was_put_on_the_list(house: HttpHouse, enabled: bool) -> None:
    """It holds at once, also while failures are not counted; the events say so; off the list it is sent to again."""
    await house.open_http(suppression=SuppressionRules(enabled=enabled))
    _, token = await house.make_key("shop")
    put = await house.ask("POST", LIST, token, {"email": "<Ann@Example.net>", "reason": "unsubscribed"})
    assert put.status == 201 and (put.json["added"], put.json["known"]) == (1, 0)
    (row,) = put.json["suppressions"]
    assert {
        "email": "ann@example.net",
        "tenant": "shop",
        "source": "manual",
        "reason": "unsubscribed",
    }.items() <= row.items()
    sent = await house.ask("POST", MESSAGES, token, letter("ANN@example.net", "bob@example.net"))
    assert sent.status == 202
    assert {each["address"]: each["result"] for each in sent.json["recipients"]} == {
        "ANN@example.net": "suppressed",
        "bob@example.net": "accepted",
    }
    await house.empty()
    shown = (await house.ask("GET", f"{MESSAGES}/{sent.json['id']}", token)).json
    assert {each["address"]: each["status"] for each in shown["recipients"]} == {
        "ANN@example.net": "suppressed",
        "bob@example.net": "relayed",
    }
    (told,) = [
        event for event in house.events if event.message == parse_id(sent.json["id"]) and event.event is Kind.SUPPRESSED
    ]
    assert (told.recipient, told.status, told.user) == ("ANN@example.net", "5.7.1", "shop")
    assert [each["event"] for each in shown["events"]].count("suppressed") == 1
    alone = await house.ask("POST", MESSAGES, token, letter("ann@example.net"))
    assert alone.status == 422 and "ann@example.net" in alone.json["errors"][0]["message"]
    assert await suppressed(house, token, 3) == ["ann@example.net", "ANN@example.net", "ann@example.net"]
    assert (await house.ask("DELETE", f"{LIST}/ANN%40example.net", token)).status == 204
    assert (await house.ask("DELETE", f"{LIST}/ann@example.net", token)).status == 404
    assert (await house.ask("POST", MESSAGES, token, letter("ann@example.net"))).status == 202


async def test_a_dry_run_tells_nobody(house: HttpHouse) -> None:
    """It says that the recipient is suppressed, and leaves no event."""
    await house.open_http()
    _, token = await house.make_key("shop")
    await house.ask("POST", LIST, token, {"email": "ann@example.net"})
    seen = len(house.events)
    said = await house.ask("POST", MESSAGES, token, letter("ann@example.net", "bob@example.net") | {"dry_run": True})
    assert said.json["recipients"][0]["result"] == "suppressed" and len(house.events) == seen


async def test_what_people_put_on_the_list_holds_after_a_restart(house: HttpHouse) -> None:
    """Also where failures are not counted; on send, the recipient fails instead of being refused."""
    await house.open_http()
    _, token = await house.make_key("shop")
    await house.ask("POST", LIST, token, {"email": "ann@example.net"})
    await house.close()
    await house.open_http()
    assert (await house.ask("POST", MESSAGES, token, letter("ann@example.net"))).status == 422
    await house.close()
    await house.open_http(suppression=SuppressionRules(at=SuppressionPoint.SEND))
    sent = await house.ask("POST", MESSAGES, token, letter("ann@example.net"))
    assert sent.status == 202
    await house.until(lambda: Kind.FAILED in house.kinds(parse_id(sent.json["id"]) or 0))
    assert house.sink.counts.messages == 0


async def test_while_disabled_failures_put_nobody_on_the_list(house: HttpHouse) -> None:
    """A person's word there makes nothing else count, neither refusals nor bounces."""
    await house.open_http()
    _, token = await house.make_key("shop")
    await house.ask("POST", LIST, token, {"email": "ann@example.net"})
    sent = await house.ask("POST", MESSAGES, token, letter("550@example.net"))
    await house.until(lambda: Kind.FAILED in house.kinds(parse_id(sent.json["id"]) or 0))
    bounce = {"bounce": {"bounceType": "Permanent", "bouncedRecipients": [{"emailAddress": "bob@example.net"}]}}
    assert (await house.ask("POST", "/api/v1/webhooks/ses", token, bounce)).json == {"taken": 1}
    assert await emails(house, token) == ["ann@example.net"]
    assert (await house.ask("POST", MESSAGES, token, letter("550@example.net"))).status == 202


async def test_many_are_put_on_the_list_at_once(house: HttpHouse) -> None:
    """All of them or none; those that were there count as known and have the new reason."""
    await house.open_http()
    _, token = await house.make_key("shop")
    many = [{"email": f"n{number:04}@example.net", "reason": "list"} for number in range(1200)]
    put = await house.ask("POST", LIST, token, {"suppressions": many})
    assert (put.status, put.json["added"], put.json["known"]) == (201, 1200, 0)
    again = await house.ask("POST", LIST, token, {"suppressions": [{"email": "N0007@example.net", "reason": "new"}]})
    assert (again.json["added"], again.json["known"]) == (0, 1)
    assert await emails(house, token, "?reason=NEW") == ["n0007@example.net"]
    wrong = [
        {"email": "good@example.net"},
        {"email": "nobody"},
        {"email": "x@example.net", "expires_at": "2020-01-01T00:00:00Z"},
    ]
    refused = await house.ask("POST", LIST, token, {"suppressions": wrong})
    assert refused.status == 422
    fields = [each["field"] for each in refused.json["errors"]]
    assert fields == ["suppressions[1].email", "suppressions[2].expires_at"]
    assert await emails(house, token, "?email=good@example.net") == []
    for body in ({}, {"email": "a@example.net", "suppressions": many[:1]}, {"email": "nobody"}):
        assert (await house.ask("POST", LIST, token, body)).status == 422


async def test_the_list_has_filters_and_a_cursor(house: HttpHouse) -> None:
    """By address or pattern, words of the reason, source; page by page none is left out and none comes twice."""
    await house.open_http(suppression=ON)
    _, token = await house.make_key("default")
    sent = await house.ask("POST", MESSAGES, token, letter("550@example.net"))
    await house.until(lambda: Kind.SUPPRESSED in house.kinds(parse_id(sent.json["id"]) or 0))
    names = [f"n{number}@example.{'net' if number % 2 else 'org'}" for number in range(8)]
    await house.ask("POST", LIST, token, {"suppressions": [{"email": name, "reason": f"why {name}"} for name in names]})
    assert await emails(house, token, "?source=automatic") == ["550@example.net"]
    assert len(await emails(house, token, "?source=manual")) == 8
    assert await emails(house, token, "?email=N3@example.net") == ["n3@example.net"]
    assert len(await emails(house, token, "?email=*@example.org")) == 4
    assert (await house.ask("GET", f"{LIST}?email=*a*b*c*", token)).status == 422
    found, cursor = [], ""
    while cursor is not None:
        page = (await house.ask("GET", f"{LIST}?limit=2&cursor={cursor}", token)).json
        found += [each["email"] for each in page["suppressions"]]
        cursor = page["next_cursor"]
    assert sorted(found) == sorted([*names, "550@example.net"])
    for bad in ("x", "AAAA", "%00"):
        assert (await house.ask("GET", f"{LIST}?cursor={bad}", token)).status == 400
    assert (await house.ask("DELETE", f"{LIST}/550@example.net", token)).status == 204
    assert (await house.ask("POST", MESSAGES, token, letter("550@example.net"))).status == 202


async def test_the_list_is_exported_as_csv(house: HttpHouse) -> None:
    """With a heading, page by page, of the tenant alone, and as a command imports it."""
    await house.open_http()
    _, token = await house.make_key("shop")
    _, other = await house.make_key("other")
    many = [{"email": f"n{number:03}@example.net", "reason": 'left, "long" ago'} for number in range(600)]
    many.append({"email": "x@example.net", "reason": "=1+2"})
    await house.ask("POST", LIST, token, {"suppressions": many})
    await house.ask("POST", LIST, other, {"email": "secret@example.net"})
    said = await house.ask("GET", f"{LIST}/export", token)
    assert said.headers["Content-Type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(said.body.decode())))
    assert [row["email"] for row in rows] == [each["email"] for each in many]
    assert rows.pop()["reason"] == "'=1+2"
    assert {(row["user"], row["reason"], row["expires"]) for row in rows} == {("shop", 'left, "long" ago', "")}
    wanted = list(read_list(io.StringIO(said.body.decode(), newline=""), None))
    assert (len(wanted) - 1, wanted[0].address, wanted[0].user) == (600, "n000@example.net", "shop")


async def test_a_suppression_may_end(house: HttpHouse) -> None:
    """Until the time that was named, and not in the past."""
    await house.open_http()
    _, token = await house.make_key("shop")
    soon = (datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0)
    put = await house.ask("POST", LIST, token, {"email": "ann@example.net", "expires_at": soon.isoformat()})
    assert datetime.fromisoformat(put.json["suppressions"][0]["expires_at"]) == soon
    past = {"email": "ann@example.net", "expires_at": "2020-01-01T00:00:00Z"}
    assert (await house.ask("POST", LIST, token, past)).status == 422


async def test_each_tenant_has_its_own_and_the_operator_all(house: HttpHouse) -> None:
    """A tenant neither sees nor changes another's, nor what holds for everybody; the operator's holds for all."""
    await house.open_http(http=TERMS)
    tokens = {name: (await house.make_key(name))[1] for name in ("mine", "theirs", "default")}
    _, sender = await house.make_key("mine", Scope.SEND, Scope.READ)
    await house.ask("POST", LIST, tokens["theirs"], {"email": "ann@example.net"})
    put = await house.ask("POST", LIST, OPERATOR, {"email": "all@example.net", "reason": "spam trap"})
    assert put.json["suppressions"][0]["tenant"] is None
    await house.ask("POST", LIST, OPERATOR, {"email": "bob@example.net"}, {"X-Smarthost-Tenant": "mine"})
    assert await emails(house, tokens["mine"]) == ["bob@example.net"]
    assert await emails(house, tokens["theirs"]) == ["ann@example.net"]
    assert await emails(house, tokens["default"]) == ["all@example.net"]
    assert await emails(house, OPERATOR) == ["all@example.net", "bob@example.net", "ann@example.net"]
    for name in ("ann@example.net", "all@example.net"):
        assert (await house.ask("DELETE", f"{LIST}/{name}", tokens["mine"])).status == 404
    assert (await house.ask("POST", MESSAGES, tokens["mine"], letter("ann@example.net"))).status == 202
    for name in ("mine", "theirs"):
        assert (await house.ask("POST", MESSAGES, tokens[name], letter("all@example.net"))).status == 422
    assert (await house.ask("GET", LIST, sender)).status == 403
    assert (await house.ask("POST", LIST, sender, {"email": "x@example.net"})).status == 403
    assert (await house.ask("GET", "/api/v1/events", tokens["default"])).json["events"] == []
    assert (await house.ask("DELETE", f"{LIST}/all@example.net", OPERATOR)).status == 204
    assert (await house.ask("POST", MESSAGES, tokens["mine"], letter("all@example.net"))).status == 202


async def test_whose_message_it_was_hears_of_a_failure_that_suppresses(house: HttpHouse) -> None:
    """Where failures count for everybody, the event is the tenant's whose message failed, and no other's."""
    await house.open_http(suppression=ON)
    _, token = await house.make_key("shop")
    _, default = await house.make_key("default")
    sent = await house.ask("POST", MESSAGES, token, letter("550@example.net"))
    await house.until(lambda: Kind.SUPPRESSED in house.kinds(parse_id(sent.json["id"]) or 0))
    assert await suppressed(house, token, 1) == ["550@example.net"]
    assert await suppressed(house, default, 0) == []
