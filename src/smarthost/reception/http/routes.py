"""Routes: everything behind the front, as one Litestar application with its OpenAPI document."""

import re
from collections.abc import Sequence

from litestar import Litestar, Response, Router
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.handlers import BaseRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import Components, Reference, SecurityScheme
from litestar.types import ControllerRouterHandler

from smarthost.mail.key import Scope
from smarthost.reception.http.asking import Asking
from smarthost.reception.http.callers import Caller
from smarthost.reception.http.document import Document, Page
from smarthost.reception.http.parts import HttpParts
from smarthost.reception.http.problem import CONTENT_TYPE, Refused, crashed, no_caller

NEEDS = "needs"  # what a route's `opt` says of the scope that it needs; None is everybody, and nothing is nobody

_PROBLEM = CONTENT_TYPE.decode()
_OF_FIELD = re.compile(r"Object (contains unknown|missing required) field `(.*)`", re.DOTALL)  # as msgspec says it


def make_routes(parts: HttpParts, routes: Sequence[ControllerRouterHandler]) -> Litestar:
    """Give the application. Each route's `opt` says by NEEDS which scope it wants; else nobody may use it."""
    return Litestar(
        route_handlers=routes,
        state=State({"parts": parts}),
        guards=[check_scope],
        exception_handlers={Refused: _say_refused, HTTPException: _say_fault, Exception: _say_crash},
        openapi_config=_openapi(parts.version),
        request_max_body_size=parts.terms.max_request_size,
        logging_config=None,
        debug=False,
    )


def check_scope(connection: ASGIConnection, route: BaseRouteHandler) -> None:  # type: ignore[type-arg]
    """Let a caller in whose key has the scope that the route needs; raises Refused (401, 403)."""
    needs = route.opt.get(NEEDS, Scope.ADMIN)
    if needs is None:
        return
    caller: Caller | None = connection.scope["state"].get("caller")
    if caller is None:
        raise no_caller()
    if needs not in caller.scopes:
        raise Refused(403, f"this needs a key with the scope {needs}")


def _openapi(version: str) -> OpenAPIConfig:
    schemes: dict[str, SecurityScheme | Reference] = {
        "bearer": SecurityScheme(type="http", scheme="bearer", description="An API key, or a token of the operator."),
        "token": SecurityScheme(type="apiKey", name="X-API-Token", security_scheme_in="header"),
    }
    return OpenAPIConfig(
        title="smarthost",
        version=version,
        description="Mail in over HTTP, on the same queue and with the same promises as over SMTP.",
        components=Components(security_schemes=schemes),
        security=[{"bearer": []}, {"token": []}],
        use_handler_docstrings=True,
        render_plugins=[Document(), Page()],
        openapi_router=Router(path="/api/v1", route_handlers=[], opt={NEEDS: None}, include_in_schema=False),
    )


def _say_refused(_: Asking, refused: Refused) -> Response[bytes]:
    return Response(refused.encode(), status_code=refused.status, media_type=_PROBLEM, headers=dict(refused.headers))


def _say_crash(request: Asking, error: Exception) -> Response[bytes]:
    return _say_refused(request, crashed(error))


def _name_field(key: str, message: str) -> tuple[str, str]:
    """Give a fault by the field that it is about: of the whole content Litestar says "data", which nobody has sent."""
    if key != "data":
        return key, message
    if message == "'data'":
        return "", "the content is missing"
    if found := _OF_FIELD.fullmatch(message):
        return found[2], "is not a field" if "unknown" in found[1] else "is missing"
    return "", message


def _say_fault(request: Asking, fault: HTTPException) -> Response[bytes]:
    """Give what Litestar found wrong with a request as a problem document."""
    extra = fault.extra if isinstance(fault.extra, list) else []
    errors = [
        _name_field(str(each.get("key", "")), str(each.get("message", ""))) for each in extra if isinstance(each, dict)
    ]
    status = 422 if errors and fault.status_code == 400 else fault.status_code
    if status >= 500:
        detail = "the log has the reason"
    elif errors:
        detail = "; ".join(f"{field}: {message}" if field else message for field, message in errors)
    else:
        detail = fault.detail or ""
    headers = {name: value for name, value in (fault.headers or {}).items() if name.lower() != "content-type"}
    return _say_refused(request, Refused(status, detail, errors=errors, headers=headers))
