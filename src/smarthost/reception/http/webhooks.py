"""Webhooks over HTTP: asked for, listed, changed, removed, and what they missed sent again."""

from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
from litestar import delete, get, patch, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, JSONBody, QueryParameter

from smarthost.crypto.webhook import public_key
from smarthost.mail.key import Scope
from smarthost.policy.webhook import Faults, Webhook, WebhookStatus, WebhookWish
from smarthost.reception.http.asking import Asking, caller_of, parts_of
from smarthost.reception.http.desks import WebhookDesk
from smarthost.reception.http.problem import Refused, disk_full, not_found
from smarthost.reception.http.routes import NEEDS

Limit = Annotated[int, QueryParameter(ge=1, le=1000)]


class NewWebhook(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A webhook that is asked for. `events` are types ("message.relayed"), "message.*" or "*".

    `secret` is "whsec_" or "whsk_" with base64; without one a shared secret is made.
    """

    url: str
    events: tuple[str, ...] = ("*",)
    description: str = ""
    active: bool = True
    secret: str = ""


class WebhookChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What of a webhook is changed; what is left out stays. A `secret` of "" has a new one made."""

    url: str | None = None
    events: tuple[str, ...] | None = None
    description: str | None = None
    active: bool | None = None
    secret: str | None = None


class ShownWebhook(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook as it may be shown: never its secret.

    `public_key` ("whpk_...") checks what an Ed25519 key signs; `cursor` is up to where events were taken, or wait:
    `waiting` messages have an event that was not taken, and `last_error` says why the last one was not.
    """

    id: str
    url: str
    events: tuple[str, ...]
    description: str
    active: bool
    disabled: str
    public_key: str
    created_at: datetime
    cursor: int
    waiting: int
    last_error: str


class MadeWebhook(ShownWebhook, frozen=True, kw_only=True):
    """A webhook with its secret, which is shown when it is made or changed, and never again."""

    secret: str


class WebhookList(msgspec.Struct, frozen=True):
    """The webhooks of a tenant."""

    webhooks: list[ShownWebhook]


class DeadList(msgspec.Struct, frozen=True):
    """Events that were not taken, and are not sent any more; `next` is the cursor for the next page."""

    events: list[dict[str, Any]]
    next: int


class Replay(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is sent again: everything behind the cursor `after`, or dead events, all or those of `cursors`."""

    after: int | None = None
    dead: bool = False
    cursors: tuple[int, ...] = ()


class Replayed(msgspec.Struct, frozen=True):
    """How many dead events are sent again; null where all behind a cursor are."""

    replayed: int | None


@post("/api/v1/webhooks", opt={NEEDS: Scope.ADMIN})
async def make_webhook(request: Asking, data: JSONBody[NewWebhook]) -> MadeWebhook:
    """Have the events of the tenant's messages posted somewhere. The secret is in the answer, and nowhere else."""
    desk, tenant = _desk(request), caller_of(request).tenant
    wish = WebhookWish(data.url, data.events, data.description, data.active, data.secret)
    try:
        hook = _made(await desk.create(tenant, wish))
    except OSError:
        raise disk_full() from None
    return MadeWebhook(**_shown(hook, await desk.status(hook)), secret=hook.secret)


@get("/api/v1/webhooks", opt={NEEDS: Scope.ADMIN})
async def list_webhooks(request: Asking) -> WebhookList:
    """List the tenant's webhooks."""
    desk = _desk(request)
    hooks = await desk.page(caller_of(request).tenant)
    return WebhookList([ShownWebhook(**_shown(hook, await desk.status(hook))) for hook in hooks])


@get("/api/v1/webhooks/{webhook_id:str}", opt={NEEDS: Scope.ADMIN})
async def show_webhook(request: Asking, webhook_id: FromPath[str]) -> ShownWebhook:
    """Show a webhook, and how it fares."""
    desk = _desk(request)
    hook = await desk.get(caller_of(request).tenant, webhook_id)
    if hook is None:
        raise not_found("webhook")
    return ShownWebhook(**_shown(hook, await desk.status(hook)))


@patch("/api/v1/webhooks/{webhook_id:str}", opt={NEEDS: Scope.ADMIN})
async def change_webhook(
    request: Asking, webhook_id: FromPath[str], data: JSONBody[WebhookChange]
) -> ShownWebhook | MadeWebhook:
    """Change a webhook. A new secret signs at once, and the one before beside it for a day."""
    desk = _desk(request)
    wish = WebhookWish(data.url, data.events, data.description, data.active, data.secret)
    try:
        changed = await desk.update(caller_of(request).tenant, webhook_id, wish)
    except OSError:
        raise disk_full() from None
    if changed is None:
        raise not_found("webhook")
    hook = _made(changed)
    shown = _shown(hook, await desk.status(hook))
    return ShownWebhook(**shown) if data.secret is None else MadeWebhook(**shown, secret=hook.secret)


@delete("/api/v1/webhooks/{webhook_id:str}", opt={NEEDS: Scope.ADMIN})
async def remove_webhook(request: Asking, webhook_id: FromPath[str]) -> None:
    """Remove a webhook with all that waits for it."""
    try:
        is_removed = await _desk(request).delete(caller_of(request).tenant, webhook_id)
    except OSError:
        raise disk_full() from None
    if not is_removed:
        raise not_found("webhook")


@get("/api/v1/webhooks/{webhook_id:str}/dead", opt={NEEDS: Scope.ADMIN})
async def list_dead(
    request: Asking,
    webhook_id: FromPath[str],
    after: Annotated[int, QueryParameter(ge=0, le=2**53)] = 0,
    limit: Limit = 100,
) -> DeadList:
    """List the events that nobody took for 33 hours, with what was sent and why it was not taken."""
    dead = await _desk(request).dead(caller_of(request).tenant, webhook_id, after, limit)
    if dead is None:
        raise not_found("webhook")
    events = [
        {
            "cursor": each.cursor,
            "at": _time(each.at).isoformat(),
            "attempts": each.attempts,
            "error": each.error,
            "event": msgspec.json.decode(each.body),
        }
        for each in dead
    ]
    return DeadList(events, dead[-1].cursor if dead else after)


@post("/api/v1/webhooks/{webhook_id:str}/replay", opt={NEEDS: Scope.ADMIN}, status_code=200)
async def replay(request: Asking, webhook_id: FromPath[str], data: JSONBody[Replay]) -> Replayed:
    """Send again what the receiver missed: all events behind a cursor, or those that are dead."""
    desk, tenant = _desk(request), caller_of(request).tenant
    if (data.after is None) is not data.dead or (data.cursors and not data.dead):
        raise Refused(422, "a field is wrong", errors=[("after", "give a cursor, or dead: true, and not both")])
    try:
        if data.after is None:
            count = await desk.replay_dead(tenant, webhook_id, data.cursors)
            if count is None:
                raise not_found("webhook")
            return Replayed(count)
        if not await desk.replay(tenant, webhook_id, data.after):
            raise not_found("webhook")
    except OSError:
        raise disk_full() from None
    return Replayed(None)


def _desk(request: Asking) -> WebhookDesk:
    desk = parts_of(request).webhooks
    if desk is None:
        raise Refused(503, "webhooks are not running")
    return desk


def _made(made: Webhook | Faults) -> Webhook:
    if isinstance(made, Webhook):
        return made
    raise Refused(422, "a field is wrong", errors=made)


def _shown(hook: Webhook, status: WebhookStatus) -> dict[str, Any]:
    return {
        "id": hook.id,
        "url": hook.url,
        "events": hook.events,
        "description": hook.description,
        "active": hook.active,
        "disabled": hook.disabled,
        "public_key": public_key(hook.secret),
        "created_at": _time(hook.created),
        "cursor": status.cursor,
        "waiting": status.lines,
        "last_error": status.last_error,
    }


def _time(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


WEBHOOKS: tuple[HTTPRouteHandler, ...] = (
    make_webhook,
    list_webhooks,
    show_webhook,
    change_webhook,
    remove_webhook,
    list_dead,
    replay,
)
