"""What `ctx` gives to a Python task, for annotations: `async def refresh(ctx: TaskContext)`."""

from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import datetime
from logging import Logger
from typing import Any, Literal, Protocol

Turn = Literal["first", "again", False]
"""`first`: do it. `again`: an earlier attempt of this execution began it, and failed or was lost;
look how far it came, and do the rest. False: others have done it, or do it now."""


class HeldLock(Protocol):
    """A lock while its block runs; it is advisory: a resource refuses a late holder by `token`."""

    @property
    def name(self) -> str:
        """What it was asked for by."""

    @property
    def token(self) -> int:
        """Grows with every holder of any lock; pass it to the resource."""


class TaskFacts(Protocol):
    """What both kinds of context know without asking anybody."""

    @property
    def execution_id(self) -> str:
        """The id that users see; the same for every attempt."""

    @property
    def job_id(self) -> str:
        """The job's id in its tenant."""

    @property
    def tenant(self) -> str:
        """The job's tenant."""

    @property
    def scheduled_for(self) -> datetime:
        """The instant it was due, or asked for; aware, UTC."""

    @property
    def attempt(self) -> int:
        """1 for the first attempt that started, lost ones counted."""

    @property
    def fencing_token(self) -> int:
        """Grows with every attempt of any execution: a resource can refuse a late writer by it."""

    @property
    def input(self) -> Any:
        """What the execution was triggered with (JSON); None where nothing was given."""

    @property
    def dag_run_id(self) -> str | None:
        """The id of the run of a DAG that it is a task of; None outside of DAGs."""

    @property
    def task_id(self) -> str | None:
        """The task's id in its DAG; None outside of DAGs."""

    @property
    def item(self) -> Any:
        """Of a mapped task: the item that this execution is for (JSON)."""

    @property
    def checkpoint(self) -> Any:
        """The last value saved by an earlier attempt (JSON); None where there is none."""

    @property
    def cancelled(self) -> bool:
        """Whether the attempt was asked to stop."""

    @property
    def log(self) -> Logger:
        """A logger whose lines are kept with the execution's output."""


class TaskContext(TaskFacts, Protocol):
    """The context of an `async def` task."""

    async def save(self, value: Any) -> None:
        """Save a checkpoint (JSON) for the next attempt; durable when this returns."""

    async def heartbeat(self) -> None:
        """Say that the task is alive; for jobs with `heartbeat`."""

    async def emit(self, event: str, payload: Any = None) -> None:
        """Emit an event."""

    async def once(self, key: str, ttl: float | str) -> Turn:
        """Whether this attempt may do the piece of work named `key`."""

    def lock(
        self, name: str, ttl: float | str, wait: float | str | None = None
    ) -> AbstractAsyncContextManager[HeldLock]:
        """Hold the lock of that name, in this tenant and over all nodes, while the block runs.

        It is renewed every third of `ttl` (1 s to 24 h) while the attempt lives, free by the TTL
        after a crash, and released at the end of the block. An attempt that loses it is cancelled,
        and has failed. `wait`: at most so long (seconds, or a duration); 0 tries once.

        Raises:
            TimeoutError: on entering, where it was not free within `wait`.
            RuntimeError: on entering, where this attempt has it already.
        """


class SyncTaskContext(TaskFacts, Protocol):
    """The context of a plain `def` task: the same names, each returning when it is done."""

    def save(self, value: Any) -> None:
        """Save a checkpoint (JSON) for the next attempt; durable when this returns."""

    def heartbeat(self) -> None:
        """Say that the task is alive; for jobs with `heartbeat`."""

    def emit(self, event: str, payload: Any = None) -> None:
        """Emit an event."""

    def once(self, key: str, ttl: float | str) -> Turn:
        """Whether this attempt may do the piece of work named `key`."""

    def lock(
        self, name: str, ttl: float | str, wait: float | str | None = None
    ) -> AbstractContextManager[HeldLock]:
        """Hold the lock of that name while the block runs; see `TaskContext.lock`."""
