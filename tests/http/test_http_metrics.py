"""Metrics over HTTP: counted from the event log, by hour, tenant and account, and each tenant's own alone."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from http_house import HttpHouse

from smarthost.mail.event import Event, Kind
from smarthost.mail.key import Scope
from smarthost.policy.account import route_name
from smarthost.policy.http_terms import HttpTerms
from smarthost.policy.suppression import SUPPRESSED_ON_SEND
from smarthost.queue import traffic
from smarthost.queue.traffic import HOUR, MOST_HOURS, Counts, Traffic, sum_of
from smarthost.reception.keys import digest_of
from smarthost.spool.event_log import MemoryEventLog

NOW = 1_800_000_000.0 // HOUR * HOUR + 1800
HELLO = {"from": "shop@example.org", "to": ["250@example.net", "550@example.net"], "subject": "s", "text": "t"}


async def counted(house: HttpHouse, path: str, token: str, recipients: int) -> Mapping[str, Any]:
    """Ask until so many recipients were sent or have failed."""
    async with asyncio.timeout(15):
        while True:
            said = await house.ask("GET", path, token)
            assert said.status == 200, said.body
            if said.json["totals"]["sent"] + said.json["totals"]["failed"] >= recipients:
                return said.json
            await asyncio.sleep(0.05)


async def test_metrics_of_what_was_sent(house: HttpHouse) -> None:
    """What was accepted, sent and failed is in the answer, as totals, by account and in one hour's bucket."""
    await house.open_http()
    _, token = await house.make_key("shop")
    await house.ask("POST", "/api/v1/messages", token, HELLO)
    said = await counted(house, "/api/v1/admin/metrics?hours=3", token, 2)
    totals = {"accepted": 1, "sent": 1, "failed": 1, "deferred": 0, "bounced": 0, "complaints": 0, "suppressed": 0}
    account = {"account": "default", "sent": 1, "failed": 1, "deferred": 0, "suppressed": 0}
    assert (said["hours"], said["complete"], len(said["buckets"])) == (3, True, 3)
    assert said["tenants"] == [{"tenant": "shop", "totals": totals, "accounts": [account]}]
    assert said["totals"] == totals
    assert sum(each["counts"]["sent"] for each in said["buckets"]) == 1
    mine = (await house.ask("GET", "/api/v1/metrics", token)).json
    assert (mine["tenant"], mine["hours"], mine["totals"], mine["accounts"]) == ("shop", 24, totals, [account])


async def test_each_tenant_sees_its_own(house: HttpHouse) -> None:
    """Another tenant's key counts nothing of it, whatever its scopes; the operator's token sees all."""
    await house.open_http(http=HttpTerms(tokens=(digest_of("operator"),)))
    _, theirs = await house.make_key("theirs")
    _, mine = await house.make_key("mine")
    _, sender = await house.make_key("mine", Scope.SEND)
    await house.ask("POST", "/api/v1/messages", theirs, HELLO)
    await counted(house, "/api/v1/metrics", theirs, 2)
    assert (await house.ask("GET", "/api/v1/metrics", mine)).json["totals"]["accepted"] == 0
    said = (await house.ask("GET", "/api/v1/admin/metrics", mine)).json
    assert (said["tenants"], said["totals"]["accepted"]) == ([], 0)
    said = (await house.ask("GET", "/api/v1/admin/metrics", "operator")).json
    accepted = {each["tenant"]: each["totals"]["accepted"] for each in said["tenants"]}
    assert accepted["theirs"] == 1 and "mine" not in accepted  # the default tenant's are reports
    assert (await house.ask("GET", "/api/v1/metrics", sender)).status == 403
    assert (await house.ask("GET", "/api/v1/admin/metrics", sender)).status == 403


@pytest.mark.parametrize("hours", ["0", str(MOST_HOURS + 1), "x"])
async def test_hours_have_bounds(house: HttpHouse, hours: str) -> None:
    """From one hour to a week may be asked for."""
    await house.open_http()
    _, token = await house.make_key("shop")
    assert (await house.ask("GET", f"/api/v1/metrics?hours={hours}", token)).status == 422


