"""Report push: an application is told each report until it takes it, when it wants to be called, and as it wants."""

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from http_peer import Asked, HttpPeer, answer
from outreach_post import Post, until

from smarthost.crypto.webhook import new_secret, sign
from smarthost.mail.event import Kind
from smarthost.mail.message import Message, format_id
from smarthost.outreach.report_push import ReportPush
from smarthost.policy.client_sync import OutreachTerms, SyncTarget


class Application:
    """Takes reports, and answers what a test says."""

    def __init__(self) -> None:
        """Answer that all is well."""
        self.told: list[dict[str, Any]] = []
        self.calls: list[list[dict[str, Any]]] = []
        self.answer: dict[str, Any] = {"ok": True}
        self.status = 200
        self.peer = HttpPeer(self._answer)

    async def _answer(self, asked: Asked) -> bytes:
        reports = json.loads(asked.body)["delivery_report"]
        self.calls.append(reports)
        self.told += reports
        return answer(self.status, json.dumps(self.answer).encode())

    def of(self, message: Message) -> list[str]:
        """Give what was told of a message: the keys that end in _ts."""
        mine = [each for each in self.told if each["id"] == format_id(message.id)]
        return [key for each in mine for key in each if key.endswith("_ts")]


@pytest.fixture
async def application() -> AsyncIterator[Application]:
    """Give an application that listens."""
    application = Application()
    await application.peer.start()
    yield application
    await application.peer.stop()


@pytest.fixture
async def push(post: Post) -> AsyncIterator[ReportPush]:
    """Give what pushes reports."""
    push = ReportPush(post.spool, post.client.ask, post.clock)
    yield push
    await push.stop()


async def begin(push: ReportPush, application: Application, **how: Any) -> None:
    """Have the reports of all tenants told to an application, and wait for its first call."""
    calls = len(application.calls)
    await push.follow(OutreachTerms(sync=SyncTarget(application.peer.url, **how)))
    await until(lambda: len(application.calls) > calls)


def pass_time(post: Post, push: ReportPush, seconds: float) -> None:
    """Let time pass, and have everybody look at the clock."""
    post.clock.ahead += seconds
    for runner, _ in push._runners.values():
        runner._wake.set()


async def test_reports_have_their_names(post: Post, push: ReportPush, application: Application) -> None:
    """Relayed, delayed and failed are told by the names that applications know, each once; the rest is not told."""
    await begin(push, application)
    first, second = await post.accept("app", "shop")
    await post.tell(first, Kind.DELAYED, Kind.HELD, Kind.RELAYED)
    await post.tell(second, Kind.FAILED)
    await until(lambda: len(application.told) == 3)
    assert application.of(first) == ["deferred_ts", "sent_ts"] and application.of(second) == ["error_ts"]
    (failed,) = [each for each in application.told if "error_ts" in each]
    assert failed["error"] and isinstance(failed["error_ts"], int) and failed["recipient"] == "b@d.example"
    assert application.calls[0] == []


async def test_what_is_not_taken_is_told_again(post: Post, push: ReportPush, application: Application) -> None:
    """Ids in error or not_found are told again at the next turn, after a crash too; the others never are."""
    await begin(push, application)
    good, wrong, unknown = await post.accept("app", "app", "app")
    application.answer = {"error": [format_id(wrong.id)], "not_found": [{"id": format_id(unknown.id)}]}
    for message in (good, wrong, unknown):
        await post.tell(message, Kind.RELAYED)
    await until(lambda: len(application.told) >= 3)
    await asyncio.sleep(0.3)
    assert len(application.told) == 3
    application.answer = {"ok": True}
    await push.stop()
    again = ReportPush(post.spool, post.client.ask, post.clock)
    await begin(again, application)
    await until(lambda: len(application.told) == 5)
    pass_time(post, again, 400)
    await until(lambda: application.calls[-1] == [])
    assert len(application.of(good)) == 1 and len(application.of(wrong)) == len(application.of(unknown)) == 2
    await again.stop()


async def test_an_application_that_fails_loses_nothing(post: Post, push: ReportPush, application: Application) -> None:
    """Reports that met an error of the application come again, soon and then more seldom, in batches."""
    await begin(push, application, batch=10)
    application.status = 500
    messages = await post.accept(*["app"] * 25)
    for message in messages:
        await post.tell(message, Kind.RELAYED)
    await until(lambda: len(application.calls) >= 2)
    application.status, application.told = 200, []
    pass_time(post, push, 60)
    await until(lambda: len(application.told) == 25)
    assert all(len(application.of(message)) == 1 for message in messages)
    assert max(map(len, application.calls)) == 10


