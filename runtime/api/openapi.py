"""The OpenAPI 3.1 document: Litestar's, with what routes take as their `opt` says."""

from collections.abc import Callable
from typing import Any, Final

import msgspec
from litestar import Litestar, Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute

from runtime.api.asked import Nothing
from runtime.api.problems import MEDIA_TYPE, ProblemDetails

PATH: Final = "/api/openapi.json"
_REF: Final = "#/components/schemas/{name}"
_TENANT: Final = {
    "name": "X-Tenant",
    "in": "header",
    "required": False,
    "description": "For whom; default: `default`. The parameter `tenant` says it too.",
    "schema": {"type": "string"},
}
_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Said again within 24 hours, the request is answered again and does nothing.",
    "schema": {"type": "string", "maxLength": 255},
}
_USER: Final = {
    "name": "X-User",
    "in": "header",
    "required": False,
    "description": "Who asks, for the audit: what a client says of itself, and no proof.",
    "schema": {"type": "string", "maxLength": 200},
}
_TOKEN: Final = {
    "name": "X-Fencing-Token",
    "in": "header",
    "required": True,
    "description": "RUNTIME_FENCING_TOKEN of the running attempt.",
    "schema": {"type": "integer"},
}
_CONDITIONS: Final = [
    {
        "name": name,
        "in": "header",
        "required": False,
        "description": "The ETag of the version that is meant, or *.",
        "schema": {"type": "string"},
    }
    for name in ("If-Match", "If-None-Match")
]


def route(app: Callable[[], Litestar]) -> HTTPRouteHandler:
    """The route that answers with the document, which is made once."""
    made: list[bytes] = []

    @get(PATH, include_in_schema=False, media_type="application/json")
    async def document() -> Response[bytes]:
        if not made:
            made.append(msgspec.json.encode(describe(app())))
        return Response(content=made[0], media_type="application/json")

    return document


def describe(app: Litestar) -> dict[str, Any]:
    """The whole document."""
    document: dict[str, Any] = app.openapi_schema.to_schema()
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    _schema_of(ProblemDetails, schemas)
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for one in app.routes:
        if not isinstance(one, HTTPRoute):
            continue
        operations = document["paths"].get(one.path_format, {})
        for handler in one.route_handlers:
            for method in handler.http_methods:
                found = operations.get(method.lower())
                if found is not None:
                    _describe(found, str(method), handler.opt, one.path_format, schemas)
    return document


def _describe(
    operation: dict[str, Any], method: str, opt: dict[str, Any], path: str, schemas: dict[str, Any]
) -> None:
    parameters = operation.setdefault("parameters", [])
    operation["responses"].pop("400", None)
    if path.startswith("/api/"):
        parameters.append(_TENANT)
        parameters += _query(opt.get("query", Nothing), schemas)
        operation["responses"]["default"] = {
            "description": "A refusal, as problem details (RFC 9457).",
            "content": {MEDIA_TYPE: {"schema": {"$ref": _REF.format(name="ProblemDetails")}}},
        }
    if method in {"PUT", "PATCH", "DELETE"}:
        parameters += _CONDITIONS
    if opt.get("by") == "task":
        parameters.append(_TOKEN)
    elif method != "GET":
        operation["security"] = [{"token": []}]
        parameters.append(_USER)
        if method == "POST":
            parameters.append(_KEY)
    if "body" in opt:
        schema = _schema_of(opt["body"], schemas)
        content = {"application/json": {"schema": schema}}
        operation["requestBody"] = {"required": False, "content": content}
    if "stream" in opt:
        schema = _schema_of(opt["stream"], schemas)
        content = {"text/event-stream": {"schema": schema}}
        operation["responses"]["200"] = {"description": "Server-sent events.", "content": content}


def _schema_of(shape: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    (found,), parts = msgspec.json.schema_components([shape], ref_template=_REF)
    for name, part in parts.items():
        schemas.setdefault(name, part)
    return found


def _query(shape: Any, schemas: dict[str, Any]) -> list[dict[str, Any]]:
    """The fields of a struct as query parameters."""
    _, parts = msgspec.json.schema_components([shape], ref_template=_REF)
    fields = parts[shape.__name__].get("properties", {})
    for name, part in parts.items():
        if name != shape.__name__:
            schemas.setdefault(name, part)
    return [
        {"name": name, "in": "query", "required": False, "schema": schema}
        for name, schema in fields.items()
    ]
