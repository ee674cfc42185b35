"""Whether the node lives, and whether ticks and dispatch advance; and its metrics."""

from typing import Final, TypeAlias

import msgspec
from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import SkipValidation

from runtime.api.asked import answered
from runtime.health import HealthView
from runtime.metrics import CONTENT_TYPE, Metrics
from runtime.services import Services

GivenNode: TypeAlias = NamedDependency[SkipValidation[Services]]
GivenMetrics: TypeAlias = NamedDependency[SkipValidation[Metrics]]


class Alive(msgspec.Struct, frozen=True, kw_only=True):
    """The process answers."""

    alive: bool = True


@get("/health/live")
async def live() -> Alive:
    """Whether the node's loop turns; 200 whenever it can be said at all."""
    return Alive()


@get("/health/ready")
async def ready(node: GivenNode) -> Response[HealthView]:
    """Whether ticks and dispatch advance: 200 if so, else 503 with the reasons."""
    view = node.health.view()
    return answered(HealthView, msgspec.json.encode(view), status=200 if view.ready else 503)


@get("/metrics", media_type=CONTENT_TYPE)
async def metrics(metrics: GivenMetrics) -> Response[bytes]:
    """The node's figures, in Prometheus's text format."""
    return Response(content=await metrics.scrape(), media_type=CONTENT_TYPE)


ROUTES: Final = [live, ready, metrics]
