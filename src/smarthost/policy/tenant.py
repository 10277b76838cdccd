"""Tenants as clients of a mail proxy make them: who they are, and where their applications hear what became of mail."""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import msgspec

from smarthost.mail.key import TENANT
from smarthost.policy.account import Fault
from smarthost.policy.client_sync import SyncTarget
from smarthost.policy.webhook import url_fault

SYNC_PATH = "/mail-proxy/sync"
_LONGEST = 1024  # characters of a text
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class AuthMethod(StrEnum):
    """How an application knows us: by nothing, a token, user and password, or what a secret has signed."""

    NONE = "none"
    BEARER = "bearer"
    BASIC = "basic"
    HMAC = "hmac"


class ProxyTenant(msgspec.Struct, frozen=True):
    """A tenant. `client_base_url` "" is one whose application is told nothing; times are Unix seconds.

    `others` are settings of the proxy's that are kept and shown, and mean nothing here.
    """

    id: str
    name: str = ""
    client_base_url: str = ""
    client_sync_path: str = ""
    client_attachment_path: str = ""
    method: AuthMethod = AuthMethod.NONE
    user: str = ""
    active: bool = True
    created: float = 0.0
    updated: float = 0.0
    others: Mapping[str, Any] = _NOTHING


def check_tenant(tenant: ProxyTenant, secret: str) -> list[Fault]:
    """Give everything that is wrong with a tenant, nothing when it can be used; `secret` is what its method needs."""
    faults = []
    if TENANT.fullmatch(tenant.id) is None:
        faults.append(Fault("id", "1 to 64 letters a-z, digits and dashes"))
    for name in ("name", "client_base_url", "client_sync_path", "client_attachment_path", "user"):
        text = getattr(tenant, name)
        if len(text) > _LONGEST or not text.isprintable():
            faults.append(Fault(name, f"must have at most {_LONGEST} characters that can be printed"))
    if len(secret) > _LONGEST or not secret.isprintable():
        faults.append(Fault("client_auth", f"must have at most {_LONGEST} characters that can be printed"))
    for name in ("client_sync_path", "client_attachment_path"):
        if getattr(tenant, name) and not getattr(tenant, name).startswith("/"):
            faults.append(Fault(name, 'must begin with "/"'))
    if not faults and tenant.client_base_url and (wrong := url_fault(sync_url(tenant))):
        faults.append(Fault("client_base_url", wrong))
    if tenant.method is not AuthMethod.NONE and not secret:
        faults.append(Fault("client_auth", f"{tenant.method} needs {_NEEDED[tenant.method]}"))
    if tenant.method is AuthMethod.BASIC and not tenant.user:
        faults.append(Fault("client_auth.user", "is missing"))
    return faults


_NEEDED = MappingProxyType({AuthMethod.BEARER: "token", AuthMethod.BASIC: "password", AuthMethod.HMAC: "secret"})


def sync_url(tenant: ProxyTenant) -> str:
    """Give where reports of a tenant are posted."""
    return tenant.client_base_url.rstrip("/") + (tenant.client_sync_path or SYNC_PATH)


def is_elsewhere(former: ProxyTenant, tenant: ProxyTenant) -> bool:
    """Whether the application of a changed tenant is at another server: scheme, host or port (RFC 6454 4)."""
    return urlsplit(former.client_base_url)[:2] != urlsplit(tenant.client_base_url)[:2]


def target_of(tenant: ProxyTenant, secret: str) -> SyncTarget | None:
    """Give who is told what became of a tenant's mail; None for nobody."""
    if not tenant.client_base_url or not tenant.active:
        return None
    url, method = sync_url(tenant), tenant.method
    if method is AuthMethod.BEARER:
        return SyncTarget(url, token=secret, is_guarded=True)
    if method is AuthMethod.BASIC:
        return SyncTarget(url, user=tenant.user, password=secret, is_guarded=True)
    return SyncTarget(url, secret=secret if method is AuthMethod.HMAC else "", is_guarded=True)
