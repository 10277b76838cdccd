"""Health: whether the relay is well, and whether it takes mail; nobody needs a key for that."""

import msgspec

from smarthost.client.call import Call, get, reader

_FAILING = frozenset({503})


class Health(msgspec.Struct, frozen=True):
    """How the relay is: "ok" or "failing", and the reasons."""

    status: str
    reasons: list[str] = []

    @property
    def is_ok(self) -> bool:
        """Whether it is well."""
        return self.status == "ok"


_READ = reader(Health)


def ask_health() -> Call[Health]:
    """Ask whether the relay works."""
    return msgspec.structs.replace(get("/health", _READ), expected=_FAILING)


def ask_ready() -> Call[Health]:
    """Ask whether the relay takes mail."""
    return msgspec.structs.replace(get("/ready", _READ), expected=_FAILING)
