"""Decides what TLS must prove on the way to a host, from the level of its route."""

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from smarthost.mail.route import Host, TlsLevel


class TlsPlan(msgspec.Struct, frozen=True):
    """How a session to a host uses TLS.

    `attempt`: TLS is used where it can be had; `required`: no mail without it; `verify`: the certificate must be
    trusted and match the host's name, or its address where the host is an address literal (RFC 6125 6.4, RFC 9525);
    `retry_plain`: after a handshake that failed a new session goes without TLS (RFC 7435).
    """

    attempt: bool
    required: bool
    verify: bool
    retry_plain: bool


_PLANS: Mapping[TlsLevel, TlsPlan] = MappingProxyType(
    {
        TlsLevel.NONE: TlsPlan(attempt=False, required=False, verify=False, retry_plain=False),
        TlsLevel.MAY: TlsPlan(attempt=True, required=False, verify=False, retry_plain=True),
        TlsLevel.ENCRYPT: TlsPlan(attempt=True, required=True, verify=False, retry_plain=False),
        TlsLevel.VERIFY: TlsPlan(attempt=True, required=True, verify=True, retry_plain=False),
    }
)


def plan(level: TlsLevel, host: Host) -> TlsPlan:
    """Give the plan for a host; raises ValueError for DANE, which the configuration refuses.

    TLS on connect cannot be done without, whatever the level; the level then says whether it must prove anything.
    """
    found = _PLANS.get(level)
    if found is None:
        raise ValueError(f"tls = {level.value!r} is not supported by this release")
    if host.implicit_tls and not found.required:
        return _PLANS[TlsLevel.ENCRYPT]
    return found
