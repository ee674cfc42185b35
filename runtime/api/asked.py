"""One request as its route sees it: for whom, by the database's time, in one transaction.

A change that is sent again under its `Idempotency-Key` is answered again and does nothing.
"""

import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, TypeAlias, TypeVar, cast

import asyncpg
import msgspec
from litestar import Request, Response
from litestar.di import NamedDependency
from litestar.params import SkipValidation
from litestar.response import Stream

from protocols.durations import DurationError, parse_duration, shown
from protocols.errors import InvalidError, Problem
from protocols.messages import Hint
from protocols.views import Page
from runtime.api.away import answered_or_away
from runtime.api.bodies import problem_in, read_json
from runtime.api.problems import wrong
from runtime.files.fields import NAME
from runtime.postgres.operations.cursors import PAGE_MAX
from runtime.postgres.operations.idempotency import answered_once
from runtime.postgres.operations.session import Connection, transact
from runtime.services import Services

Shape = TypeVar("Shape")
Item = TypeVar("Item")
HttpRequest: TypeAlias = Request[Any, Any, Any]
Work: TypeAlias = Callable[[Connection], Awaitable[tuple[object, Sequence[Hint]]]]
"""A change: what to answer, and what to hint once it is durable."""

LIST_DEFAULT: Final = 50
_BEYOND: Final = (asyncpg.NumericValueOutOfRangeError, asyncpg.DatetimeFieldOverflowError)
_USER: Final = re.compile(r"[!-~]{1,200}")
_YEARS: Final = range(2000, 2200)


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No parameter, or no field."""


class Listing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which part of a list is wanted: at most `limit` items (0: all), from `cursor` on."""

    limit: Annotated[int, msgspec.Meta(ge=0, le=(1 << 31) - 1)] = LIST_DEFAULT
    cursor: str | None = None


