"""Health: whether the relay is well, and whether it takes mail; for everybody, so that a load balancer can ask."""

import msgspec
from litestar import Response, get
from litestar.handlers import HTTPRouteHandler

from smarthost.reception.http.asking import Asking, parts_of
from smarthost.reception.http.parts import Probe
from smarthost.reception.http.problem import STOP_PATIENCE
from smarthost.reception.http.routes import NEEDS


class Health(msgspec.Struct, frozen=True):
    """How the relay is: "ok" or "failing", and the reasons."""

    status: str
    reasons: list[str]


@get("/api/v1/health", opt={NEEDS: None}, security=[{}])
async def health(request: Asking) -> Response[Health]:
    """Say whether the relay works."""
    return _say(parts_of(request).healthy)


@get("/api/v1/ready", opt={NEEDS: None}, security=[{}])
async def ready(request: Asking) -> Response[Health]:
    """Say whether the relay takes mail."""
    return _say(parts_of(request).ready)


def _say(probe: Probe) -> Response[Health]:
    reasons = list(probe())
    if not reasons:
        return Response(Health("ok", []))
    return Response(Health("failing", reasons), status_code=503, headers={"Retry-After": str(STOP_PATIENCE)})


HEALTH: tuple[HTTPRouteHandler, ...] = (health, ready)
