"""Gives sessions their logins, each with its password or with where its tokens come from."""

import asyncio
from collections.abc import Callable
from random import Random

from smarthost.config import Config, Login
from smarthost.crypto.jwt import JwtSigner
from smarthost.crypto.tls import TlsContexts
from smarthost.mail.route import TlsLevel
from smarthost.network.oauth import TokenSource
from smarthost.network.oauth_grant import Grant, Sign
from smarthost.network.opening import Credentials

LAST_PATIENCE = 0.5  # seconds at shutdown for a token endpoint that is being asked


class Logins:
    """The logins of a configuration by the name of their route. Mutable: a reload replaces them."""

    def __init__(self, config: Config, contexts: TlsContexts, clock: Callable[[], float], rng: Random) -> None:
        """Begin with no token."""
        self._contexts, self._clock, self._rng = contexts, clock, rng
        self._sources: dict[str, TokenSource] = {}
        self._credentials: dict[str, Credentials] = {}
        self.follow(config)

    def follow(self, config: Config) -> None:
        """Take the logins of a new configuration; one that asks as before keeps its token."""
        former = self._sources
        self._sources = {}
        for name, login in config.credentials.items():
            if login.grant is not None:
                known = former.get(name)
                is_same = known is not None and known.grant == login.grant
                self._sources[name] = known if known is not None and is_same else self._source(login.grant)
        self._credentials = {name: self._make(name, login) for name, login in config.credentials.items()}
        # A source that is not used any more ends its fetch: a refresh token may come with it that has to be kept.
        self.forget_faults()

    def of(self, name: str) -> Credentials | None:
        """Give a login; None where none is configured."""
        return self._credentials.get(name)

    def forget_faults(self) -> None:
        """Let every login ask for its token again."""
        for source in self._sources.values():
            source.forget_fault()

    async def close(self) -> None:
        """Wait a moment for what is being fetched, since a refresh token may come with it; then give it up."""
        await asyncio.gather(*(source.close(LAST_PATIENCE) for source in self._sources.values()))

    def _make(self, name: str, login: Login) -> Credentials:
        return Credentials(login.username, login.password, login.mechanism.value, self._sources.get(name))

    def _source(self, grant: Grant) -> TokenSource:
        return TokenSource(
            grant,
            make_sign(grant),
            lambda: self._contexts.for_level(TlsLevel.VERIFY, grant.ca_file),
            self._clock,
            self._rng,
        )


def make_sign(grant: Grant) -> Sign | None:
    """Give what signs a login's assertions, None where it needs none; raises JwtKeyFault."""
    assertion = grant.assertion
    if assertion is None:
        return None
    return JwtSigner(assertion.key, assertion.certificate, assertion.key_id).sign
