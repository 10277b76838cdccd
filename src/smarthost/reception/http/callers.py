"""Callers: who makes a request, read from its headers and looked up once, in memory."""

import hmac
from collections.abc import Mapping

import msgspec

from smarthost.mail.key import DEFAULT_TENANT, TENANT, Key, Scope
from smarthost.policy.admission import Networks
from smarthost.policy.http_terms import HttpTerms
from smarthost.reception.http.problem import Refused, no_caller
from smarthost.reception.keys import Keys, digest_of

_EVERYTHING = frozenset(Scope)
# Who shows one of these speaks for somebody else: a page in a browser, or a client behind a proxy. No such request is
# believed for the address that it comes from.
_FOR_OTHERS = (b"origin", b"sec-fetch-site", b"forwarded", b"x-forwarded-for")


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
    """Knows callers by their tokens, or by where they are. `follow` replaces the terms at a reload."""

    def __init__(self, keys: Keys, terms: HttpTerms) -> None:
        """Look keys up in `keys`."""
        self.keys = keys
        self._known: dict[str, Caller] = {}  # by key; a key's tenant and scopes never change
        self.follow(terms)

    def follow(self, terms: HttpTerms) -> None:
        """Follow other settings."""
        self._terms, self._networks = terms, Networks(terms.trusted_networks)

    def find(self, headers: Mapping[bytes, bytes], client: str = "") -> Caller | None:
        """Give who asks from an IP address, None for nobody known; raises Refused (401) for a token that is not good.

        The operator names the tenant in X-Smarthost-Tenant, "default" without it; a key has its own.
        """
        token: str | None = None
        shown = headers.get(b"authorization")
        if shown is not None and shown[:7].lower() == b"bearer ":
            token = shown[7:].strip().decode("latin-1")
        elif (other := headers.get(b"x-api-token")) is not None:
            token = other.strip().decode("latin-1")
        elif not self._terms.trusted_networks or not self._is_trusted(headers, client):
            return None
        key = self.keys.verify(token) if token is not None else None
        shown_tenant = headers.get(b"x-smarthost-tenant")
        named = shown_tenant.decode("latin-1").strip() if shown_tenant is not None else ""
        if key is not None:
            if named and named != key.tenant:
                raise Refused(403, "this key is another tenant's")
            caller = self._known.get(key.id)
            if caller is None:
                caller = self._known[key.id] = Caller(key.tenant, frozenset(key.scopes), key)
            return caller
        if token is not None and not self._is_operator(token):
            raise no_caller()
        if named and TENANT.fullmatch(named) is None:
            raise Refused(400, "X-Smarthost-Tenant: 1 to 64 letters a-z, digits and dashes are allowed")
        return Caller(named or DEFAULT_TENANT, _EVERYTHING)

    def _is_trusted(self, headers: Mapping[bytes, bytes], client: str) -> bool:
        return client in self._networks and not any(name in headers for name in _FOR_OTHERS)

    def _is_operator(self, token: str) -> bool:
        digest = digest_of(token)
        fits = False
        for each in self._terms.tokens:  # each is compared, so that the time tells nothing of which
            fits |= hmac.compare_digest(digest, each)
        return fits
