"""Webhooks: every event arrives, in the order of its message, through failing, hanging and vanishing receivers."""

import asyncio
import hmac
from base64 import b64decode, b64encode
from functools import partial
from hashlib import sha256
from random import Random

import msgspec
from outreach_post import Post, Receiver, until

from smarthost.crypto.sealing import Sealer
from smarthost.mail.event import Event, Kind
from smarthost.mail.message import Message, format_id
from smarthost.outreach import hook_runner
from smarthost.outreach.hook_runner import body_of
from smarthost.outreach.webhooks import Webhooks
from smarthost.policy.webhook import MOST_ATTEMPTS, DeadEvent, Webhook, WebhookWish
from smarthost.spool.store import LoggedEvent

NOW = 1_800_000_000.25


async def make(post: Post, receiver: Receiver, tenant: str = "app", **wish: object) -> Webhook:
    """Ask for a webhook."""
    hook = await post.hooks.create(tenant, WebhookWish(url=receiver.peer.url, **wish))
    assert isinstance(hook, Webhook)
    return hook


def has_taken(receiver: Receiver, count: int) -> bool:
    """Whether a receiver has taken so many."""
    return len(receiver.taken) >= count


async def test_events_arrive_signed_and_in_order(post: Post, receiver: Receiver) -> None:
    """A tenant's wanted events arrive once each, signed by the secret, and nothing of other tenants or types does."""
    (early,) = await post.accept("app")
    hook = await make(post, receiver, events=("message.accepted", "message.relayed"))
    mine, other = await post.accept("app", "shop")
    await post.tell(other, Kind.RELAYED)
    await post.tell(mine, Kind.DELAYED, Kind.RELAYED)
    await until(lambda: len(receiver.taken) >= 2)
    assert receiver.kinds_of(mine) == ["accepted", "relayed"] and receiver.kinds_of(early) == []
    assert len(receiver.taken) == 2
    asked = receiver.peer.asked[0]
    content = f"{asked.headers['webhook-id']}.{asked.headers['webhook-timestamp']}.".encode() + asked.body
    signed = hmac.new(b64decode(hook.secret.removeprefix("whsec_")), content, sha256).digest()
    assert asked.headers["webhook-signature"] == f"v1,{b64encode(signed).decode()}"
    assert asked.headers["content-type"] == "application/json" and "." not in asked.headers["webhook-id"]


async def test_mail_without_a_login_is_the_default_tenants(post: Post, receiver: Receiver) -> None:
    """Events of mail that came without a login go to the default tenant."""
    await make(post, receiver, "default")
    (anonymous,) = await post.accept("")
    await until(lambda: receiver.kinds_of(anonymous) == ["accepted"])


async def test_a_receiver_that_fails_twice_gets_each_event_in_order(post: Post, receiver: Receiver) -> None:
    """What is refused comes again after a minute and two, before what its message did later; others do not wait."""
    hook = await make(post, receiver)
    (unlucky,) = await post.accept("app")
    receiver.decide = lambda told: 500 if told["data"]["id"] == format_id(unlucky.id) and receiver.refused < 2 else 200
    await until(lambda: receiver.refused == 1)
    await post.tell(unlucky, Kind.DELAYED, Kind.RELAYED)
    (lucky,) = await post.accept("app")
    await until(lambda: receiver.kinds_of(lucky) == ["accepted"])
    assert receiver.kinds_of(unlucky) == [] and (await post.hooks.status(hook)).lines == 1
    post.pass_time(70)
    await until(lambda: receiver.refused == 2)
    post.pass_time(70)
    await asyncio.sleep(0.1)
    assert receiver.refused == 2 and receiver.kinds_of(unlucky) == []
    post.pass_time(70)
    await until(lambda: len(receiver.kinds_of(unlucky)) == 3)
    assert receiver.kinds_of(unlucky) == ["accepted", "delayed", "relayed"]
    first = [each for each in receiver.peer.asked if format_id(unlucky.id).encode() in each.body][:3]
    assert len({each.headers["webhook-id"] for each in first}) == 1 and len({each.body for each in first}) == 1
    assert (await post.hooks.status(hook)).lines == 0


async def test_a_receiver_that_is_away_costs_little_and_misses_nothing(post: Post, receiver: Receiver) -> None:
    """While nothing is taken only some messages are tried, the rest stays in the log, and all arrive afterwards."""
    hook = await make(post, receiver)
    receiver.decide = lambda told: None
    messages = await post.accept(*["app"] * 300)
    for message in messages[:50]:
        await post.tell(message, Kind.RELAYED)
    await until(lambda: post.hooks._runners[next(iter(post.hooks._runners))][0].is_troubled)
    await until(lambda: not post.hooks._runners[next(iter(post.hooks._runners))][0]._tasks)
    assert receiver.refused < 40 and (await post.hooks.status(hook)).lines < 40
    receiver.decide = lambda told: 200
    post.pass_time(70)
    await until(lambda: len(receiver.taken) == 350)
    assert all(receiver.kinds_of(message) == ["accepted", "relayed"] for message in messages[:50])
    assert len({each["webhook-id"] for each in receiver.taken}) == 350