class OfJob(Listing, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of which job, and from when on: `since` an instant, or a duration ago."""

    job: str | None = None
    since: str | None = None

    def since_by(self, now: datetime) -> datetime | None:
        """The instant that `since` stands for. Raises `InvalidError`, at `since`."""
        return None if self.since is None else read_since(self.since, now)


class Asked:
    """A request's tenant, the moment it is of, and the ways to the node.

    What a route takes stands in its `opt`: `query` and `body` are the shapes of its parameters
    and of its body. Whatever else is sent is refused.
    """

    def __init__(self, request: HttpRequest, node: Services) -> None:
        self.request = request
        self.node = node
        self.tenant = _tenant_of(request)
        self.now = node.clock.now()
        self.who = _who_of(request)
        self._query = _query_of(request)

    def query(self, of: type[Shape]) -> Shape:
        """The request's parameters, of the shape that the route declares."""
        assert isinstance(self._query, of), "a route asks for what it declares"
        return self._query

    async def body(self, of: type[Shape]) -> Shape:
        """The request's body, of the shape that the route declares; none is an empty object."""
        return read_json(await self.request.body() or b"{}", of)

    async def empty_body(self) -> Nothing:
        """The body of a route that takes no field."""
        return await self.body(Nothing)

    async def do(
        self, work: Callable[[Connection], Awaitable[Shape]], *, kept_plans: bool = False
    ) -> Shape:
        """Run `work` in one transaction of the tenant; `kept_plans` as in `transact`.

        Raises:
            UnavailableError: the database is away; of a read, also while it only says nothing.
            InvalidError: a value is beyond what the database can hold.
        """
        doing = self._transact(work, kept_plans=kept_plans)
        if self.request.method != "GET":
            return await doing
        return await answered_or_away(doing, self.node.health)

    async def _transact(
        self, work: Callable[[Connection], Awaitable[Shape]], *, kept_plans: bool
    ) -> Shape:
        try:
            return await transact(self.node.api, self.tenant, work, kept_plans=kept_plans)
        except asyncpg.DataError as error:
            if isinstance(error.__cause__, OverflowError) or isinstance(error, _BEYOND):
                text = "a number or an instant here is beyond what can be stored"
                raise InvalidError((Problem((), text),)) from None
            raise

    def hint(self, *hints: Hint) -> None:
        """Tell the actors of what is durable now."""
        for hint in hints:
            self.node.hints.send(hint)

    @property
    def key(self) -> str | None:
        """The client's `Idempotency-Key`."""
        found = self.request.headers.getall("Idempotency-Key", [])
        if len(found) > 1:
            raise wrong("Idempotency-Key", "one request has one key")
        return found[0] if found else None

    async def once(self, scope: str, body: object, work: Work) -> tuple[bytes, bool]:
        """Do `work` unless the request's key is known; then hint what it says is to be hinted.

        Returns:
            The answer as JSON, and whether the key was known.

        Raises:
            KeyReusedError: the key came with another body.
        """
        key, hints = self.key, list[Hint]()

        async def answer(conn: Connection) -> bytes:
            shown, found = await work(conn)
            hints[:] = found
            return msgspec.json.encode(shown)

        if key is None:
            done = await self.do(answer), False
        else:
            given = hashlib.sha256(msgspec.json.encode(body, order="deterministic")).digest()

            async def keyed(conn: Connection) -> tuple[bytes, bool]:
                hints.clear()
                found = await answered_once(
                    conn,
                    answer,
                    tenant=self.tenant,
                    scope=scope,
                    key=key,
                    body_hash=given,
                    now=self.now,
                )
                return found.answer, found.known

            done = await self.do(keyed)
        self.hint(*hints)
        return done


Given: TypeAlias = NamedDependency[SkipValidation[Asked]]
"""How a route asks for it."""


def _who_of(request: HttpRequest) -> str:
    """Who asks, for the audit: the name that the client gives, and the address it came from.

    All have the same token, so that a name is what somebody says of himself, and no proof.
    """
    names = request.headers.getall("X-User", [])
    if len(names) > 1 or not all(map(_USER.fullmatch, names)):
        raise wrong("X-User", "a user's name is one text of 1 to 200 visible ASCII characters")
    client = request.client
    return f"{names[0] if names else 'api'} from {client.host if client else 'this machine'}"


def _tenant_of(request: HttpRequest) -> str:
    named = {
        *request.headers.getall("X-Tenant", []),
        *request.query_params.getall("tenant", []),
    }
    if len(named) > 1:
        raise wrong("tenant", "the header X-Tenant and the parameter `tenant` differ")
    tenant = named.pop() if named else "default"
    if not NAME.fullmatch(tenant):
        raise wrong("tenant", f"{shown(tenant)} is not a tenant's name")
    return tenant


def _query_of(request: HttpRequest) -> object:
    """The parameters, each at most once, of the shape that the route declares."""
    shape = request.route_handler.opt.get("query", Nothing)
    given: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name == "tenant":
            continue
        if name in given:
            raise wrong(name, "this parameter stands here twice")
        given[name] = value
    try:
        return msgspec.convert(given, shape, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidError((problem_in(error),)) from None


def read_instant(text: str, name: str) -> datetime:
    """An ISO-8601 instant with its offset. Raises `InvalidError`, at `name`."""
    try:
        # In a query a plus sign is a blank.
        instant = datetime.fromisoformat(text.strip().replace(" ", "+")).astimezone(UTC)
        aware = datetime.fromisoformat(text.strip().replace(" ", "+")).tzinfo is not None
    except (ValueError, OverflowError):
        aware = False
    if not aware or instant.year not in _YEARS:
        example = "2026-12-01T09:00:00+01:00"
        raise wrong(name, f"{shown(text)} is not an instant with its offset, such as {example}")
    return instant


def read_since(text: str, now: datetime) -> datetime:
    """An instant, or a duration before now. Raises `InvalidError`, at `since`."""
    try:
        return now - timedelta(seconds=parse_duration(text))
    except DurationError:
        return read_instant(text, "since")


def read_seconds(value: object, name: str) -> float:
    """A duration. Raises `InvalidError`, at `name`."""
    try:
        return parse_duration(value)
    except DurationError as error:
        raise wrong(name, str(error)) from None


def answered(
    shape: type[Shape], body: bytes, *, status: int = 200, **headers: str
) -> Response[Shape]:
    """An answer that is JSON already; `shape` is what it holds."""
    del shape
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return cast(
        "Response[Shape]",
        Response(content=body, status_code=status, media_type="application/json", headers=named),
    )


def made(shape: type[Shape], done: tuple[bytes, bool], **headers: str) -> Response[Shape]:
    """The answer to a POST: 201 for what it made, 200 where its key was known already."""
    body, known = done
    return answered(shape, body, status=200 if known else 201, **headers)


def told(shape: type[Shape], done: tuple[bytes, bool]) -> Response[Shape]:
    """The answer to a POST that makes nothing new."""
    return answered(shape, done[0])


def shown_as(value: Shape, **headers: str) -> Response[Shape]:
    """An answer of 200 with headers of its own."""
    return answered(type(value), msgspec.json.encode(value), status=200, **headers)


async def listed(
    asked: Asked, query: Listing, of: Callable[..., Awaitable[Page[Item]]]
) -> Response[Page[Item]]:
    """A list's items up to its limit, over as many pages as that takes; 0 means all, streamed.

    Args:
        asked: the request.
        query: which part of the list it wants.
        of: a page of the list, by a connection, `limit` and `cursor`.
    """

    async def fetch(limit: int, cursor: str | None) -> Page[Item]:
        return await asked.do(lambda conn: of(conn, limit=limit, cursor=cursor))

    left = query.limit
    first = await fetch(min(left or PAGE_MAX, PAGE_MAX), query.cursor)
    if first.next is None or 0 < left <= len(first.items):
        return answered(Page[Item], msgspec.json.encode(first))

    async def parts() -> AsyncIterator[bytes]:
        page, sent = first, 0
        yield b'{"items":['
        while True:
            inner = msgspec.json.encode(page.items)[1:-1]
            yield b"," + inner if sent and inner else inner
            sent += len(page.items)
            if page.next is None or (left and sent >= left):
                break
            page = await fetch(min(left - sent if left else PAGE_MAX, PAGE_MAX), page.next)
        yield b'],"next":' + msgspec.json.encode(page.next) + b"}"

    return cast("Response[Page[Item]]", Stream(parts(), media_type="application/json"))
