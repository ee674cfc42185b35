"""`ctx`: what a Python task knows of its execution, and what it may ask of the node."""

import asyncio
import logging
from concurrent.futures import Future
from datetime import datetime
from typing import Any, cast

import msgspec

from protocols.durations import parse_duration
from protocols.instants import from_epoch_ns
from protocols.task_context import Turn
from runtime.hosts.child.attempt import Attempt
from runtime.hosts.child.locks import AsyncLock, SyncLock
from runtime.hosts.wire import CHECKPOINT_BYTES_MAX

_log = logging.getLogger("task")


class _Facts:
    """What can be read without asking anybody."""

    __slots__ = ("_attempt",)

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    @property
    def execution_id(self) -> str:
        """The id that users see; the same for every attempt."""
        return self._attempt.run.execution_id

    @property
    def job_id(self) -> str:
        """The job's id in its tenant."""
        return self._attempt.spec.job_id

    @property
    def tenant(self) -> str:
        """The job's tenant."""
        return self._attempt.spec.tenant

    @property
    def scheduled_for(self) -> datetime:
        """The instant's name: when it was due, or asked for; aware, UTC."""
        return from_epoch_ns(self._attempt.run.scheduled_for_ns)

    @property
    def attempt(self) -> int:
        """1 for the first attempt that started, lost ones counted."""
        return self._attempt.run.attempt

    @property
    def fencing_token(self) -> int:
        """Grows with every attempt of any execution: a resource can refuse a late writer by it."""
        return self._attempt.run.token

    @property
    def input(self) -> Any:
        """What the execution was triggered with; None where nothing was given."""
        given = self._attempt.run.input
        return None if given is None else msgspec.json.decode(given)

    @property
    def dag_run_id(self) -> str | None:
        """The id of the run that it is a task of; None outside of DAGs."""
        dag = self._attempt.run.dag
        return None if dag is None else dag.run_id

    @property
    def task_id(self) -> str | None:
        """The task's id in its DAG; None outside of DAGs."""
        dag = self._attempt.run.dag
        return None if dag is None else dag.task_id

    @property
    def item(self) -> Any:
        """Of a mapped task: the item that this execution is for."""
        dag = self._attempt.run.dag
        return None if dag is None or dag.item is None else msgspec.json.decode(dag.item)

    @property
    def checkpoint(self) -> Any:
        """The last value saved by an earlier attempt; None where there is none."""
        saved = self._attempt.run.checkpoint
        return None if saved is None else msgspec.json.decode(saved)

    @property
    def cancelled(self) -> bool:
        """Whether the attempt was asked to stop: by its timeout, a person, or a node going away."""
        return self._attempt.cancelled

    @property
    def log(self) -> logging.Logger:
        """A logger whose lines are kept with the execution's output."""
        return _log

    def _save(self, value: Any) -> "Future[Any]":
        saved = msgspec.json.encode(value)
        if len(saved) > CHECKPOINT_BYTES_MAX:
            raise ValueError(f"a checkpoint has at most {CHECKPOINT_BYTES_MAX} bytes as JSON")
        return self._attempt.ask("checkpoint", saved)

    def _emit(self, event: str, payload: Any) -> "Future[Any]":
        return self._attempt.ask("emit", msgspec.json.encode({"event": event, "payload": payload}))

    def _once(self, key: str, ttl: float | str) -> "Future[Any]":
        value = {"key": key, "ttl_s": parse_duration(ttl)}
        return self._attempt.ask("once", msgspec.json.encode(value))


class TaskContext(_Facts):
    """The context of an `async def` task."""

    __slots__ = ()

    async def save(self, value: Any) -> None:
        """Save a checkpoint (JSON) for the next attempt; durable when this returns."""
        await asyncio.wrap_future(self._save(value))

    async def heartbeat(self) -> None:
        """Say that the task is alive; for jobs with `heartbeat`."""
        await asyncio.wrap_future(self._attempt.ask("heartbeat"))

    async def emit(self, event: str, payload: Any = None) -> None:
        """Emit an event; jobs with `on: {event: ...}` are triggered by it."""
        await asyncio.wrap_future(self._emit(event, payload))

    async def once(self, key: str, ttl: float | str) -> Turn:
        """Whether this attempt may do the piece of work named `key`.

        Returns:
            `first` for the one attempt that may; `again` for the next attempt of the same
            execution after one that failed or was lost; False for all others. The TTL (seconds,
            or a duration such as `1h`) starts when the attempt succeeds.
        """
        return cast("Turn", await asyncio.wrap_future(self._once(key, ttl)))

    def lock(self, name: str, ttl: float | str, wait: float | str | None = None) -> AsyncLock:
        """A lock over all nodes, held by `async with`; see `protocols.task_context`."""
        return AsyncLock(self._attempt, name, ttl, wait)


class SyncContext(_Facts):
    """The context of a plain `def` task: the same names, each waiting for its answer."""

    __slots__ = ()

    def save(self, value: Any) -> None:
        """Save a checkpoint (JSON) for the next attempt; durable when this returns."""
        self._save(value).result()

    def heartbeat(self) -> None:
        """Say that the task is alive; for jobs with `heartbeat`."""
        self._attempt.ask("heartbeat").result()

    def emit(self, event: str, payload: Any = None) -> None:
        """Emit an event; jobs with `on: {event: ...}` are triggered by it."""
        self._emit(event, payload).result()

    def once(self, key: str, ttl: float | str) -> Turn:
        """Whether this attempt may do the piece of work named `key`; see `TaskContext.once`."""
        return cast("Turn", self._once(key, ttl).result())

    def lock(self, name: str, ttl: float | str, wait: float | str | None = None) -> SyncLock:
        """A lock over all nodes, held by `with`; see `protocols.task_context`."""
        return SyncLock(self._attempt, name, ttl, wait)
