"""The application: every route of the API, its OpenAPI document, and the guard in front of it."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Final

from litestar import Litestar, Request, Router
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.types import ASGIApp

from runtime.api import (
    apply,
    dag_actions,
    dags,
    dead_letters,
    events,
    executions,
    health,
    house,
    job_actions,
    jobs,
    locks,
    openapi,
    task_calls,
)
from runtime.api.asked import Asked
from runtime.api.guards import APPLY_BYTES_MAX, Guard
from runtime.api.problems import answer_error
from runtime.api.tail import Tail
from runtime.metrics import Metrics
from runtime.services import Services

PREFIX: Final = "/api/v1"
_NOUNS: Final[Sequence[Any]] = (
    jobs,
    job_actions,
    executions,
    task_calls,
    dead_letters,
    locks,
    events,
    house,
    apply,
    dags,
    dag_actions,
)


def make_app(node: Services, *, tail: Tail, metrics: Metrics) -> ASGIApp:
    """The node's API as one ASGI application."""

    async def asked(request: Request[Any, Any, Any]) -> Asked:
        return Asked(request, node)

    async def the_node() -> Any:
        return node

    async def the_tail() -> Tail:
        return tail

    async def the_metrics() -> Metrics:
        return metrics

    handlers = [handler for noun in _NOUNS for handler in noun.ROUTES]
    document = openapi.route(lambda: app)
    app = Litestar(
        route_handlers=[Router(PREFIX, route_handlers=handlers), *health.ROUTES, document],
        dependencies={
            "asked": Provide(asked),
            "node": Provide(the_node),
            "tail": Provide(the_tail),
            "metrics": Provide(the_metrics),
        },
        exception_handlers={Exception: answer_error},
        openapi_config=OpenAPIConfig(
            title="Tickwright",
            version=version("tickwright"),
            path="/api/schema",
            render_plugins=[],
            use_handler_docstrings=True,
        ),
        request_max_body_size=APPLY_BYTES_MAX,
        logging_config=None,
    )
    return Guard(app, url=node.url, token=node.token)
