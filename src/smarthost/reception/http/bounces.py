"""Bounces and complaints over HTTP: what Amazon SES says, by SNS or by itself, and mail that reports them."""

import msgspec
from litestar import post
from litestar.handlers import HTTPRouteHandler

from smarthost.mail.key import Scope
from smarthost.reception.http.asking import Asking, caller_of, parts_of
from smarthost.reception.http.callers import Caller
from smarthost.reception.http.problem import Refused
from smarthost.reception.http.routes import NEEDS


class BouncesTaken(msgspec.Struct, frozen=True):
    """How many bounces and complaints were believed."""

    taken: int


@post("/api/v1/webhooks/ses", opt={NEEDS: None}, status_code=200)
async def take_ses(request: Asking) -> BouncesTaken:
    """Take a notification of Amazon SES: in an envelope of SNS, whose signature is checked and whose subscription is
    confirmed, or bare as {"bounce": {"bounceType", "bouncedRecipients"}}, which needs a key with the scope admin.
    """
    desk = parts_of(request).bounces
    if desk is None:
        raise Refused(503, "bounces are not taken")
    caller: Caller | None = request.scope["state"].get("caller")
    tenant = caller.tenant if caller is not None and Scope.ADMIN in caller.scopes else None
    try:
        taken = await desk.take_ses(await request.body(), tenant)
    except ValueError:
        raise Refused(400, "the content is no notification in JSON") from None
    if isinstance(taken, str):
        raise Refused(403, taken)
    return BouncesTaken(taken)


@post("/api/v1/bounces", opt={NEEDS: Scope.ADMIN}, status_code=200)
async def take_report(request: Asking) -> BouncesTaken:
    """Take a mail as it is (message/rfc822) that reports a failure (RFC 3464) or a complaint (RFC 5965).

    Other mail, as the answer of a person, says nothing.
    """
    desk = parts_of(request).bounces
    if desk is None:
        raise Refused(503, "bounces are not taken")
    return BouncesTaken(await desk.take_report(await request.body(), caller_of(request).tenant))


BOUNCES: tuple[HTTPRouteHandler, ...] = (take_ses, take_report)
