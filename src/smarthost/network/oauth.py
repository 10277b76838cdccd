"""Access tokens of one login: fetched one at a time, kept in memory alone, renewed before they expire."""

import asyncio
import logging
import ssl
import uuid
from collections.abc import Callable
from pathlib import Path
from random import Random

from smarthost.network.https import TIMEOUT, post_form
from smarthost.network.in_thread import in_thread
from smarthost.network.oauth_answer import Asked, TokenFault, Tokens, read_tokens
from smarthost.network.oauth_file import read_refresh_token, write_refresh_token
from smarthost.network.oauth_grant import SECRET_FIELDS, Grant, Sign, token_form

log = logging.getLogger(__name__)

PATIENCE = 60.0  # seconds after which nobody waits for a fetch any more, whatever its thread waits for
FAULT_STANDS = 5.0  # seconds for which a fault is believed, so that sessions opened together ask once
# Parts of a token's lifetime: after the first, and up to the second, it is renewed while it is still in use; each
# token draws its own moment between them, so that many relays do not ask in step.
RENEW_FROM, RENEW_TO = 0.75, 0.9
LAST_MOMENT = 0.95  # from then on nobody logs in with it


class TokenSource:
    """Gives the access token of one login. Mutable: holds the token, and the fetch that is under way.

    `context` gives the TLS context for the endpoint, and raises ValueError when its trust anchor cannot be read.
    """

    def __init__(
        self,
        grant: Grant,
        sign: Sign | None,
        context: Callable[[], ssl.SSLContext],
        clock: Callable[[], float],
        rng: Random,
    ) -> None:
        """Begin without a token; nothing is asked until one is wanted."""
        self.grant = grant
        self._sign, self._context, self._clock, self._rng = sign, context, clock, rng
        self._token = ""
        self._renew_at = self._usable_until = 0.0
        self._fault: tuple[float, TokenFault] | None = None
        self._fetching: asyncio.Task[str | TokenFault] | None = None
        # What the file said when a newer token could not be written over it, and that newer one.
        self._unwritten: tuple[str, str] | None = None

    def __repr__(self) -> str:
        """Write it without the token."""
        return f"TokenSource({self.grant!r})"

    async def token(self, refused: str = "") -> str | TokenFault:
        """Give a token that is good for a login now, one that was fetched after `refused` if that is given.

        Who asks while a fetch is under way gets that one's result. A token that will expire soon is given while it is
        renewed behind it. A fault stands for 5 s.
        """
        now = self._clock()
        if self._token and self._token != refused and now < self._usable_until:
            if now >= self._renew_at and self._fetching is None and self._recent_fault(now) is None:
                self._fetching = self._start()
            return self._token
        if self._fetching is None:
            if (fault := self._recent_fault(now)) is not None:
                return fault
            self._fetching = self._start()
        # Whoever is cancelled while waiting does not take the fetch from the others.
        return await asyncio.shield(self._fetching)

    def forget_fault(self) -> None:
        """Ask again at the next login, as a person wants who has mended what was wrong."""
        self._fault = None

    async def close(self, patience: float) -> None:
        """Wait some seconds for a fetch that is under way, then give it up."""
        if self._fetching is not None:
            _, late = await asyncio.wait((self._fetching,), timeout=patience)
            for task in late:
                task.cancel()

    def _recent_fault(self, now: float) -> TokenFault | None:
        return self._fault[1] if self._fault is not None and now < self._fault[0] else None

    def _start(self) -> "asyncio.Task[str | TokenFault]":
        task = asyncio.get_running_loop().create_task(self._renew(), name=f"token of {self.grant.name}")
        task.add_done_callback(self._done)
        return task

    def _done(self, task: "asyncio.Task[str | TokenFault]") -> None:
        self._fetching = None

    async def _renew(self) -> str | TokenFault:
        """Fetch a token and hold it; a fault is remembered for a moment."""
        grant = self.grant
        try:
            async with asyncio.timeout(PATIENCE):
                found: Tokens | TokenFault = await in_thread(self._exchange)
        except TimeoutError:
            found = TokenFault("the token endpoint did not answer in time")
        except Exception:
            log.exception("fetching a token for the login of route %s failed", grant.name)
            found = TokenFault("no token could be fetched because of an internal error")
        now = self._clock()
        if isinstance(found, TokenFault):
            self._fault = (now + FAULT_STANDS, found)
            if now < self._usable_until:
                log.warning("the token of route %s was not renewed: %s", grant.name, found.reason)
            return found
        self._fault = None
        self._token = found.access
        self._renew_at = now + found.lifetime * self._rng.uniform(RENEW_FROM, RENEW_TO)
        self._usable_until = now + found.lifetime * LAST_MOMENT
        log.info("a token for the login of route %s was fetched; it is good for %.0f s", grant.name, found.lifetime)
        return self._token

    def _exchange(self) -> Tokens | TokenFault:
        """Ask the endpoint, and write a rotated refresh token back; in a thread, which ends what it has begun.

        The token that it was asked with may be dead as soon as the answer is there.
        """
        grant, used = self.grant, ""
        if grant.refresh_token_file is not None:
            try:
                used = self._refresh_token(grant.refresh_token_file)
            except (OSError, UnicodeDecodeError) as error:
                why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
                return TokenFault(f"the refresh token in {grant.refresh_token_file} cannot be read: {why}")
            if not used:
                return TokenFault(f"{grant.refresh_token_file} is empty; run: smarthost oauth login {grant.name}")
        try:
            context = self._context()
        except ValueError as error:
            return TokenFault(f"the token endpoint cannot be verified: {error}")
        form = token_form(grant, used, self._sign, self._clock(), str(uuid.uuid4()))
        secrets = [form[field] for field in SECRET_FIELDS if form.get(field)]
        asked = Asked(grant.token_url, grant.name, secrets, grant.refresh_token_file is not None)
        found = read_tokens(post_form(grant.token_url, form, context, TIMEOUT), asked)
        if isinstance(found, Tokens) and grant.refresh_token_file is not None and found.refresh not in ("", used):
            self._keep(grant.refresh_token_file, used, found.refresh)
        return found

    def _refresh_token(self, path: Path) -> str:
        """Read the file anew each time: `smarthost oauth login` may have written it meanwhile."""
        written = read_refresh_token(path)
        if self._unwritten is not None and self._unwritten[0] == written:
            return self._unwritten[1]
        self._unwritten = None
        return written

    def _keep(self, path: Path, used: str, fresh: str) -> None:
        try:
            write_refresh_token(path, fresh)
        except OSError as error:
            self._unwritten = (self._unwritten[0] if self._unwritten else used, fresh)
            text = "the new refresh token of route %s cannot be written to %s, and is kept in memory alone: %s"
            log.error(text, self.grant.name, path, error.strerror or error)
        else:
            self._unwritten = None
