"""Reads logins by OAuth 2.0: who gives the tokens, and what they are asked with."""

import json
import os
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from smarthost.config_read import Table, read_choice, read_existing_file, read_name, read_path, read_text, show
from smarthost.config_words import is_loopback
from smarthost.crypto.jwt import JwtKeyFault, JwtSigner
from smarthost.network import oauth_grant as grants
from smarthost.network.oauth_grant import Assertion, Grant

_KEYS = (
    "provider",
    "tenant",
    "client_id",
    "client_secret",
    "client_secret_file",
    "certificate",
    "key",
    "refresh_token_file",
    "service_account_file",
    "token_url",
    "device_url",
    "authorize_url",
    "scope",
    "token_ca",
)
_WAYS = "client_secret_file, certificate and key, refresh_token_file or service_account_file"


class Provider(StrEnum):
    """Whose addresses and scopes are known here."""

    MICROSOFT = "microsoft"
    GOOGLE = "google"


def refuse_grant(table: Table) -> None:
    """Refuse what belongs to a login by token in one by password."""
    for key in _KEYS:
        if table.has(key):
            table.refuse(key, 'has no meaning without mechanism = "xoauth2"')
    table.know(*_KEYS)


def read_grant(table: Table, route: str, username: str) -> Grant:
    """Read how the login of a route gets its tokens; each wrong combination is told, and every file is read."""
    for key in ("password", "password_file"):
        if table.has(key):
            table.refuse(key, f'has no meaning with mechanism = "xoauth2"; give {_WAYS}')
    table.know("password", "password_file")
    provider = table.take("provider", _read_provider, None)
    tenant = table.take("tenant", read_name, "")
    token_url = table.take("token_url", _read_url, "")
    device_url = table.take("device_url", _read_url, "")
    authorize_url = table.take("authorize_url", _read_url, "")
    _check_place(table, provider)
    client_id = table.take("client_id", read_name, "")
    client_secret = table.secret("client_secret")
    if table.is_for_all("client_secret"):
        table.warn("client_secret", "stands in a file that every user of this machine can read; use client_secret_file")
    assertion = _read_certificate(table)
    service = _read_service_account(table)
    refresh_file = _read_refresh_file(table, route)
    _check_way(table, provider)
    scope = table.take("scope", read_text, "")
    known = _known(provider, tenant, refresh_file is not None)
    return Grant(
        name=route,
        username=username,
        token_url=token_url or known.token_url,
        device_url=device_url or known.device_url,
        authorize_url=authorize_url or known.authorize_url,
        client_id=client_id,
        client_secret=client_secret,
        scope=scope or known.scope,
        refresh_token_file=refresh_file,
        assertion=service or assertion,
        ca_file=str(table.take("token_ca", read_existing_file, None) or ""),
    )


class _Known(NamedTuple):
    """What need not be configured."""

    token_url: str = ""
    device_url: str = ""
    authorize_url: str = ""
    scope: str = ""


def _known(provider: Provider | None, tenant: str, is_user: bool) -> _Known:
    """Give a provider's addresses, and the scope in which it lets an application or a person send mail."""
    if provider is Provider.MICROSOFT:
        place = grants.MICROSOFT.format(tenant=quote(tenant, safe=""))
        scope = grants.MICROSOFT_USER_SCOPE if is_user else grants.MICROSOFT_APP_SCOPE
        return _Known(f"{place}/token", f"{place}/devicecode", f"{place}/authorize", scope)
    if provider is Provider.GOOGLE:
        return _Known(grants.GOOGLE_TOKEN, grants.GOOGLE_DEVICE, grants.GOOGLE_AUTHORIZE, grants.GOOGLE_SCOPE)
    return _Known()


def _check_place(table: Table, provider: Provider | None) -> None:
    """See that it is known whom to ask."""
    if provider is None and not table.has("provider") and not table.has("token_url"):
        table.refuse("provider", 'or token_url must be given; provider is "microsoft" or "google"')
    if provider is Provider.MICROSOFT:
        if not table.has("tenant") and not table.has("token_url"):
            table.refuse("tenant", 'is missing; give the tenant\'s id or domain, or "organizations"')
    elif table.has("tenant") and not (table.has("provider") and provider is None):
        table.refuse("tenant", 'has no meaning without provider = "microsoft"')


