"""Words of OAuth 2.0 for a login: what it asks an access token with, and the request that this makes."""

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

MICROSOFT = "https://login.microsoftonline.com/{tenant}/oauth2/v2.0"
MICROSOFT_APP_SCOPE = "https://outlook.office365.com/.default"
MICROSOFT_USER_SCOPE = "https://outlook.office.com/SMTP.Send offline_access"
GOOGLE_TOKEN = "https://oauth2.googleapis.com/token"
GOOGLE_DEVICE = "https://oauth2.googleapis.com/device/code"
GOOGLE_AUTHORIZE = "https://accounts.google.com/o/oauth2/v2/auth"
GOOGLE_SCOPE = "https://mail.google.com/"

_JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"  # RFC 7523 2.1
_CLIENT_JWT = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"  # RFC 7523 2.2
_CLIENT_LIFETIME = 600  # seconds that a client assertion is good for; Microsoft wants no more than ten minutes
_USER_LIFETIME = 3600  # seconds; the most that Google takes for a service account
_CLOCK_SKEW = 30  # seconds that our clock may be ahead of theirs

# Signs claims; gives a compact JWT.
Sign = Callable[[Mapping[str, object]], str]
# The fields whose values nobody may see.
SECRET_FIELDS = (
    "client_secret",
    "refresh_token",
    "assertion",
    "client_assertion",
    "device_code",
    "code",
    "code_verifier",
)


class Assertion(msgspec.Struct, frozen=True):
    """What proves who asks: a private key in PEM, with its certificate in PEM or its identifier.

    `account` is the service account whose word it is, "" where the key is the client's own.
    """

    key: bytes
    certificate: bytes = b""
    key_id: str = ""
    account: str = ""

    def __repr__(self) -> str:
        """Write it without the key."""
        return f"Assertion(account={self.account!r}, key_id={self.key_id!r})"


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """How one login gets its access tokens (RFC 6749 4.4 client credentials, 6 refresh token, RFC 7523 assertions).

    With `refresh_token_file` it is by refresh token; with an assertion of a service account by that; else by client
    credentials. `name` is the route's; `ca_file` one more trust anchor for the two addresses, "" for none.
    """

    name: str
    username: str
    token_url: str
    device_url: str = ""
    authorize_url: str = ""
    client_id: str = ""
    client_secret: str = ""
    scope: str = ""
    refresh_token_file: Path | None = None
    assertion: Assertion | None = None
    ca_file: str = ""

    def __repr__(self) -> str:
        """Write it without its secrets."""
        return f"Grant(name={self.name!r}, token_url={self.token_url!r}, client_id={self.client_id!r})"


def token_form(grant: Grant, refresh_token: str, sign: Sign | None, now: float, nonce: str) -> dict[str, str]:
    """Give the fields of the request for an access token; `nonce` makes a client's assertion unique."""
    assertion = grant.assertion
    if assertion is not None and assertion.account:
        assert sign is not None
        claims: dict[str, object] = {"iss": assertion.account, "sub": grant.username, "aud": grant.token_url}
        claims |= {"scope": grant.scope} | _times(now, _USER_LIFETIME)
        return {"grant_type": _JWT_BEARER, "assertion": sign(claims)}
    form = {"grant_type": "client_credentials", "client_id": grant.client_id}
    if grant.refresh_token_file is not None:
        form |= {"grant_type": "refresh_token", "refresh_token": refresh_token}
    if grant.scope:
        form["scope"] = grant.scope
    return form | client_proof(grant, sign, now, nonce)


def client_proof(grant: Grant, sign: Sign | None, now: float, nonce: str) -> dict[str, str]:
    """Give the fields by which a client proves who it is; none for a public client."""
    if grant.assertion is not None:
        assert sign is not None
        claims: dict[str, object] = {"iss": grant.client_id, "sub": grant.client_id, "aud": grant.token_url}
        claims |= {"jti": nonce, "nbf": int(now) - _CLOCK_SKEW} | _times(now, _CLIENT_LIFETIME)
        return {"client_assertion_type": _CLIENT_JWT, "client_assertion": sign(claims)}
    return {"client_secret": grant.client_secret} if grant.client_secret else {}


def _times(now: float, lifetime: int) -> dict[str, object]:
    issued = int(now) - _CLOCK_SKEW
    return {"iat": issued, "exp": issued + lifetime}
