"""Obtains the first refresh token of a login by an authorization code (RFC 8252, with PKCE, RFC 7636).

For scopes that an endpoint gives to no device. The person's browser may be on another machine: it is sent to an address
where nobody listens, and the person copies that address, which has the code in it, from the browser to us.
"""

import secrets
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable
from hashlib import sha256
from urllib.parse import parse_qs, urlencode, urlsplit

from smarthost.network.oauth_answer import Asked, TokenFault, clean, read_tokens
from smarthost.network.oauth_device import NO_REFRESH_TOKEN, Post
from smarthost.network.oauth_grant import SECRET_FIELDS, Grant, Sign, client_proof

REDIRECT = "http://localhost:8400"  # endpoints take any port of loopback for an installed application (RFC 8252 7.3)


class BrowserLogin:
    """One run of the flow for one login; `address` is where the person has to go."""

    def __init__(self, grant: Grant, sign: Sign | None, post: Post, clock: Callable[[], float] = time.time) -> None:
        """Draw what binds the answer to this run; nobody is asked yet."""
        self._grant, self._sign, self._post, self._clock = grant, sign, post, clock
        self._state, self._verifier = secrets.token_urlsafe(24), secrets.token_urlsafe(48)
        challenge = urlsafe_b64encode(sha256(self._verifier.encode()).digest()).rstrip(b"=").decode()
        fields = {
            "response_type": "code",
            "client_id": grant.client_id,
            "redirect_uri": REDIRECT,
            "scope": grant.scope,
            "state": self._state,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            "login_hint": grant.username,
            # Google gives a refresh token only to who asks for it so.
            "access_type": "offline",
            "prompt": "consent",
        }
        self.address = f"{grant.authorize_url}?{urlencode(fields)}"

    def finish(self, pasted: str) -> str | TokenFault:
        """Take the address that the browser was sent to; gives the refresh token."""
        grant = self._grant
        try:
            found = {key: values[0] for key, values in parse_qs(urlsplit(pasted.strip()).query).items()}
        except ValueError:
            found = {}
        if found.get("state", "") != self._state:
            return TokenFault("that is not the address that this login ended at", "bad_address")
        if "error" in found:
            error = clean(found["error"], ())[:60]
            return TokenFault(f"the login was refused: {error}", error)
        if "code" not in found:
            return TokenFault("there is no code in that address", "bad_address")
        form = {
            "grant_type": "authorization_code",
            "client_id": grant.client_id,
            "code": found["code"],
            "redirect_uri": REDIRECT,
            "code_verifier": self._verifier,
        } | client_proof(grant, self._sign, self._clock(), str(uuid.uuid4()))
        hidden = [form[field] for field in SECRET_FIELDS if form.get(field)]
        tokens = read_tokens(self._post(grant.token_url, form), Asked(grant.token_url, grant.name, hidden))
        if isinstance(tokens, TokenFault):
            return tokens
        return tokens.refresh or NO_REFRESH_TOKEN
