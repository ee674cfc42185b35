"""What is known by name and not built yet: each path says so, by any method."""

from typing import Any, Final

from litestar import HttpMethod, route
from litestar.handlers import HTTPRouteHandler

from runtime.api.problems import RefusedError

NOT_BUILT: Final = {
    "/dags": "DAGs are not built yet: `dependencies:` between jobs are",
}
_METHODS: Final = [
    HttpMethod.GET,
    HttpMethod.POST,
    HttpMethod.PUT,
    HttpMethod.PATCH,
    HttpMethod.DELETE,
]


def _refusing(path: str, sentence: str) -> HTTPRouteHandler:
    @route([path, f"{path}/{{rest:path}}"], http_method=_METHODS, include_in_schema=False)
    async def refuse() -> Any:
        raise RefusedError(404, "not_built", sentence)

    return refuse


ROUTES: Final = [_refusing(path, sentence) for path, sentence in NOT_BUILT.items()]
