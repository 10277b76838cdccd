"""Suppressions over HTTP: the addresses to which nothing is sent, listed, added one or many at a time, and removed."""

import asyncio
import math
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from litestar import delete, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import Meta

from smarthost.compose.fault import FieldFault
from smarthost.mail.key import DEFAULT_TENANT, Scope
from smarthost.mail.suppression import REASON_MOST, Key, Origin, Suppression, read_suppression_address
from smarthost.policy.glob import compile_globs
from smarthost.reception.http.asking import Asking, caller_of, parts_of
from smarthost.reception.http.problem import Refused, disk_full, not_found, wrong_fields
from smarthost.reception.http.routes import NEEDS
from smarthost.spool.store import Done, Fault, SuppressionStore

PAGE, MOST_PAGES = 500, 40  # rows that are read at a time, and how often for one answer: filters may leave all out
MOST_STARS = 2  # of a pattern: with many it would take very long to see that an address does not fit
MOST = 10_000  # addresses of one request
CHUNK = 500  # addresses that are put on the list at a time: a few milliseconds of the loop

Cursor = Annotated[str, QueryParameter(description="next_cursor of the page before", max_length=1024)]
Limit = Annotated[int, QueryParameter(ge=1, le=1000)]
Email = Annotated[str, QueryParameter(description="an address, or a pattern such as *@example.net", max_length=320)]
Reason = Annotated[str, QueryParameter(description="words that the reason has", max_length=REASON_MOST)]
Source = Annotated[Origin | None, QueryParameter(description="who put it there: the relay itself, or somebody")]


