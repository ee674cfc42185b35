"""What every request must pass before anything reads it: host, origin, token, kind and size.

A web page can make a browser send requests to loopback. Its own name resolving to 127.0.0.1 (DNS
rebinding) is seen by the Host header, a page of another site by Origin and Sec-Fetch-Site, and a
plain form by its content type; none of them has the token that every change needs.
"""

import hmac
import re
from collections.abc import Iterable
from typing import Final, cast
from urllib.parse import urlsplit

import anyio
import msgspec
import structlog
from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send
from litestar.types.asgi_types import HTTPReceiveMessage, HTTPRequestEvent

from runtime.api.problems import MEDIA_TYPE, RefusedError, headers_of, problem_of

log = structlog.get_logger("tickwright.api")

BODY_BYTES_MAX: Final = 1 << 20
APPLY_BYTES_MAX: Final = 16 << 20
BODY_WITHIN_S: Final = 30.0
"""The longest that a client may take to send a body."""

_APPLY: Final = "/api/v1/apply"
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_TASK_CALLS: Final = re.compile(r"/api/v1/executions/[^/]+/(?:checkpoint|heartbeat|once)")
"""A task has no token of the node's: its fencing token is the proof, and the route checks it."""
_JSON: Final = frozenset({"application/json", "application/merge-patch+json"})
_LOCAL_SITES: Final = frozenset({"same-origin", "none"})
_HTTP_PORT: Final = 80
_SAFE: Final = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


def served_hosts(url: str) -> frozenset[str]:
    """Every Host header that names this node: loopback's names, with its port."""
    parts = urlsplit(url)
    own = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    names = {"localhost", "127.0.0.1", "[::1]", own.lower()}
    port = parts.port or _HTTP_PORT
    bare = names if port == _HTTP_PORT else set()
    return frozenset({f"{name}:{port}" for name in names} | bare)


class Guard:
    """An ASGI application in front of another one; what it refuses, that one never sees."""

    def __init__(self, app: ASGIApp, *, url: str, token: str) -> None:
        self._app = app
        self._hosts = served_hosts(url)
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        assert scope["type"] == ScopeType.HTTP, "the server speaks nothing else"
        begun = False

        async def sending(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message["headers"] = [*message["headers"], *_SAFE]
            await send(message)

        try:
            headers = _Headers(scope["headers"])
            self._check(scope, headers)
            body = await _read_body(scope, headers, receive)
            await self._app(scope, _replayed(body, receive), sending)
        except _GoneError:
            return
        except Exception as error:
            if not isinstance(error, RefusedError):
                log.exception("a request failed", path=scope["path"])
            if begun:
                raise
            await _refuse(error, sending)

    def _check(self, scope: HTTPScope, headers: "_Headers") -> None:
        hosts = headers.all(b"host")
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            raise RefusedError(
                421, "wrong_host", "this node does not serve that host: ask it by its loopback name"
            )
        if any(not self._is_own(origin) for origin in headers.all(b"origin")):
            raise RefusedError(403, "foreign_origin", "a page of another origin may not ask this")
        sites = set(headers.all(b"sec-fetch-site"))
        navigates = headers.all(b"sec-fetch-mode") == ["navigate"] and scope["method"] == "GET"
        if not sites <= _LOCAL_SITES and not navigates:
            raise RefusedError(403, "foreign_origin", "a page of another site may not ask this")
        is_task_call = _TASK_CALLS.fullmatch(scope["path"]) is not None
        if scope["method"] not in _READS and not is_task_call:
            self._check_token(headers)

    def _is_own(self, origin: str) -> bool:
        scheme, _, host = origin.partition("://")
        return scheme.lower() == "http" and host.lower() in self._hosts

    def _check_token(self, headers: "_Headers") -> None:
        given = headers.all(b"authorization")
        scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        same = hmac.compare_digest(token.strip().encode(errors="replace"), self._token)
        if scheme.lower() != "bearer" or not same:
            raise RefusedError(
                401,
                "unauthorized",
                "a change needs the node's token as `Authorization: Bearer`: "
                "it is kept in the data directory's file `token`",
            )


class _Headers:
    """A request's headers, by lower-case names."""

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self._all: dict[bytes, list[str]] = {}
        for name, value in raw:
            self._all.setdefault(name.lower(), []).append(value.decode("latin-1").strip())

    def all(self, name: bytes) -> list[str]:
        """Every value that was sent under that name."""
        return self._all.get(name, [])


class _GoneError(Exception):
    """The client went away while it sent its body."""


async def _read_body(scope: HTTPScope, headers: _Headers, receive: Receive) -> bytes:
    """The whole body, within its bounds of size and time."""
    lengths = headers.all(b"content-length")
    chunked = bool(headers.all(b"transfer-encoding"))
    if not chunked and (not lengths or lengths == ["0"]):
        return b""
    most = APPLY_BYTES_MAX if scope["path"] == _APPLY else BODY_BYTES_MAX
    if lengths and (not lengths[0].isdecimal() or int(lengths[0][:20]) > most):
        raise _too_large(most)
    kinds = [kind.partition(";")[0].strip().lower() for kind in headers.all(b"content-type")]
    if len(kinds) != 1 or kinds[0] not in _JSON:
        raise RefusedError(415, "not_json", "send JSON, as `Content-Type: application/json`")
    if headers.all(b"content-encoding"):
        raise RefusedError(415, "not_json", "send the body as it is, without a content encoding")
    parts: list[bytes] = []
    size = 0
    with anyio.move_on_after(BODY_WITHIN_S):
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise _GoneError
            parts.append(message["body"])
            size += len(parts[-1])
            if size > most:
                raise _too_large(most)
            if not message.get("more_body", False):
                return b"".join(parts)
    raise RefusedError(408, "too_slow", f"the body did not come within {BODY_WITHIN_S:g} s")


def _too_large(most: int) -> RefusedError:
    return RefusedError(413, "too_large", f"a body here has at most {most:,} bytes")


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A body that was read already, then what the connection says."""
    whole: HTTPRequestEvent = {"type": "http.request", "body": body, "more_body": False}
    left = [whole]

    async def following() -> HTTPReceiveMessage:
        return left.pop() if left else cast("HTTPReceiveMessage", await receive())

    return following


async def _refuse(error: Exception, send: Send) -> None:
    problem = problem_of(error)
    body = msgspec.json.encode(problem)
    extra = [(k.lower().encode(), v.encode()) for k, v in headers_of(problem).items()]
    await send(
        {
            "type": "http.response.start",
            "status": problem.status,
            "headers": [
                (b"content-type", MEDIA_TYPE.encode()),
                (b"content-length", str(len(body)).encode()),
                # What of a body was not read stands in the way of a next request.
                (b"connection", b"close"),
                *extra,
            ],
        }
    )
    await send({"type": "http.response.body", "body": body, "more_body": False})
