"""Reads what a token endpoint answers: tokens, or one clear sentence on why there are none."""

import json
import re
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import msgspec

from smarthost.network.https import Answer, HttpsFault

LIFETIME = 300.0  # seconds for a token whose answer does not say: short, so that nothing is lost by being wrong
LONGEST_LIFETIME = 86400.0
_MOST_TEXT = 240  # characters of a description
_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")  # RFC 6749 A.12, without the space that no bearer token has (RFC 6750 2.1)
_MICROSOFT_CODE = re.compile(r"AADSTS(\d+)")
_MICROSOFT_TAIL = re.compile(r"\s*(?:Trace ID|Correlation ID|Timestamp):.*", re.DOTALL)

# What a person can do about it. Codes of Microsoft stand before the general ones of RFC 6749 5.2 and RFC 8628 3.5.
_LOGIN_AGAIN = "run: smarthost oauth login {name}"
_ADVICE: Mapping[str, str] = MappingProxyType(
    {
        "7000215": "the client secret is wrong: the secret's value is wanted, not its id",
        "7000222": "the client secret has expired: make a new one",
        "7000218": "this client needs client_secret or a certificate, or must be allowed public client flows",
        "700016": "client_id is not known in this tenant",
        "700027": "the certificate is not registered for this client",
        "700024": "this machine's clock is wrong",
        "90002": "there is no such tenant",
        "900023": "there is no such tenant",
        "65001": "the permission was not consented to",
        "53003": "a conditional access policy forbids it",
        "70008": _LOGIN_AGAIN,
        "700082": _LOGIN_AGAIN,
        "50173": _LOGIN_AGAIN,
        "invalid_grant": _LOGIN_AGAIN,
        "invalid_client": "client_id, client_secret or the certificate is wrong",
        "unauthorized_client": "the client may not use this way, or the account is not delegated to it",
        "invalid_scope": "the scope is not allowed for this client",
    }
)


class TokenFault(msgspec.Struct, frozen=True):
    """Why there is no token: a sentence without secrets; `error` is the code of RFC 6749 5.2, "" where none came."""

    reason: str
    error: str = ""


class Tokens(msgspec.Struct, frozen=True):
    """What a token endpoint gave: an access token, its seconds, and a new refresh token or ""."""

    access: str
    lifetime: float
    refresh: str = ""

    def __repr__(self) -> str:
        """Write it without the tokens."""
        return f"Tokens(lifetime={self.lifetime})"


class Asked(msgspec.Struct, frozen=True):
    """Who was asked, for sentences: the address, the login's name, and what was sent that no sentence may show."""

    url: str
    name: str
    secrets: Collection[str]
    can_log_in: bool = False

    def __repr__(self) -> str:
        """Write it without the secrets."""
        return f"Asked({self.url!r}, {self.name!r})"


def read_tokens(answer: Answer | HttpsFault, asked: Asked) -> Tokens | TokenFault:
    """Make tokens of an answer (RFC 6749 5.1), or say what is wrong."""
    fields = read_fields(answer, asked)
    if isinstance(fields, TokenFault):
        return fields
    access, refresh = fields.get("access_token"), fields.get("refresh_token", "")
    if not (isinstance(access, str) and _TOKEN.fullmatch(access)):
        return TokenFault(f"{_who(asked)} gave no access token")
    if str(fields.get("token_type", "Bearer")).lower() != "bearer":
        return TokenFault(f"{_who(asked)} gave a token that is no bearer token")
    if not (isinstance(refresh, str) and _TOKEN.fullmatch(refresh)):
        refresh = ""
    return Tokens(access, _lifetime(fields.get("expires_in")), refresh)


def read_fields(answer: Answer | HttpsFault, asked: Asked) -> dict[str, Any] | TokenFault:
    """Give the JSON object of a positive answer, or the fault of a negative one."""
    if isinstance(answer, HttpsFault):
        return TokenFault(f"{_who(asked)} {answer.reason}")
    try:
        fields = json.loads(answer.body)
    except ValueError:
        fields = None
    is_positive = 200 <= answer.status < 300
    if isinstance(fields, dict) and isinstance(fields.get("error"), str) and fields["error"]:
        return _refusal(fields, asked)
    if not is_positive or not isinstance(fields, dict):
        return TokenFault(f"{_who(asked)} answered {answer.status}" + ("" if not is_positive else " without JSON"))
    return fields


def _refusal(fields: Mapping[str, Any], asked: Asked) -> TokenFault:
    error = clean(fields["error"], asked.secrets)[:60]
    text = fields.get("error_description")
    text = clean(_MICROSOFT_TAIL.sub("", text), asked.secrets) if isinstance(text, str) else ""
    code = _MICROSOFT_CODE.search(text)
    advice = _ADVICE.get(code[1] if code else "") or _ADVICE.get(error, "")
    if advice == _LOGIN_AGAIN and not asked.can_log_in:
        advice = ""
    reason = f"{_who(asked)} refused: {error}" + (f" ({text.rstrip('.')})" if text else "")
    return TokenFault(reason + (f"; {advice.format(name=asked.name)}" if advice else ""), error)


def _who(asked: Asked) -> str:
    return f"the token endpoint {urlsplit(asked.url).hostname}"


def clean(text: str, secrets: Collection[str]) -> str:
    """Take out what was sent in secret, in case that the endpoint repeats it, and what would break a line."""
    for secret in secrets:
        text = text.replace(secret, "***")
    text = " ".join("".join(mark if mark.isprintable() else " " for mark in text).split())
    return text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}..."


def _lifetime(value: object) -> float:
    try:
        lifetime = float(value) if isinstance(value, int | float | str) else LIFETIME
    except ValueError:
        return LIFETIME
    return min(lifetime, LONGEST_LIFETIME) if lifetime > 0 else LIFETIME
