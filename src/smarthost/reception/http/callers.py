"""Callers: who makes a request, read from its headers and looked up once, in memory."""

import hmac
from collections.abc import Mapping

import msgspec

from smarthost.mail.key import DEFAULT_TENANT, TENANT, Key, Scope
from smarthost.policy.http_terms import HttpTerms
from smarthost.reception.http.problem import Refused, no_caller
from smarthost.reception.keys import Keys, digest_of

_EVERYTHING = frozenset(Scope)


class Caller(msgspec.Struct, frozen=True, gc=False):
    """Who asks. `tenant` is the one that is acted for; `key` is None for the operator, who may act for any tenant."""

    tenant: str
    scopes: frozenset[Scope]
    key: Key | None = None

    @property
    def is_operator(self) -> bool:
        """Whether this is a token of the configuration."""
        return self.key is None


class Callers:
    """Knows callers by their tokens. `terms` are replaced at a reload."""

    def __init__(self, keys: Keys, terms: HttpTerms) -> None:
        """Look keys up in `keys`."""
        self.keys, self.terms = keys, terms
        self._known: dict[str, Caller] = {}  # by key; a key's tenant and scopes never change

    def find(self, headers: Mapping[bytes, bytes]) -> Caller | None:
        """Give who asks, None where no token is shown; raises Refused (401) for one that is not good.

        The operator names the tenant in X-Smarthost-Tenant, "default" without it; a key has its own.
        """
        shown = headers.get(b"authorization")
        if shown is not None and shown[:7].lower() == b"bearer ":
            token = shown[7:].strip().decode("latin-1")
        elif (other := headers.get(b"x-api-token")) is not None:
            token = other.strip().decode("latin-1")
        else:
            return None
        key = self.keys.verify(token)
        shown_tenant = headers.get(b"x-smarthost-tenant")
        named = shown_tenant.decode("latin-1").strip() if shown_tenant is not None else ""
        if key is not None:
            if named and named != key.tenant:
                raise Refused(403, "this key is another tenant's")
            caller = self._known.get(key.id)
            if caller is None:
                caller = self._known[key.id] = Caller(key.tenant, frozenset(key.scopes), key)
            return caller
        if not self._is_operator(token):
            raise no_caller()
        if named and TENANT.fullmatch(named) is None:
            raise Refused(400, "X-Smarthost-Tenant: 1 to 64 letters a-z, digits and dashes are allowed")
        return Caller(named or DEFAULT_TENANT, _EVERYTHING)

    def _is_operator(self, token: str) -> bool:
        digest = digest_of(token)
        fits = False
        for each in self.terms.tokens:  # each is compared, so that the time tells nothing of which
            fits |= hmac.compare_digest(digest, each)
        return fits
