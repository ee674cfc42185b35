"""Dead letters: listed, run again, put away; a thousand at most in one request."""

from functools import partial
from typing import Annotated, Any, Final

import msgspec
from litestar import Response, get, post

from protocols.durations import shown
from protocols.errors import InvalidError, Problem
from protocols.ids import execution_key
from protocols.messages import Hint, Ready
from protocols.views import DeadLetterView, Discarded, Page, Reopened
from runtime.api.asked import Asked, Given, OfJob, listed, told
from runtime.api.problems import wrong
from runtime.postgres.operations.dead_letters import list_dead_letters
from runtime.postgres.operations.reopen import AT_ONCE, discard_dead_letters, replay_dead_letters
from runtime.postgres.operations.session import Connection


class Chosen(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which dead letters: these, those of a job, or all; exactly one of the three."""

    execution_ids: Annotated[tuple[str, ...], msgspec.Meta(max_length=AT_ONCE)] | None = None
    job: str | None = None
    all: bool = False


@get("/dead-letters", opt={"query": OfJob})
async def list_(asked: Given) -> Response[Page[DeadLetterView]]:
    """List what ended dead and was neither run again nor put away, newest first."""
    query = asked.query(OfJob)
    of = partial(
        list_dead_letters,
        tenant=asked.tenant,
        job_id=query.job,
        since=query.since_by(asked.now),
    )
    return await listed(asked, query, of)


@post("/dead-letters/replay", opt={"body": Chosen}, status_code=200)
async def replay(asked: Given) -> Response[Reopened]:
    """Run dead letters again, oldest first; ask again while `more` is true."""
    body = await asked.body(Chosen)
    given = _chosen(asked, body)

    async def work(conn: Connection) -> tuple[Reopened, tuple[Hint, ...]]:
        done = await replay_dead_letters(conn, **given)
        return done, tuple(Ready(pool) for pool in done.pools)

    return told(Reopened, await asked.once("replay", body, work))


@post("/dead-letters/discard", opt={"body": Chosen}, status_code=200)
async def discard(asked: Given) -> Response[Discarded]:
    """Put dead letters away: they stay in history; ask again while `more` is true."""
    body = await asked.body(Chosen)
    given = _chosen(asked, body)

    async def work(conn: Connection) -> tuple[Discarded, tuple[Hint, ...]]:
        return await discard_dead_letters(conn, **given), ()

    return told(Discarded, await asked.once("discard", body, work))


def _chosen(asked: Asked, body: Chosen) -> dict[str, Any]:
    ways = (body.execution_ids is not None, body.job is not None, body.all)
    if sum(ways) != 1:
        raise wrong("all", "say which: `execution_ids`, `job`, or `all: true`; one of them")
    keys = None
    if body.execution_ids is not None:
        keys = [execution_key(one) for one in body.execution_ids]
        for number, key in enumerate(keys):
            if key is None:
                text = f"{shown(body.execution_ids[number])} is not an execution's id"
                raise InvalidError((Problem(("execution_ids", number), text),))
    return {
        "tenant": asked.tenant,
        "who": asked.who,
        "asked_at": asked.now,
        "now": asked.now,
        "ids": keys,
        "job_id": body.job,
    }


ROUTES: Final = [list_, replay, discard]