def happened(kind: Kind, at: float = NOW, **more: Any) -> Event:
    """Make an event."""
    return Event(time=at, event=kind, message=1, **more)


async def test_what_is_counted_as_what() -> None:
    """Each kind of event has its count, by account; who was failed for being suppressed has one of its own."""
    log = MemoryEventLog()
    log.add(
        [
            happened(Kind.ACCEPTED, user="shop"),
            happened(Kind.RELAYED, user="shop", route=route_name("shop", "main")),
            happened(Kind.DELAYED, user="shop", route="relayhost"),
            happened(Kind.EXPIRED, user="shop", route="relayhost", reply="too late"),
            happened(Kind.FAILED, user="shop", route="relayhost", reply=SUPPRESSED_ON_SEND),
            happened(Kind.BOUNCED, user="shop"),
            happened(Kind.COMPLAINED),
            happened(Kind.HELD, user="shop"),
        ]
    )
    reading = await Traffic(log, lambda: NOW).read(1)
    (hour,) = reading.hours.values()
    assert hour == {
        ("shop", ""): Counts(accepted=1, bounced=1),
        ("shop", "main"): Counts(sent=1),
        ("shop", "default"): Counts(deferred=1, failed=1, suppressed=1),
        ("default", ""): Counts(complaints=1),
    }
    assert sum_of(hour.values()) == Counts(1, 1, 1, 1, 1, 1, 1)


async def test_only_what_is_new_is_read_again() -> None:
    """A second question reads on where the first one stopped; one that goes farther back reads anew."""
    log, asked = MemoryEventLog(), []
    after = log.after

    async def note(cursor: int, limit: int, tenant: str | None = None) -> Any:
        asked.append(cursor)
        return await after(cursor, limit, tenant)

    log.after = note  # type: ignore[method-assign]
    log.add([happened(Kind.RELAYED, NOW - 5 * HOUR)])
    log.add([happened(Kind.RELAYED)])
    reads = Traffic(log, lambda: NOW)
    assert [sum_of(each.values()).sent for each in (await reads.read(2)).hours.values()] == [0, 1]
    assert len(asked) == 1
    await reads.read(2)
    assert len(asked) == 1
    log.add([happened(Kind.RELAYED)])
    assert [sum_of(each.values()).sent for each in (await reads.read(1)).hours.values()] == [2]
    assert asked[1] > asked[0]
    assert [sum_of(each.values()).sent for each in (await reads.read(6)).hours.values()] == [1, 0, 0, 0, 0, 2]


async def test_too_much_at_once_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes longer than a request may is left for the next ones, and said to be missing."""
    monkeypatch.setattr(traffic, "_PAGE", 1)
    log = MemoryEventLog()
    for _ in range(3):
        log.add([happened(Kind.RELAYED)])
    reads = Traffic(log, lambda: NOW)
    monkeypatch.setattr(traffic, "_PATIENCE", 0.0)
    assert not (await reads.read(1)).is_complete
    monkeypatch.setattr(traffic, "_PATIENCE", 30.0)
    reading = await reads.read(1)
    assert reading.is_complete
    assert sum(sum_of(each.values()).sent for each in reading.hours.values()) == 3


async def test_memory_has_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a bound, what a tenant does is counted together, and what was counted long ago is forgotten."""
    monkeypatch.setattr(traffic, "_MOST_KEYS", 2)
    log, now = MemoryEventLog(), [NOW]
    log.add([happened(Kind.RELAYED, user="shop", route=route_name("shop", str(each))) for each in range(5)])
    log.add([happened(Kind.ACCEPTED, user="other")])
    reads = Traffic(log, lambda: now[0])
    reading = await reads.read(1)
    (hour,) = reading.hours.values()
    assert len(hour) <= 3 and sum_of(hour.values()) == Counts(accepted=1, sent=5)
    now[0] += (MOST_HOURS + 2) * HOUR
    await reads.read(1)
    assert not reads._hours