async def test_the_application_says_when(post: Post, push: ReportPush, application: Application) -> None:
    """It is called every interval, at once while it has more for us, and not before next_sync_after unless asked."""
    application.answer = {"queued": 3}
    await begin(push, application)
    await until(lambda: len(application.calls) >= 3)
    application.answer = {"queued": 0, "next_sync_after": post.clock() + 5000}
    count = len(application.calls)
    await until(lambda: len(application.calls) > count)
    (message,) = await post.accept("app")
    await post.tell(message, Kind.RELAYED)
    pass_time(post, push, 2000)
    await asyncio.sleep(0.3)
    assert application.told == []
    application.answer = {}
    pass_time(post, push, 3100)
    await until(lambda: application.of(message) == ["sent_ts"])
    count = len(application.calls)
    pass_time(post, push, 200)
    await asyncio.sleep(0.2)
    assert len(application.calls) == count
    pass_time(post, push, 200)
    await until(lambda: len(application.calls) == count + 1)
    assert push.run_now("app")
    await until(lambda: len(application.calls) == count + 2)


async def test_tenants_may_have_targets_of_their_own(post: Post, push: ReportPush, application: Application) -> None:
    """A tenant's own application hears of its mail only, the common one of all the others'."""
    own = Application()
    await own.peer.start()
    targets = {"shop": SyncTarget(own.peer.url)}
    await push.follow(OutreachTerms(sync=SyncTarget(application.peer.url), tenants=targets))
    await until(lambda: application.calls and own.calls)
    mine, shops = await post.accept("app", "shop")
    await post.tell(mine, Kind.RELAYED)
    await post.tell(shops, Kind.RELAYED)
    await until(lambda: application.told and own.told)
    assert (application.of(mine), application.of(shops)) == (["sent_ts"], [])
    assert (own.of(mine), own.of(shops)) == ([], ["sent_ts"])
    await push.follow(OutreachTerms())
    assert not push.run_now("shop")
    await own.peer.stop()


async def test_ways_to_log_in(post: Post, push: ReportPush, application: Application) -> None:
    """A bearer token, a login, or a signature of the body go with each call, and nothing is in a representation."""
    secret = new_secret()
    for how in ({"token": "t0ken"}, {"user": "u", "password": "p"}, {"secret": secret}):
        await begin(push, application, **how)
    bearer, basic, signed = application.peer.asked[:1] + application.peer.asked[-2:]
    assert bearer.headers["authorization"] == "Bearer t0ken"
    assert basic.headers["authorization"] == f"Basic {b64encode(b'u:p').decode()}"
    name, at = signed.headers["webhook-id"], int(signed.headers["webhook-timestamp"])
    assert signed.headers["webhook-signature"] == sign((secret,), name, at, signed.body)
    assert "t0ken" not in repr(SyncTarget("https://h/", "t0ken")) and msgspec.json.decode(signed.body)


async def test_odd_answers_say_nothing(post: Post, push: ReportPush, application: Application) -> None:
    """Answers of other types than they should be are taken as "all is well"."""
    await begin(push, application)
    for number, odd in enumerate(([1], "x", {"queued": "many", "error": "all", "next_sync_after": None}, None), 1):
        application.answer = odd  # type: ignore[assignment]
        (message,) = await post.accept("app")
        await post.tell(message, Kind.RELAYED)
        await until(lambda number=number: len(application.told) == number)  # type: ignore[misc]
    pass_time(post, push, 400)
    await until(lambda: application.calls[-1] == [])
    assert len(application.told) == 4


async def test_messages_are_told_by_the_name_that_the_application_knows(
    post: Post, push: ReportPush, application: Application
) -> None:
    """The client's own id, else ours, for what came by HTTP; the ENVID for what came by SMTP; no other mail."""
    await begin(push, application)
    made = await post.accept("app", client_id="order-7") + await post.accept("app")
    made += await post.accept("app", client_id=None, envid="env-9") + await post.accept("app", client_id=None)
    for message in made:
        await post.tell(message, Kind.RELAYED)
    await until(lambda: len(application.told) >= 3)
    pass_time(post, push, 400)
    await until(lambda: application.calls[-1] == [])
    assert [each["id"] for each in application.told] == ["order-7", format_id(made[1].id), "env-9"]


async def test_bounces_are_told(post: Post, push: ReportPush, application: Application) -> None:
    """What was said later of a message is told with its type, code and reason."""
    await begin(push, application)
    (message,) = await post.accept("app")
    await post.tell(message, Kind.RELAYED, Kind.BOUNCED, Kind.COMPLAINED)
    await until(lambda: len(application.told) == 3)
    assert application.of(message) == ["sent_ts", "bounce_ts", "bounce_ts"]
    assert [each.get("bounce_type") for each in application.told] == [None, "hard", "complaint"]
