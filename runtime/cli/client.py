"""The commands' view of a node: its HTTP API, with every way to fail told in one sentence."""

import functools
import ipaddress
import json
import os
import pwd
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, Final, NamedTuple, ParamSpec, Self, TypeVar
from urllib.parse import quote, urlsplit

import click
import httpx

from protocols.durations import shown
from runtime.cli.failures import Failed, Unreachable
from runtime.files.fields import NAME
from runtime.settings import default_data_dir
from runtime.token import read_token

DEFAULT_URL: Final = "http://127.0.0.1:8700"
_CONNECT_S: Final = 5.0
_ANSWER_S: Final = 65.0
"""An apply imports callables within a minute; nothing else takes so long."""
_PAGE: Final = 1000
_AWAY: Final = 503
_NO_TOKEN: Final = (401, 403)

_USER_CHARS_MAX: Final = 200
_SILENCE_S: Final = 40.0
"""A stream says something every 15 s, if only that nothing happens."""

_VISIBLE: Final = re.compile(r"[!-~]+")
_KEY: Final = re.compile(r"[!-~](?:[ -~]{0,253}[!-~])?")

P = ParamSpec("P")
R = TypeVar("R")


class Event(NamedTuple):
    """One server-sent event; without data it only says which place the stream has come to."""

    id: str | None
    name: str
    data: Any


