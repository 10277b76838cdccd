"""What a mail proxy's clients send with a command: all of it may be left out."""

from typing import Annotated, TypeVar

import msgspec

from smarthost.reception.http.asking import Asking
from smarthost.reception.http.problem import Refused

Command = TypeVar("Command", bound=msgspec.Struct)


class WhichTenant(msgspec.Struct, frozen=True):
    """Whose: the caller's own, unless the operator names another tenant."""

    tenant_id: str | None = None


class WhichBatch(msgspec.Struct, frozen=True):
    """Whose, and which batch of it; everything without one."""

    tenant_id: str | None = None
    batch_code: str | None = None


class WhichMessages(msgspec.Struct, frozen=True):
    """Messages by the client's ids or ours; `tenant_id` is the operator's word for whose."""

    ids: list[str] = []
    tenant_id: str | None = None


class Cleanup(msgspec.Struct, frozen=True):
    """Messages that ended so many seconds ago."""

    tenant_id: str | None = None
    older_than_seconds: Annotated[int, msgspec.Meta(ge=0)] | None = None


async def read_command(request: Asking, form: type[Command]) -> Command:
    """Read what a command is about; no content at all says nothing. Raises Refused (400, 422)."""
    octets = await request.body()
    if not octets.strip():
        return form()
    try:
        return msgspec.json.decode(octets, type=form)
    except msgspec.ValidationError as error:
        raise Refused(422, str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(400, f"the content is not JSON: {error}") from None
