"""The suppression list as one CSV file, read and sent page by page, in columns that can be imported again."""

import csv
import io
import math
from collections.abc import AsyncIterator

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.response import Stream

from smarthost.mail.key import Scope
from smarthost.mail.suppression import Suppression
from smarthost.reception.http.asking import Asking, parts_of
from smarthost.reception.http.parts import HttpParts
from smarthost.reception.http.routes import NEEDS
from smarthost.reception.http.suppressions import PAGE, read_rows, visible_owners
from smarthost.report.timestamp import format_time

# A reason may be the words of any server: a spreadsheet shall show them, and not take them for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
COLUMNS = ("email", "user", "origin", "reason", "since", "expires")


@get("/api/v1/admin/suppressions/export", opt={NEEDS: Scope.ADMIN}, media_type="text/csv")
async def export_suppressions(request: Asking) -> Stream:
    """Give the whole list as CSV, with a heading; `smarthost suppress import` takes it."""
    headers = {"Content-Disposition": 'attachment; filename="suppressions.csv"'}
    return Stream(_lines(parts_of(request), visible_owners(request)), media_type="text/csv", headers=headers)


async def _lines(parts: HttpParts, owners: tuple[str, ...] | None) -> AsyncIterator[bytes]:
    now = parts.clock()
    yield _csv([COLUMNS])
    after: tuple[str, str] | None = ("", "")
    while after is not None:
        rows, after = await read_rows(
            parts.spool.suppressions, owners, after, PAGE, lambda row: row.is_suppressed and row.expires > now
        )
        yield _csv([_cells(row) for row in rows])


def _cells(row: Suppression) -> tuple[str, ...]:
    expires = "" if row.expires == math.inf else format_time(row.expires)
    reason = f"'{row.reason}" if row.reason.startswith(_FORMULA) else row.reason
    return row.address, row.owner, str(row.origin), reason, format_time(row.since), str(expires)


def _csv(rows: list[tuple[str, ...]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)  # RFC 4180 2
    return text.getvalue().encode("utf-8", "replace")


SUPPRESSION_EXPORT: tuple[HTTPRouteHandler, ...] = (export_suppressions,)
