"""Events: emitted by a POST, and all that happens as a stream of server-sent events.

A stream goes on where `Last-Event-ID` says, so that a lost connection loses nothing; a client
that reads slowly holds up only its own stream.
"""

import re
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Final
from urllib.parse import unquote

import anyio
import msgspec
from litestar import Response, get, post
from litestar.params import FromPath
from litestar.response import Stream

from protocols.errors import TickwrightError
from protocols.ids import execution_id
from protocols.instants import iso
from protocols.messages import EventsAppended, Hint
from runtime.api.asked import Asked, Given, made
from runtime.api.problems import RefusedError, wrong
from runtime.api.tail import GivenTail, News, Tail
from runtime.files.fields import NAME
from runtime.postgres.events import LoggedEvent, Place, end_of_events, read_events
from runtime.postgres.operations.emit import emit_event
from runtime.postgres.operations.live import read_names
from runtime.postgres.operations.session import Connection

_BATCH: Final = 100
_BEAT_S: Final = 15.0
_PLACE: Final = re.compile(r"(\d{1,19})-(\d{1,19})")
_KEY_MAX: Final = (1 << 63) - 1
_AGAIN_MS: Final = 1000


class Emit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an event carries: any JSON value."""

    payload: Any = None


class Emitted(msgspec.Struct, frozen=True, kw_only=True):
    """An event that is in the log."""

    event: str
    tenant: str


class Following(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of which job; from which place on, where the header `Last-Event-ID` cannot be sent."""

    job: str | None = None
    after: Annotated[str, msgspec.Meta(max_length=64)] | None = None


class Happened(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that happened; `kind` is also the name of the server-sent event.

    Of executions: `fired triggered finished retried lost cancelled skipped settled reopened` and
    their like, with the execution and the state it came to. `emitted` has `event` and `payload`.
    """

    kind: str
    at: str
    tenant: str
    execution_id: str | None = None
    job_id: str | None = None
    scheduled_for: str | None = None
    state: str | None = None
    attempt: int | None = None
    event: str | None = None
    payload: msgspec.Raw | None = None


@post("/events/{event:path}", opt={"body": Emit})
async def emit(asked: Given, event: FromPath[str]) -> Response[Emitted]:
    """Emit an event: every job that listens for it, and whose filter holds, runs."""
    body = await asked.body(Emit)
    # A name may hold slashes, two in a row and one at its end; the router makes the path tidy.
    event = unquote(asked.request.scope["raw_path"].decode("latin-1")).partition("/events/")[2]
    if not NAME.fullmatch(event):
        text = "an event's name is a letter or digit, then up to 199 of those or of `._:/-`"
        raise wrong("event", text)

    async def work(conn: Connection) -> tuple[Emitted, tuple[Hint, ...]]:
        await emit_event(
            conn,
            tenant=asked.tenant,
            event=event,
            payload=body.payload,
            who=asked.who,
            now=asked.now,
        )
        return Emitted(event=event, tenant=asked.tenant), (EventsAppended(),)

    return made(Emitted, await asked.once(f"emit over HTTP {event}", body, work))


@get("/events", opt={"query": Following, "stream": Happened})
async def follow(asked: Given, tail: GivenTail) -> Stream:
    """Everything that happens in this tenant from now on, or from `Last-Event-ID` on."""
    query = asked.query(Following)
    place = _place(asked.request.headers.get("Last-Event-ID") or query.after)
    if place is None:
        place = await end_of_events(asked.node.keeping)
    if tail.is_full:
        raise RefusedError(503, "too_many", "too many requests wait here already")
    return Stream(
        _stream(asked, tail, place, query.job),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


def _place(text: str | None) -> Place | None:
    if text is None:
        return None
    found = _PLACE.fullmatch(text)
    if found is None or int(found[1]) > _KEY_MAX or int(found[2]) > _KEY_MAX:
        raise wrong("Last-Event-ID", "this is not the id of an event of this stream")
    return int(found[1]), int(found[2])


async def _stream(asked: Asked, tail: Tail, place: Place, job: str | None) -> AsyncIterator[bytes]:
    with tail.follow() as news:
        yield b"retry: %d\nid: %d-%d\n\n" % (_AGAIN_MS, *place)
        while not tail.ended:
            try:
                rows = await read_events(asked.node.keeping, after=place, limit=_BATCH)
                told = [await _told(asked, row, job) for row in rows]
            except TickwrightError:
                # An outage ends no stream: what happened meanwhile is told after it.
                rows, told = [], []
            for row, happened in zip(rows, told, strict=True):
                place = row.place
                yield _written(row, happened)
            if len(rows) < _BATCH and not await _news(news):
                yield b": nothing happens\n\n"


async def _news(news: News) -> bool:
    """Wait for news, a while; False where there was none and the line should be kept warm."""
    with anyio.move_on_after(_BEAT_S):
        await news.next()
        return True
    return False


def _written(row: LoggedEvent, happened: Sequence[Happened]) -> bytes:
    """A row as server-sent events; its place stands with the last, or alone where none is told."""
    parts = [
        b"event: %s\ndata: %s\n" % (row.kind.encode(), msgspec.json.encode(one)) for one in happened
    ]
    last = b"id: %d-%d\n\n" % row.place
    return b"\n".join(parts) + last


async def _told(asked: Asked, row: LoggedEvent, job: str | None) -> list[Happened]:
    """What of a row this tenant may see, and asked for."""
    if row.tenant not in (None, asked.tenant):
        return []
    at = iso(row.at)
    if row.kind == "emitted":
        payload = None if row.payload is None else msgspec.Raw(row.payload)
        emitted = Happened(
            kind=row.kind, at=at, tenant=asked.tenant, event=row.name, payload=payload
        )
        return [] if job is not None else [emitted]
    names = await asked.do(lambda conn: read_names(conn, tenant=asked.tenant, ids=row.ids))
    found = []
    for key, state in zip(row.ids, row.states, strict=True):
        name = names.get(key)
        if name is None or job not in (None, name["job_id"]):
            continue
        found.append(
            Happened(
                kind=row.kind,
                at=at,
                tenant=asked.tenant,
                execution_id=execution_id(key, name["created_at"]),
                job_id=name["job_id"],
                scheduled_for=iso(name["scheduled_for"]),
                state=state,
                attempt=name["attempt"],
            )
        )
    return found


ROUTES: Final = [emit, follow]
