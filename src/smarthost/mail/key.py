"""Key: who may speak to the relay by the HTTP door, for which tenant, to do what, and until when."""

import re
from enum import StrEnum

import msgspec

from smarthost.mail.record import DEFAULT_TENANT as DEFAULT_TENANT

TENANT = re.compile(r"[a-z0-9-]{1,64}")
_TOKEN = re.compile(r"sh_([0-9a-z]{8})_[A-Za-z0-9_-]{43}")


class Scope(StrEnum):
    """What a key is good for."""

    SEND = "send"  # hand in messages, and change what waits
    READ = "read"  # see messages and events
    ADMIN = "admin"  # keys, suppressions, webhooks and the rest of the tenant


class Key(msgspec.Struct, gc=False):
    """An API key. The token itself is nowhere: `digest` is its SHA-256 in hex.

    Times are Unix seconds; `expires` is 0 for never, `revoked` and `used` are 0 as long as that did not happen.
    `message_rate` has rates as texts. Mutable: `revoked` and `used` change.
    """

    id: str
    tenant: str
    digest: str
    scopes: tuple[Scope, ...]
    created: float
    name: str = ""
    expires: float = 0.0
    message_rate: tuple[str, ...] = ()
    revoked: float = 0.0
    used: float = 0.0

    def is_good(self, now: float) -> bool:
        """Say whether it opens the door at a Unix time."""
        return not self.revoked and (not self.expires or now < self.expires)

    def __repr__(self) -> str:
        """Show what may be shown: even a digest belongs in no log."""
        return f"Key(id={self.id!r}, tenant={self.tenant!r})"


def key_id_of(token: str) -> str | None:
    """Give the key id of a token, "sh_" and 8 and "_" and 43 characters; None when it is not of that form."""
    found = _TOKEN.fullmatch(token)
    return found[1] if found is not None else None
