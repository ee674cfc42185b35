"""Answers what a running attempt asks of its node: checkpoint, heartbeat, once, emit."""

from typing import Annotated, Any, Final

import msgspec

from protocols.actor import Context
from protocols.errors import TickwrightError, UnavailableError
from protocols.messages import EventsAppended
from protocols.ports.executor import Executor, Request
from protocols.ports.hints import Hints
from protocols.ports.store import WorkerStore

_SPENT: Final = "this attempt was given up: its fencing token is no longer in force"
_RETRY_S: Final = 0.5


# Longer ones fit into no index.
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]


class _Once(msgspec.Struct, frozen=True):
    key: _Name
    ttl_s: float


class _Emit(msgspec.Struct, frozen=True):
    event: _Name
    payload: msgspec.Raw = msgspec.Raw(b"null")


async def answer_request(
    request: Request,
    tenant: str,
    store: WorkerStore,
    executor: Executor,
    hints: Hints,
    ctx: Context,
) -> None:
    """Do what was asked, waiting out an absent database, and answer; never raises for a task."""
    while True:
        try:
            value = await _do(request, tenant, store, hints, ctx)
        except UnavailableError:
            await ctx.sleep(_RETRY_S)
            continue
        except (TickwrightError, msgspec.MsgspecError) as error:
            executor.answer(request.number, error=str(error))
        except Exception as error:  # noqa: BLE001 - no task's question may end the worker
            executor.answer(request.number, error=f"the node cannot: {type(error).__name__}")
        else:
            if value is None:
                executor.answer(request.number, error=_SPENT)
            else:
                executor.answer(request.number, value=value)
        return


async def _do(
    request: Request, tenant: str, store: WorkerStore, hints: Hints, ctx: Context
) -> Any | None:
    """The answer, or None where the attempt's token is spent."""
    now, value = ctx.clock.now(), request.value or b"null"
    match request.kind:
        case "checkpoint":
            saved = await store.save_checkpoint(request.id, request.fencing_token, value, now=now)
            return True if saved else None
        case "once":
            asked = msgspec.json.decode(value, type=_Once)
            return await store.once(
                request.id, request.fencing_token, asked.key, asked.ttl_s, now=now
            )
        case "emit":
            event = msgspec.json.decode(value, type=_Emit)
            # By a key, since what had no answer is asked again: one call makes one event.
            key = f"attempt {request.fencing_token} call {request.number}"
            await store.emit(tenant, event.event, bytes(event.payload), now=now, key=key)
            hints.send(EventsAppended())
            return True
        case "heartbeat":
            return True
