"""The locks that tasks hold: listed, and released by hand."""

from functools import partial
from typing import Annotated, Final

import msgspec
from litestar import Response, get, post

from protocols.messages import Hint
from protocols.ports.locks import LOCK_NAME_CHARS_MAX
from protocols.views import LockView, Page
from runtime.api.asked import Given, Listing, listed, told
from runtime.postgres.operations.locks import list_locks, release_lock
from runtime.postgres.operations.session import Connection


class Named(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A lock, by its name: any text, so it stands in no path."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=LOCK_NAME_CHARS_MAX)]


@get("/locks", opt={"query": Listing})
async def list_(asked: Given) -> Response[Page[LockView]]:
    """List the locks that are held, the one taken last first."""
    return await listed(asked, asked.query(Listing), partial(list_locks, tenant=asked.tenant))


@post("/locks/release", opt={"body": Named}, status_code=200)
async def release(asked: Given) -> Response[LockView]:
    """Free a lock by hand; its holder is cancelled within about a second."""
    body = await asked.body(Named)

    async def work(conn: Connection) -> tuple[LockView, tuple[Hint, ...]]:
        freed = await release_lock(
            conn, tenant=asked.tenant, name=body.name, who=asked.who, now=asked.now
        )
        return freed, ()

    return told(LockView, await asked.once("release lock", body, work))


ROUTES: Final = [list_, release]
