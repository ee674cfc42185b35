"""Every refusal as a problem details document (RFC 9457): one sentence, and the places it is about.

`errors` holds a JSON pointer (RFC 6901) and a sentence for each thing wrong in what was sent.
"""

from typing import Any, Final

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException

from protocols.errors import InvalidError, Problem, TickwrightError
from runtime.files.places import InvalidFileError

log = structlog.get_logger("tickwright.api")

MEDIA_TYPE: Final = "application/problem+json"
AWAY: Final = 503
RETRY_AFTER_S: Final = 1
POINTER_CHARS_MAX: Final = 1000

_TITLES: Final = {
    400: "The request cannot be read",
    401: "A token is needed",
    403: "Refused",
    404: "Not found",
    405: "Not allowed here",
    408: "Too slow",
    409: "Conflict",
    412: "Another version is in force",
    413: "Too large",
    415: "Not JSON",
    421: "Another host",
    422: "What was sent is wrong",
    429: "Too many",
    503: "Not available now",
}
_CODES: Final = {
    400: "unreadable",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
}


class ErrorPlace(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing wrong: where, as a JSON pointer into what was sent, and why.

    `file`, `line` and `column` (from 1) are set for what is wrong inside a job file.
    """

    pointer: str
    message: str
    file: str | None = None
    line: int | None = None
    column: int | None = None


class ProblemDetails(msgspec.Struct, frozen=True, kw_only=True):
    """The body of every refusal; `code` is stable, the sentences are not."""

    type: str = "about:blank"
    title: str
    status: int
    code: str
    detail: str
    errors: tuple[ErrorPlace, ...] = ()


class RefusedError(TickwrightError):
    """A request that is refused for its form, whatever it asks for."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.refusal = (status, code)


def problem_of(error: BaseException) -> ProblemDetails:
    """The document for any error; what was not foreseen says nothing of the inside."""
    match error:
        case RefusedError(refusal=(status, code)):
            found = _document(status, code, str(error))
        case TickwrightError():
            found = _document(error.status, error.code, _detail(error), _places(error))
        case HTTPException():
            code = _CODES.get(error.status_code, "refused")
            found = _document(error.status_code, code, error.detail)
        case _:
            found = _document(500, "internal", "an unexpected error: the node's log says more")
    return found


def _places(error: TickwrightError) -> tuple[ErrorPlace, ...]:
    if isinstance(error, InvalidError):
        return tuple(ErrorPlace(pointer=_pointer(p), message=p.message) for p in error.problems)
    if not isinstance(error, InvalidFileError):
        return ()
    return tuple(
        ErrorPlace(
            pointer="/files",
            message=str(p),
            file=p.file,
            line=p.place.line,
            column=p.place.column,
        )
        for p in error.problems
    )


def _pointer(problem: Problem) -> str:
    """Where it is; of a place with a key as long as a page, the nearest that can be read."""
    path = problem.path
    while len(problem.pointer) > POINTER_CHARS_MAX:
        path = path[:-1]
        problem = msgspec.structs.replace(problem, path=path)
    return problem.pointer


def _detail(error: TickwrightError) -> str:
    if not isinstance(error, InvalidError):
        return str(error)
    return "; ".join(f"{_pointer(p) or '/'}: {p.message}" for p in error.problems)


def _document(
    status: int, code: str, detail: str, errors: tuple[ErrorPlace, ...] = ()
) -> ProblemDetails:
    title = _TITLES.get(status, "Something went wrong")
    # A sentence may quote what was sent, half of a surrogate pair included.
    detail = detail.encode(errors="replace").decode()
    return ProblemDetails(title=title, status=status, code=code, detail=detail, errors=errors)


def headers_of(problem: ProblemDetails) -> dict[str, str]:
    """What goes with it: when to come again, or how to prove oneself."""
    if problem.status == AWAY:
        return {"Retry-After": str(RETRY_AFTER_S)}
    if problem.status == 401:  # noqa: PLR2004
        return {"WWW-Authenticate": 'Bearer realm="tickwright"'}
    return {}


def answer_error(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Litestar's handler for every exception; a bug is logged whole, and told in a sentence."""
    problem = problem_of(error)
    if problem.code == "internal":
        log.error("a request failed", method=request.method, path=request.url.path, exc_info=error)
    headers = headers_of(problem)
    if isinstance(error, HTTPException) and error.headers:
        headers.update({k: v for k, v in error.headers.items() if k.lower() == "allow"})
    return Response(
        content=msgspec.json.encode(problem),
        status_code=problem.status,
        media_type=MEDIA_TYPE,
        headers=headers,
    )


def wrong(path: str, message: str) -> InvalidError:
    """One thing wrong in one field or parameter."""
    return InvalidError((Problem((path,), message),))