class NewSuppression(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An address to which nothing is to be sent, until a time or for good."""

    email: Annotated[str, Meta(max_length=320)]
    reason: Annotated[str, Meta(max_length=REASON_MOST)] = ""
    expires_at: Annotated[datetime, Meta(tz=True)] | None = None


class SuppressionWish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One address, or many as `suppressions`."""

    email: Annotated[str, Meta(max_length=320)] = ""
    reason: Annotated[str, Meta(max_length=REASON_MOST)] = ""
    expires_at: Annotated[datetime, Meta(tz=True)] | None = None
    suppressions: Annotated[list[NewSuppression], Meta(max_length=MOST)] = []


class ShownSuppression(msgspec.Struct, frozen=True):
    """An address to which nothing is sent; `tenant` is null where that holds for everybody's mail."""

    email: str
    tenant: str | None
    source: Origin
    reason: str
    created_at: datetime
    expires_at: datetime | None


class SuppressionsKept(msgspec.Struct, frozen=True):
    """How many addresses are new on the list, how many were there and have the new reason and time, and all of them."""

    added: int
    known: int
    suppressions: list[ShownSuppression]


class SuppressionPage(msgspec.Struct, frozen=True):
    """Addresses by their alphabet; `next_cursor` is for the request that goes on, null at the end.

    A page may have fewer than were asked for, where filters leave much out.
    """

    suppressions: list[ShownSuppression]
    next_cursor: str | None = None


@get("/api/v1/admin/suppressions", opt={NEEDS: Scope.ADMIN})
async def list_suppressions(
    request: Asking,
    email: Email = "",
    reason: Reason = "",
    source: Source = None,
    cursor: Cursor = "",
    limit: Limit = 100,
) -> SuppressionPage:
    """List the addresses to which nothing is sent. The operator sees all, a tenant its own."""
    parts = parts_of(request)
    now, words, matches = parts.clock(), reason.casefold(), _matcher(email)

    def means(row: Suppression) -> bool:
        return (
            row.is_suppressed
            and row.expires > now
            and (source is None or row.origin is source)
            and matches(row.address)
            and words in row.reason.casefold()
        )

    found, end = await read_rows(parts.spool.suppressions, visible_owners(request), _read_cursor(cursor), limit, means)
    return SuppressionPage([_shown(row) for row in found], _cursor(end) if end is not None else None)


@post("/api/v1/admin/suppressions", opt={NEEDS: Scope.ADMIN})
async def keep_suppressions(request: Asking, data: JSONBody[SuppressionWish]) -> SuppressionsKept:
    """Send nothing to an address, or to many. All are taken, or none where one of them is wrong.

    They hold for the tenant's mail; for everybody's when the operator asks without naming a tenant.
    """
    if bool(data.email) == bool(data.suppressions):
        raise wrong_fields([FieldFault("email", "give one address, or suppressions, and not both")])
    parts, owner = parts_of(request), _owner(request)
    wanted = data.suppressions or [NewSuppression(data.email, data.reason, data.expires_at)]
    rows: dict[Key, Suppression] = {}
    faults: list[FieldFault] = []
    now = parts.clock()
    for place, each in enumerate(wanted):
        path = f"suppressions[{place}]." if data.suppressions else ""
        address = read_suppression_address(each.email)
        expires = math.inf if each.expires_at is None else each.expires_at.timestamp()
        if address is None:
            faults.append(FieldFault(f"{path}email", "is no mail address"))
        elif expires <= now:
            faults.append(FieldFault(f"{path}expires_at", "is in the past"))
        else:
            rows[owner, address] = Suppression(owner, address, 0, now, expires, Origin.MANUAL, each.reason)
    if faults:
        raise wrong_fields(faults)
    known, kept = 0, list(rows.values())
    for begin in range(0, len(kept), CHUNK):
        chunk = kept[begin : begin + CHUNK]
        there = await parts.spool.suppressions.find([row.key for row in chunk])
        known += sum(row.is_suppressed for row in there.values())
        await _written(lambda done, chunk=chunk: parts.suppression.put(chunk, done))  # type: ignore[misc]
    return SuppressionsKept(len(kept) - known, known, [_shown(row) for row in kept])


@delete("/api/v1/admin/suppressions/{email:str}", opt={NEEDS: Scope.ADMIN})
async def remove_suppression(request: Asking, email: FromPath[str]) -> None:
    """Send to an address again, and forget its failures."""
    parts, address = parts_of(request), read_suppression_address(email)
    owners = visible_owners(request) or ("",)
    found = await parts.spool.suppressions.find([(owner, address) for owner in owners]) if address is not None else {}
    if not found:
        raise not_found("suppression")
    await _written(lambda done: parts.suppression.remove(list(found), done))


def _is_for_all(request: Asking) -> bool:
    """Whether the operator asks, and names no tenant."""
    return caller_of(request).is_operator and not request.headers.get("x-smarthost-tenant")


def _owner(request: Asking) -> str:
    """Give for whose mail an address is suppressed: a tenant's, or "" for everybody's."""
    return "" if _is_for_all(request) else caller_of(request).tenant


def visible_owners(request: Asking) -> tuple[str, ...] | None:
    """Give whose addresses are seen and removed, None for all.

    The tenant `default` is the house itself: where there is no other, what failures put on the list is its own matter,
    though it holds for everybody.
    """
    if _is_for_all(request):
        return None
    tenant = caller_of(request).tenant
    return ("", tenant) if tenant == DEFAULT_TENANT else (tenant,)


def _matcher(email: str) -> Callable[[str], bool]:
    if not email:
        return lambda address: True
    if "*" not in email:
        wanted = read_suppression_address(email)
        return lambda address: address == wanted
    if email.count("*") > MOST_STARS:
        raise wrong_fields([FieldFault("email", f'has more than {MOST_STARS} "*"')])
    pattern = compile_globs((email,))
    return lambda address: pattern.fullmatch(address) is not None


async def read_rows(
    store: SuppressionStore,
    owners: tuple[str, ...] | None,
    after: Key,
    limit: int,
    means: Callable[[Suppression], bool],
) -> tuple[list[Suppression], Key | None]:
    """Give rows behind a key, at most `limit` of those that are meant, and the key to go on from, None at the end."""
    found: list[Suppression] = []
    if owners is not None and after[0] not in owners:
        after = (owners[0], "")
    for _ in range(MOST_PAGES):
        page = await store.page(after, PAGE)
        if not page:
            return found, None
        for row in page:
            if owners is not None and row.owner not in owners:
                later = [owner for owner in owners if owner > row.owner]
                if not later:
                    return found, None
                after = (later[0], "")
                break
            if means(row):
                if len(found) == limit:
                    return found, after
                found.append(row)
            after = row.key
    return found, after


def _cursor(key: Key) -> str:
    return urlsafe_b64encode("\0".join(key).encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> Key:
    if not cursor:
        return "", ""
    try:
        owner, address = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().split("\0")
    except ValueError:
        raise Refused(400, "cursor: what next_cursor said is allowed") from None
    return owner, address


async def _written(write: Callable[[Done], None]) -> None:
    """Wait until a change is on disk; raises Refused (503) when it cannot be written."""
    finished: asyncio.Future[Fault | None] = asyncio.get_running_loop().create_future()
    write(finished.set_result)
    if await asyncio.shield(finished) is not None:
        raise disk_full()


def _shown(row: Suppression) -> ShownSuppression:
    return ShownSuppression(
        row.address,
        row.owner or None,
        row.origin,
        row.reason,
        datetime.fromtimestamp(row.since, UTC),
        None if row.expires == math.inf else datetime.fromtimestamp(row.expires, UTC),
    )


SUPPRESSIONS: tuple[HTTPRouteHandler, ...] = (list_suppressions, keep_suppressions, remove_suppression)