def _check_way(table: Table, provider: Provider | None) -> None:
    """See that there is one way to prove who asks, which the provider knows."""
    given = [key for key in ("client_secret", "client_secret_file", "certificate") if table.has(key)]
    has_refresh, has_service = table.has("refresh_token_file"), table.has("service_account_file")
    if has_service:
        for key in ("client_id", "key", "refresh_token_file", *given):
            if table.has(key):
                table.refuse(key, "and service_account_file are both given; the service account's file says it all")
    elif not table.has("client_id"):
        table.refuse("client_id", "is missing" + _also_service(provider))
    if "certificate" in given and len(given) > 1:
        table.refuse("certificate", f"and {given[0]} are both given; give one of them")
    if provider is Provider.GOOGLE:
        if "certificate" in given:
            table.refuse("certificate", "is not taken by Google; give service_account_file or refresh_token_file")
        if not (has_refresh or has_service):
            table.refuse("provider", 'is "google", which wants service_account_file or refresh_token_file')
    elif provider is Provider.MICROSOFT and has_service:
        table.refuse("service_account_file", "is not taken by Microsoft; give client_secret_file or a certificate")
    elif not (given or has_refresh or has_service):
        table.refuse("mechanism", f'is "xoauth2", which wants one of: {_WAYS}')


def _also_service(provider: Provider | None) -> str:
    return "" if provider is Provider.MICROSOFT else "; only service_account_file makes it needless"


def _read_certificate(table: Table) -> Assertion | None:
    certificate = table.take("certificate", read_existing_file, None)
    problems = len(table.findings.problems)
    key = table.secret_file("key")
    if table.has("certificate") != table.has("key"):
        given, missing = ("certificate", "key") if table.has("certificate") else ("key", "certificate")
        table.refuse(missing, f"is missing; {given} is of no use without it")
        return None
    if certificate is None or not key or len(table.findings.problems) > problems:
        return None
    try:
        assertion = Assertion(key.encode(), certificate.read_bytes())
        JwtSigner(assertion.key, assertion.certificate)
    except OSError as error:
        table.refuse("certificate", f"is {str(certificate)!r}, which cannot be read: {error.strerror}")
    except JwtKeyFault as fault:
        table.refuse("key", f"is {show(table.values['key'])}, which {fault}")
    else:
        return assertion
    return None


def _read_service_account(table: Table) -> Assertion | None:
    text = table.secret_file("service_account_file")
    if not text:
        return None
    where = f"is {show(table.values['service_account_file'])}, which"
    try:
        fields = json.loads(text)
        key, account = fields["private_key"], fields["client_email"]
        assertion = Assertion(key.encode(), key_id=str(fields.get("private_key_id", "")), account=str(account))
        JwtSigner(assertion.key, key_id=assertion.key_id)
    except JwtKeyFault as fault:
        table.refuse("service_account_file", f"{where} has a private_key that {fault}")
    except (ValueError, LookupError, TypeError, AttributeError):
        table.refuse("service_account_file", f"{where} is no service account's JSON with client_email and private_key")
    else:
        return assertion
    return None


def _read_refresh_file(table: Table, route: str) -> Path | None:
    file = table.take("refresh_token_file", read_path, None)
    if file is None:
        return None
    if file.exists():
        table.secret_file("refresh_token_file")
        if not os.access(file.resolve().parent, os.W_OK):
            table.warn(
                "refresh_token_file",
                f"is {str(file)!r}, in a folder that this user may not write to, so that a new token cannot be kept",
            )
    elif table.findings.needs_tokens:
        missing = f"is {str(file)!r}, which is missing; make it by: smarthost oauth login {route}"
        table.refuse("refresh_token_file", missing)
    return file


def _read_provider(value: object) -> Provider | None:
    return read_choice(Provider)(value)


def _read_url(value: object) -> str:
    """Read an address that secrets may be sent to; raises ValueError."""
    text = read_name(value)
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host = ""
    allowed = bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)))
    if not allowed or not text.isascii() or " " in text or parts.username is not None or parts.fragment:
        raise ValueError(f'is {show(value)}, but must be "https://host/path"; http:// is for this machine alone')
    return text