class Client:
    """Calls one node's API for one tenant."""

    def __init__(
        self, *, url: str, token: str | None, tenant: str | None, token_place: str = ""
    ) -> None:
        self.url = url
        self._token_place = token_place
        headers = {"Accept": "application/json", "X-User": user()}
        if tenant is not None:
            headers["X-Tenant"] = tenant
        if token is not None:
            if not _VISIBLE.fullmatch(token):
                where = token_place or "RUNTIME_TOKEN"
                raise click.UsageError(f"{where} holds no token: one is visible ASCII characters")
            headers["Authorization"] = f"Bearer {token}"
        try:
            self._http = httpx.Client(
                base_url=f"{url.rstrip('/')}/api/v1",
                headers=headers,
                timeout=httpx.Timeout(_ANSWER_S, connect=_CONNECT_S),
                trust_env=False,  # a proxy has nothing to do with a node on loopback
            )
        except (httpx.InvalidURL, UnicodeEncodeError, ValueError) as error:
            raise click.UsageError(f"RUNTIME_URL, the token or the tenant: {error}") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def get(self, *path: str, **query: Any) -> Any:
        """The answer to a GET; parameters that are None are left out."""
        return self._json(self._send("GET", path, params=_given(query)))

    def post(
        self,
        *path: str,
        body: Any = None,
        key: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> Any:
        """The answer to a POST; `key` makes saying it twice the same as once."""
        sent = dict(headers or {})
        if key is not None:
            if not _KEY.fullmatch(key):
                raise click.UsageError(
                    f"{shown(key)} is not an idempotency key: give 1 to 255 ASCII characters"
                )
            sent["Idempotency-Key"] = key
        return self._json(self._send("POST", path, json={} if body is None else body, headers=sent))

    def delete(self, *path: str) -> Any:
        """The answer to a DELETE."""
        return self._json(self._send("DELETE", path))

    def listed(self, *path: str, limit: int, **query: Any) -> list[Any]:
        """A list's items over as many pages as `limit` takes; 0 means all."""
        items: list[Any] = []
        cursor = None
        while True:
            size = min(_PAGE, limit - len(items)) if limit else _PAGE
            page = self.get(*path, limit=size, cursor=cursor, **query)
            try:
                items += page["items"]
                cursor = page["next"]
            except (KeyError, TypeError):
                raise self._stranger() from None
            if cursor is None or (limit and len(items) >= limit):
                return items

    def events(self, *path: str, after: str | None, **query: Any) -> Iterator[Event]:
        """Server-sent events from `after` on, an event's id, for as long as the node sends them.

        Raises:
            Unreachable: The node is away, or has gone.
        """
        headers = {"Accept": "text/event-stream"}
        if after is not None:
            headers["Last-Event-ID"] = after
        timeout = httpx.Timeout(_SILENCE_S, connect=_CONNECT_S)
        try:
            with self._http.stream(
                "GET", self._path(path), params=_given(query), headers=headers, timeout=timeout
            ) as answer:
                if not answer.is_success:
                    answer.read()
                    raise self._refused(answer)
                yield from read_events(answer.iter_lines())
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise self._away(error) from None

    def _send(self, method: str, path: tuple[str, ...], **options: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, self._path(path), **options)
        except httpx.ReadTimeout:
            raise Unreachable(
                f"the node at {self.url} has not answered for {_ANSWER_S:g} s; "
                "what was asked may still happen"
            ) from None
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise self._away(error) from None
        except (httpx.InvalidURL, UnicodeError) as error:
            raise click.UsageError(f"this cannot be asked of a node: {error}") from None
        if not answer.is_success:
            raise self._refused(answer)
        return answer

    def _path(self, path: tuple[str, ...]) -> str:
        for part in path:
            # As a step of a URL each of these names something else than one thing of its kind:
            # `jobs/../pause` is the whole house.
            if part in {"", ".", ".."}:
                raise click.UsageError(f"{shown(part)} is not a name, nor an id")
        return "/" + "/".join(quote(part, safe="") for part in path)

    def _json(self, answer: httpx.Response) -> Any:
        if not answer.content:
            return None
        try:
            return answer.json()
        except ValueError:
            raise self._stranger() from None

    def _away(self, error: Exception) -> Unreachable:
        return Unreachable(
            f"no node answers at {self.url} ({str(error) or type(error).__name__}): start one with "
            "`runtime start`, or name another with RUNTIME_URL"
        )

    def _stranger(self) -> Unreachable:
        return Unreachable(
            f"what answers at {self.url} is no Tickwright node: name one with RUNTIME_URL"
        )

    def _refused(self, answer: httpx.Response) -> Failed:
        """The error for a problem details document (RFC 9457)."""
        try:
            problem = answer.json()
            detail = str(problem.get("detail") or problem["title"])
            lines = [_told(error) for error in problem.get("errors", ())]
        except (ValueError, KeyError, TypeError, AttributeError):
            return self._stranger()
        if answer.status_code in _NO_TOKEN and self._token_place:
            detail += f" (looked for a token in RUNTIME_TOKEN and {self._token_place})"
        kind = Unreachable if answer.status_code == _AWAY else Failed
        return kind("\n".join(lines) if lines else detail)


def _given(query: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None}


def _told(error: dict[str, Any]) -> str:
    """One thing wrong; in a job file its message says where."""
    message: str = error["message"]
    return message if "file" in error else f"{error.get('pointer') or '/'}: {message}"


def read_events(lines: Iterator[str]) -> Iterator[Event]:
    """Server-sent events, by the rules of the HTML standard, section 9.2.6."""
    place, name, data = None, "message", list[str]()
    for line in lines:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "id":
            place = value
        elif field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif not line:
            if data or place is not None:
                yield Event(place, name, json.loads("\n".join(data)) if data else None)
            place, name, data = None, "message", []


def user() -> str:
    """Who types this, and on which machine, as visible ASCII: the audit keeps it."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = f"uid {os.getuid()}"
    return quote(f"{name}@{socket.gethostname()}", safe="@!$&'()*+,;=:/")[:_USER_CHARS_MAX]


def is_loopback(url: str) -> bool:
    """Whether a URL leads to this machine: only there goes a token found in a local file."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def open_client(
    *, tenant: str | None = None, url: str | None = None, data_dir: Path | None = None
) -> Client:
    """The client that options, environment and the data directory describe."""
    shared = click.get_current_context().find_object(dict) or {}
    tenant = tenant or shared.get("tenant") or os.environ.get("RUNTIME_TENANT") or None
    if tenant is not None and not NAME.fullmatch(tenant):
        raise click.UsageError(f"{shown(tenant)} is not a tenant's name")
    at = url or os.environ.get("RUNTIME_URL") or DEFAULT_URL
    try:
        whole = urlsplit(at).scheme in {"http", "https"} and bool(urlsplit(at).hostname)
    except ValueError:
        whole = False
    if not whole:
        raise click.UsageError(
            f"{shown(at)} is not a node's address: give one such as {DEFAULT_URL}"
        )
    folder = data_dir or Path(os.environ.get("RUNTIME_DATA_DIR") or default_data_dir())
    token = os.environ.get("RUNTIME_TOKEN") or None
    place = ""
    if token is None and is_loopback(at):
        token = read_token(folder)
        place = str(folder / "token")
    return Client(url=at, token=token, tenant=tenant, token_place=place)


def uses_node(function: Callable[Concatenate[Client, P], R]) -> Callable[P, R]:
    """Give a command the node as its first argument, and options for which and for whom."""

    @click.option("--tenant", help="For whom; default: RUNTIME_TENANT, else default.")
    @click.option("--url", help=f"Which node; default: RUNTIME_URL, else {DEFAULT_URL}.")
    @click.option(
        "--data-dir",
        type=click.Path(path_type=Path),
        help="Where the node keeps its token; default: RUNTIME_DATA_DIR, else its default.",
    )
    @functools.wraps(function)
    def command(*args: P.args, **kwargs: P.kwargs) -> R:
        node: dict[str, Any] = {name: kwargs.pop(name) for name in ("tenant", "url", "data_dir")}
        with open_client(**node) as client:
            return function(client, *args, **kwargs)

    return command