async def test_a_receiver_that_hangs_keeps_no_other_waiting(post: Post, receiver: Receiver) -> None:
    """One that never answers holds its own few connections; another webhook gets everything meanwhile."""
    hanging = Receiver()
    await hanging.peer.start()
    hanging.hang.clear()
    await make(post, hanging)
    await make(post, receiver)
    messages = await post.accept(*["app"] * 200)
    await until(lambda: len(receiver.taken) == 200)
    assert hanging.peer.most_open <= 2 and hanging.taken == []
    (runner,) = [r for r, _ in post.hooks._runners.values() if r.hook.url == hanging.peer.url]
    assert runner.state.open_events <= hook_runner.MOST_OPEN + 200
    hanging.hang.set()
    await until(lambda: len(hanging.taken) == 200)
    assert all(hanging.kinds_of(message) == ["accepted"] for message in messages)
    await hanging.peer.stop()


async def test_nothing_is_missed_over_crashes(post: Post, receiver: Receiver) -> None:
    """A relay that dies again and again, with a receiver that fails at times, tells all, each message in order."""
    hook = await make(post, receiver)
    count = 0

    def decide(told: dict[str, object]) -> int:
        nonlocal count
        count += 1
        return 503 if count % 7 == 0 else 200

    receiver.decide = decide
    messages: list[Message] = []
    for wanted in (10, 20, 30, 40):
        fresh = await post.accept(*["app"] * 15)
        for message in fresh:
            await post.tell(message, Kind.RELAYED)
        messages += fresh
        await until(partial(has_taken, receiver, wanted))
        await post.crash()
    async with asyncio.timeout(30):
        while (status := await post.hooks.status(hook)).cursor < post.spool.event_log.head or status.lines:
            post.pass_time(3600)
            await asyncio.sleep(0.05)
    for message in messages:
        kinds = receiver.kinds_of(message)
        assert kinds[0] == "accepted" and "relayed" in kinds and kinds[-1] == "relayed"


async def test_what_nobody_takes_is_dead_and_can_be_replayed(post: Post, receiver: Receiver) -> None:
    """After the last attempt an event is listed with its reason, the next one goes, and a replay sends it again."""
    hook = await make(post, receiver)
    (message,) = await post.accept("app")
    receiver.decide = lambda told: 500 if told["type"] == "message.accepted" else 200
    await until(lambda: receiver.refused == 1)
    await post.tell(message, Kind.RELAYED)
    async with asyncio.timeout(30):
        while receiver.kinds_of(message) != ["relayed"]:
            post.pass_time(20 * 3600)
            await asyncio.sleep(0.05)
    dead: list[DeadEvent] = []
    async with asyncio.timeout(20):
        while not dead:
            dead = await post.hooks.dead("app", hook.id) or []
            await asyncio.sleep(0.02)
    assert (dead[0].attempts, dead[0].error) == (MOST_ATTEMPTS, "HTTP 500")
    assert msgspec.json.decode(dead[0].body)["type"] == "message.accepted"
    assert await post.hooks.dead("shop", hook.id) is None
    receiver.decide = lambda told: 200
    await post.crash()
    assert await post.hooks.replay_dead("app", hook.id) == 1
    await until(lambda: receiver.kinds_of(message) == ["relayed", "accepted"])
    assert await post.hooks.dead("app", hook.id) == []


async def test_gone_disables(post: Post, receiver: Receiver) -> None:
    """410 Gone ends a webhook until it is made active again, when it goes on where it was."""
    hook = await make(post, receiver)
    receiver.status = 410
    (first,) = await post.accept("app")
    async with asyncio.timeout(20):
        while (found := await post.hooks.get("app", hook.id)) is not None and found.active:
            await asyncio.sleep(0.02)
    assert found is not None and "410" in found.disabled
    (second,) = await post.accept("app")
    receiver.status = 200
    assert isinstance(await post.hooks.update("app", hook.id, WebhookWish(active=True)), Webhook)
    await until(lambda: receiver.kinds_of(second) == ["accepted"])
    post.pass_time(70)
    await until(lambda: receiver.kinds_of(first) == ["accepted"])


async def test_retry_after_is_honoured(post: Post, receiver: Receiver) -> None:
    """A receiver that names a time is left alone until then, for every message."""
    await make(post, receiver)
    receiver.status, receiver.headers = 429, ("Retry-After: 600",)
    (first,) = await post.accept("app")
    await until(lambda: receiver.refused == 1)
    receiver.status = 200
    (second,) = await post.accept("app")
    post.pass_time(300)
    await asyncio.sleep(0.2)
    assert receiver.taken == []
    post.pass_time(310)
    await until(lambda: receiver.kinds_of(first) == receiver.kinds_of(second) == ["accepted"])


