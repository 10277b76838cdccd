"""Asking: a request as the routes see it, and how they get at who asks and at the parts of the relay."""

from typing import Any

from litestar import Request

from smarthost.mail.key import TENANT
from smarthost.reception.http.callers import Caller
from smarthost.reception.http.parts import HttpParts
from smarthost.reception.http.problem import Refused, no_caller

Asking = Request[Any, Any, Any]
"""A request as the routes see it."""


def parts_of(request: Asking) -> HttpParts:
    """Give the parts of the relay."""
    parts: HttpParts = request.app.state.parts
    return parts


def caller_of(request: Asking) -> Caller:
    """Give who asks; raises Refused (401) for nobody."""
    caller: Caller | None = request.scope["state"].get("caller")
    if caller is None:
        raise no_caller()
    return caller


def tenant_named(caller: Caller, named: object) -> str:
    """Give the tenant that a request is about: the caller's, or the one that the operator names as `tenant_id`.

    Raises Refused (403, 422).
    """
    if named is None or named == "":
        return caller.tenant
    if not isinstance(named, str) or TENANT.fullmatch(named) is None:
        raise Refused(422, "a field is wrong", errors=[("tenant_id", "1 to 64 letters a-z, digits and dashes")])
    return tenant_of(caller, named)


def tenant_of(caller: Caller, named: str) -> str:
    """Give the tenant of an object that is to be made: the caller's, or the one that the operator names."""
    if not named or named == caller.tenant:
        return caller.tenant
    if not caller.is_operator:
        raise Refused(403, "this key is another tenant's")
    return named
