"""Operations on API keys, for a person with the control socket, who is the operator: of every tenant."""

from collections.abc import AsyncIterator

from smarthost.control_verbs import KeyName, NewKey, Refusal, Row, Tenant
from smarthost.mail.key import DEFAULT_TENANT, TENANT, Key, Scope
from smarthost.policy.rate import parse_rate
from smarthost.reception.keys import Keys, KeysUnwritable
from smarthost.report.timestamp import format_time


class KeyOperations:
    """Implements `control_verbs.KeyOperations`."""

    def __init__(self, keys: Keys) -> None:
        """Act on the keys of a relay."""
        self._keys = keys

    async def add(self, asked: NewKey) -> Row:
        """Make a key; its token is in the answer and nowhere else."""
        tenant = asked.tenant or DEFAULT_TENANT
        if TENANT.fullmatch(tenant) is None:
            raise Refusal(400, "No tenant", f"{tenant[:80]!r}: 1 to 64 letters a-z, digits and dashes are allowed")
        try:
            scopes = [Scope(word) for word in asked.scopes]
            for rate in asked.message_rate:
                parse_rate(rate)
        except ValueError as error:
            raise Refusal(400, "Not allowed", str(error)) from None
        if not scopes:
            raise Refusal(400, "No scope", f"a key needs a scope: {', '.join(Scope)}")
        try:
            key, token = await self._keys.add(tenant, scopes, asked.name, asked.expires, asked.message_rate)
        except KeysUnwritable as fault:
            raise Refusal(503, "Not written", str(fault)) from None
        return _row(key) | {"key": token}

    async def rows(self, asked: Tenant) -> AsyncIterator[Row]:
        """Give the keys, without their tokens, oldest first."""
        for key in self._keys.listed(asked.tenant or None):
            yield _row(key)

    async def revoke(self, asked: KeyName) -> Row:
        """Make a key good for nothing."""
        try:
            key = await self._keys.revoke(None, asked.id)
        except KeysUnwritable as fault:
            raise Refusal(503, "Not written", f"{fault}; it is revoked until the relay ends") from None
        if key is None:
            raise Refusal(404, "No such key", f"{asked.id[:80]!r} is no key; smarthost key list has them")
        return _row(key)


def _row(key: Key) -> Row:
    return {
        "id": key.id,
        "tenant": key.tenant,
        "name": key.name,
        "scopes": [scope.value for scope in key.scopes],
        "message_rate": list(key.message_rate),
        "created": format_time(key.created),
        "expires": format_time(key.expires) if key.expires else None,
        "revoked": format_time(key.revoked) if key.revoked else None,
        "used": format_time(key.used) if key.used else None,
    }