async def test_everything_behind_a_cursor_can_be_sent_again(post: Post, receiver: Receiver) -> None:
    """A replay from a cursor sends all that came later with the same ids."""
    hook = await make(post, receiver)
    start = post.spool.event_log.head
    await post.accept("app", "app")
    await until(lambda: len(receiver.taken) == 2)
    assert await post.hooks.replay("app", hook.id, start)
    await until(lambda: len(receiver.taken) == 4)
    ids = [each["webhook-id"] for each in receiver.taken]
    assert sorted(ids[:2]) == sorted(ids[2:])
    assert not await post.hooks.replay("shop", hook.id, start)


async def test_webhooks_can_be_listed_changed_and_removed(post: Post, receiver: Receiver) -> None:
    """A tenant has its own webhooks only; a new secret signs beside the old one; nothing of a removed one is left."""
    hook = await make(post, receiver, description="mine")
    assert await post.hooks.page("app") == [hook] and await post.hooks.page("shop") == []
    assert await post.hooks.get("shop", hook.id) is None
    assert await post.hooks.update("shop", hook.id, WebhookWish(active=False)) is None
    changed = await post.hooks.update("app", hook.id, WebhookWish(secret="", description="ours"))
    assert isinstance(changed, Webhook) and changed.secret != hook.secret and changed.former == hook.secret
    await post.accept("app")
    await until(lambda: len(receiver.taken) == 1)
    assert receiver.peer.asked[0].headers["webhook-signature"].count("v1,") == 2
    paused = await post.hooks.update("app", hook.id, WebhookWish(active=False))
    assert isinstance(paused, Webhook)
    await post.accept("app")
    await asyncio.sleep(0.2)
    assert len(receiver.taken) == 1
    receiver.status = 500
    await post.hooks.update("app", hook.id, WebhookWish(active=True))
    await until(lambda: receiver.refused == 1)
    assert not await post.hooks.delete("shop", hook.id) and await post.hooks.delete("app", hook.id)
    for kind in ("webhook", "webhook-state", "webhook-line", "webhook-dead"):
        assert await post.spool.records.all(kind) == []


async def test_secrets_are_sealed(post: Post, receiver: Receiver) -> None:
    """No secret is in the spool in plain text, and a relay with another key does not use what it cannot read."""
    hook = await make(post, receiver)
    (record,) = await post.spool.records.all("webhook")
    assert hook.secret.encode() not in record.data and b"whsec_" not in record.data
    await post.hooks.stop()
    other = Sealer(b"x" * 32, "webhooks")
    post.hooks = Webhooks(post.spool, post.client.ask, lambda: other, post.clock, Random(1))
    await post.hooks.start()
    found = await post.hooks.get("app", hook.id)
    assert found is not None and not found.active and "secret" in found.disabled and post.hooks._runners == {}
    faults = await post.hooks.update("app", hook.id, WebhookWish(active=True))
    assert not isinstance(faults, Webhook) and faults and faults[0][0] == "secret"
    mended = await post.hooks.update("app", hook.id, WebhookWish(secret="", active=True))
    assert isinstance(mended, Webhook) and mended.former == ""
    await post.accept("app")
    await until(lambda: len(receiver.taken) == 1)


async def test_bad_wishes_are_refused(post: Post, receiver: Receiver) -> None:
    """What is wrong is said by field, nothing is written, and there is a bound."""
    for wish, field in (
        (WebhookWish(), "url"),
        (WebhookWish(url="gopher://x/"), "url"),
        (WebhookWish(url="https://h/", events=("no",)), "events[0]"),
        (WebhookWish(url="https://h/", secret="short"), "secret"),
    ):
        faults = await post.hooks.create("app", wish)
        assert not isinstance(faults, Webhook) and [name for name, _ in faults] == [field]
    for _ in range(20):
        await make(post, receiver, active=False)
    assert not isinstance(await post.hooks.create("app", WebhookWish(url=receiver.peer.url)), Webhook)
    assert isinstance(await post.hooks.create("shop", WebhookWish(url=receiver.peer.url, active=False)), Webhook)


def test_the_body_is_type_timestamp_and_data() -> None:
    """The body has what the specification recommends, without what there is nothing to say of, also for odd octets."""
    event = Event(NOW, Kind.RELAYED, 1 << 60, recipient="b@example.net", code=250, reply="ok \udc80", user="app")
    told = msgspec.json.decode(body_of(LoggedEvent(7, "app", event)))
    assert told["type"] == "message.relayed" and told["timestamp"] == "2027-01-15T08:00:00.250Z"
    data = told["data"]
    assert (data["id"], data["recipient"], data["code"]) == (format_id(1 << 60), "b@example.net", 250)
    assert "tls" not in data and data["reply"].startswith("ok ") and data["cursor"] == 7
