"""What a running command asks, by its fencing token: it holds no secret of the node's.

The token in force for a running attempt is the proof; a spent one is refused, so that a task that
lives on after its attempt was given up for lost learns of it.
"""

from typing import Annotated, Any, Final

import msgspec
from litestar import Response, post
from litestar.params import FromPath

from protocols.durations import DURATION_S_MAX, shown
from protocols.errors import ConflictError
from protocols.ids import execution_key
from runtime.api.asked import Asked, Given, shown_as
from runtime.api.problems import RefusedError, wrong
from runtime.postgres.operations.task_tokens import running_key

CHECKPOINT_BYTES_MAX: Final = 256 * 1024
ONCE_TTL_S: Final = 86_400.0
_TOKEN_MAX: Final = (1 << 63) - 1


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a task has got to: any JSON value."""

    value: Any


class Once(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A piece of work, and for how many seconds after its success nobody else may do it."""

    key: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    ttl_s: Annotated[float, msgspec.Meta(gt=0, le=DURATION_S_MAX)] = ONCE_TTL_S


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """The call took effect."""

    ok: bool = True


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """`first`: do it; `again`: an attempt of the same execution began it; `no`: leave it."""

    answer: str


@post(
    "/executions/{execution:str}/checkpoint",
    opt={"body": Checkpoint, "by": "task"},
    status_code=200,
)
async def checkpoint(asked: Given, execution: FromPath[str]) -> Response[Kept]:
    """Save where the task has got to; the next attempt finds it."""
    key, token = await _proven(asked, execution)
    value = msgspec.json.encode((await asked.body(Checkpoint)).value)
    if len(value) > CHECKPOINT_BYTES_MAX:
        raise wrong("value", f"a checkpoint has at most {CHECKPOINT_BYTES_MAX:,} bytes")
    if not await asked.node.store.save_checkpoint(key, token, value, now=asked.now):
        raise _spent()
    return shown_as(Kept())


@post("/executions/{execution:str}/heartbeat", opt={"by": "task"}, status_code=200)
async def heartbeat(asked: Given, execution: FromPath[str]) -> Response[Kept]:
    """Say that the task is alive; it counts also while the database is away."""
    await asked.empty_body()
    token = _token(asked)
    key = execution_key(execution)
    if key is not None:
        for executor in asked.node.executors.values():
            executor.beat(key, token)
    await running_key(asked.node.keeping, execution, token)
    return shown_as(Kept())


@post("/executions/{execution:str}/once", opt={"body": Once, "by": "task"}, status_code=200)
async def once(asked: Given, execution: FromPath[str]) -> Response[Answer]:
    """Ask whether this attempt may do a piece of work."""
    key, token = await _proven(asked, execution)
    body = await asked.body(Once)
    store = asked.node.store
    answer = await store.once(key, token, body.key, body.ttl_s, now=asked.now)
    if answer is None:
        raise _spent()
    return shown_as(Answer(answer=answer))


async def _proven(asked: Asked, execution: str) -> tuple[int, int]:
    token = _token(asked)
    return await running_key(asked.node.keeping, execution, token), token


def _token(asked: Asked) -> int:
    given = asked.request.headers.getall("X-Fencing-Token", [])
    if len(given) != 1:
        raise RefusedError(
            401, "unauthorized", "a task proves itself by its fencing token, as X-Fencing-Token"
        )
    text = given[0]
    if not (text.isascii() and text.isdecimal() and len(text) <= 19 and int(text) <= _TOKEN_MAX):  # noqa: PLR2004 - digits of a bigint
        raise wrong("X-Fencing-Token", f"{shown(text)} is not a fencing token")
    return int(text)


def _spent() -> ConflictError:
    return ConflictError("this attempt is over: its fencing token is spent, so stop the work")


ROUTES: Final = [checkpoint, heartbeat, once]
