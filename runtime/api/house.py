"""The house: its nodes, actors and figures, who changed what, and pausing all of it."""

from functools import partial
from pathlib import PurePosixPath
from typing import Annotated, Final

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath

from protocols.messages import Hint, Ready, SchedulesChanged
from protocols.views import AuditView, NodeView, Page, StatsView
from runtime.api.asked import Given, Listing, listed, shown_as, told
from runtime.api.job_actions import Pausing
from runtime.kernel.introspection import ActorInfo, SlowMessage
from runtime.postgres.operations.audit import list_audit
from runtime.postgres.operations.cluster import drain_node, reshard
from runtime.postgres.operations.cursors import cursor_of, number_of
from runtime.postgres.operations.nodes_view import list_incarnation, list_nodes
from runtime.postgres.operations.pause import pause_house, resume_house
from runtime.postgres.operations.session import Connection
from runtime.postgres.operations.stats import read_stats


class HousePaused(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the house is paused, and why."""

    paused: bool
    reason: str | None = None


class Nodes(Listing, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which nodes: the newest of each name, or the one of this incarnation."""

    incarnation: Annotated[int, msgspec.Meta(ge=1, le=(1 << 63) - 1)] | None = None


class Draining(msgspec.Struct, frozen=True, kw_only=True):
    """A node that was asked to leave."""

    name: str
    incarnation: int
    state: str = "draining"


class Resharding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many leaderships there are to be."""

    shards: Annotated[int, msgspec.Meta(ge=1, le=256)]


class Resharded(msgspec.Struct, frozen=True, kw_only=True):
    """How many there are, and were."""

    shards: int
    had: int


class ActorView(msgspec.Struct, frozen=True, kw_only=True):
    """One actor of the live tree, with those below it in the order they were started."""

    name: str
    path: str
    incarnation: int
    kind: str
    state: str
    restart: str
    strategy: str
    depth: int
    """Messages that wait."""
    capacity: int
    stashed: int
    pipes: int
    timers: int
    restarts: int
    handled: int
    slowest: tuple[SlowMessage, ...]
    last_error: str | None
    children: tuple["ActorView", ...]


@get("/nodes", opt={"query": Nodes})
async def nodes(asked: Given) -> Response[Page[NodeView]]:
    """List nodes, the one that started last first; or one `incarnation`, ended or not."""
    query = asked.query(Nodes)
    before = number_of(query.cursor)
    if query.incarnation is None:
        listing = list_nodes
    else:
        listing = partial(list_incarnation, incarnation=query.incarnation)
    found = [node for node in await asked.do(listing) if node.incarnation < before]
    page = tuple(found[: query.limit or len(found)])
    return shown_as(Page(page, cursor_of(page[-1].incarnation) if len(page) < len(found) else None))


@post("/nodes/{name:str}/drain", status_code=200)
async def drain(asked: Given, name: FromPath[str]) -> Response[Draining]:
    """Let a node lead nothing, claim nothing, and leave once what it runs has ended."""
    body = await asked.empty_body()

    async def work(conn: Connection) -> tuple[Draining, tuple[Hint, ...]]:
        incarnation = await drain_node(
            conn, name=name, tenant=asked.tenant, who=asked.who, now=asked.now
        )
        return Draining(name=name, incarnation=incarnation), ()

    return told(Draining, await asked.once(f"drain {name}", body, work))


@post("/shards", opt={"body": Resharding}, status_code=200)
async def shards(asked: Given) -> Response[Resharded]:
    """Group the shards into another number of leaderships (`timer.shards`), while nodes run."""
    body = await asked.body(Resharding)

    async def work(conn: Connection) -> tuple[Resharded, tuple[Hint, ...]]:
        had = await reshard(
            conn, leaderships=body.shards, tenant=asked.tenant, who=asked.who, now=asked.now
        )
        return Resharded(shards=body.shards, had=had), ()

    return told(Resharded, await asked.once("shards", body, work))


@get("/actors")
async def actors(asked: Given) -> Response[ActorView]:
    """The live supervision tree of the node that answers."""
    return shown_as(_view(asked.node.system.statistics().tree))


@get("/audit", opt={"query": Listing})
async def audit(asked: Given) -> Response[Page[AuditView]]:
    """Who changed what, newest first."""
    return await listed(asked, asked.query(Listing), partial(list_audit, tenant=asked.tenant))


@get("/stats")
async def stats(asked: Given) -> Response[StatsView]:
    """Figures of what waits and runs, of this tenant; who leads, and whether all is paused."""
    return shown_as(await asked.do(lambda conn: read_stats(conn, now=asked.now)))


@post("/pause", opt={"body": Pausing}, status_code=200)
async def pause(asked: Given) -> Response[HousePaused]:
    """Pause the whole house, of every tenant: nothing fires, nothing begins, what runs goes on."""
    body = await asked.body(Pausing)

    async def work(conn: Connection) -> tuple[HousePaused, tuple[Hint, ...]]:
        await pause_house(
            conn,
            tenant=asked.tenant,
            reason=body.reason,
            who=asked.who,
            now=asked.now,
        )
        return HousePaused(paused=True, reason=body.reason), ()

    return told(HousePaused, await asked.once("pause", body, work))


@post("/resume", opt={"body": Pausing}, status_code=200)
async def resume(asked: Given) -> Response[HousePaused]:
    """Let the house go on."""
    body = await asked.body(Pausing)
    pools = tuple(asked.node.executors)

    async def work(conn: Connection) -> tuple[HousePaused, tuple[Hint, ...]]:
        await resume_house(
            conn,
            tenant=asked.tenant,
            reason=body.reason,
            who=asked.who,
            now=asked.now,
        )
        return HousePaused(paused=False), (SchedulesChanged(), *map(Ready, pools))

    return told(HousePaused, await asked.once("resume", body, work))


def _view(info: ActorInfo) -> ActorView:
    fields = msgspec.structs.asdict(info)
    children = tuple(_view(child) for child in fields.pop("children"))
    name = PurePosixPath(info.path).name or info.path
    return ActorView(name=name, children=children, **fields)


ROUTES: Final = [nodes, drain, shards, actors, audit, stats, pause, resume]
