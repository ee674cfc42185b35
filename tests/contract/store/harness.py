"""What the conformance suite needs beside the port: a house to set up, and books to read back."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from protocols.instants import to_epoch_ns
from protocols.jobs import CommandTask, JobSpec
from protocols.ports.store import (
    Budget,
    Claimed,
    DueInstant,
    DueSchedule,
    Finish,
    Firing,
    Lane,
    NodeInfo,
    Store,
    Term,
    TriggerRequest,
)

NOW = datetime(2026, 12, 1, 8, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def spec_of(job_id: str, **fields) -> JobSpec:
    return JobSpec(job_id=job_id, task=CommandTask(shell="true"), **fields)


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """A row, hot or final."""

    id: int
    state: str
    reason: str | None
    scheduled_for: datetime
    run_at: datetime | None = None
    origin: int
    attempt: int
    failures: int
    losses: int
    priority: int
    pool: str
    holds_turn: bool = False
    cancel_requested: bool = False
    expires_at: datetime | None = None
    finished_at: datetime | None = None
    exit_code: int | None = None
    error: str | None = None
    result: bytes | None = None
    input: bytes | None = None
    instants: int = 1
    last_scheduled_for: datetime | None = None


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt that has a row of its own."""

    attempt: int
    state: str
    exit_code: int | None
    error: str | None


class StoreHarness(ABC):
    """A store with nothing in it but one node, `node`, and one leadership."""

    store: Store
    node: int

    @abstractmethod
    async def make_job(
        self,
        spec: JobSpec,
        *,
        next_fire_at: datetime | None = None,
        cursor: datetime = NOW,
        after_s: float | None = None,
        paused: bool = False,
        parents: Sequence[int] = (),
        version: int = 1,
    ) -> int:
        """Make a job whose schedule stands at `cursor`, or a new version of one."""

    @abstractmethod
    async def executions_of(self, job_key: int) -> list[Execution]:
        """All rows of a job, in the order they were made."""

    @abstractmethod
    async def attempts_of(self, execution: int) -> list[Attempt]:
        """Its attempt rows, in order."""

    @abstractmethod
    async def outputs_of(self, execution: int) -> list[tuple[int, bytes, bytes, int]]:
        """What its attempts printed: (attempt, head, tail, omitted)."""

    @abstractmethod
    async def schedule_of(self, job_key: int) -> tuple[datetime, datetime | None]:
        """A schedule's cursor and next_fire_at."""

    @abstractmethod
    async def parents_of(self, execution: int) -> list[int]:
        """The job keys that a blocked execution waits for."""

    @abstractmethod
    async def holders_of(self, job_key: int) -> list[int]:
        """The executions that hold a job's concurrency limit, sorted."""

    @abstractmethod
    async def keep(self, claimed: Claimed, *, checkpoint: bytes, once: str) -> None:
        """Save a checkpoint and a once key for an execution that runs."""

    @abstractmethod
    async def kept_of(self, claimed: Claimed) -> tuple[bool, bool]:
        """Whether it still has a checkpoint of its own, and a once key that never expires."""

    @abstractmethod
    async def request_cancel(self, execution: int) -> None:
        """Mark a running one."""

    @abstractmethod
    async def pause(self, *, house: bool = False, leadership: bool = False) -> None:
        """Pause claiming (the house) or firing (its leadership)."""

    @abstractmethod
    async def reshard(self, leaderships: int) -> None:
        """Group the shards anew."""

    @abstractmethod
    async def end_node(self, state: str) -> None:
        """Make the node's row `draining`, `stopped` or `dead`."""

    @abstractmethod
    async def silence(self, incarnation: int, seconds: float = 60) -> None:
        """Make a node's last beat so old."""

    @abstractmethod
    async def events(self) -> list[tuple[str, list[int], list[str]]]:
        """The event log in order: kind, ids, states."""

    # --- what tests say all the time ---

    async def lead(self, number: int = 0) -> Term:
        return await self.store.take_epoch(number, self.node, now=NOW)

    async def due(self, term: Term, *, until: datetime = NOW) -> list[DueSchedule]:
        return list(await self.store.due(term, until=until, limit=1000))

    async def fire(self, term: Term, spec: JobSpec, job_key: int, *instants, **changes):
        """Fire a job whose schedule stands where `schedule_of` says."""
        return await self.store.fire(
            term,
            [await self.firing(spec, job_key, *instants, **changes)],
            now=changes.get("now", NOW),
        )

    async def firing(self, spec: JobSpec, job_key: int, *instants, **changes) -> Firing:
        cursor, _ = await self.schedule_of(job_key)
        whole = [
            i if isinstance(i, DueInstant) else DueInstant(scheduled_for=i, run_at=i)
            for i in instants
        ]
        last = max((i.scheduled_for for i in whole), default=cursor)
        return Firing(
            job_key=job_key,
            version=changes.get("version", 1),
            spec=spec,
            seen_cursor=changes.get("seen_cursor", cursor),
            cursor=changes.get("cursor", last),
            next_fire_at=changes.get("next_fire_at", last + timedelta(minutes=1)),
            instants=whole,
        )

    async def trigger(self, job_id: str, **fields):
        (answer,) = await self.store.trigger(
            [TriggerRequest(tenant="default", job_id=job_id, **fields)], now=NOW
        )
        return answer

    async def claim(self, count: int = 10, *, now: datetime = NOW, key: str | None = None, **more):
        """Claim from the default lane, or from that of a limited key."""
        lane = Lane("default", more.pop("priority", 2), key)
        return list(
            await self.store.claim(
                more.pop("pool", "default"),
                more.pop("node", self.node),
                [Budget(lane, count)],
                now=now,
                level=more.pop("level", 1),
                **more,
            )
        )

    async def join(self, name: str = "other", *, alone: bool = False) -> int:
        info = NodeInfo(
            name=name, url="", pid=2, host="h", version="0", level=1, pools={"default": 4}
        )
        return await self.store.join(info, now=NOW, alone=alone)

    async def succeed(self, *claimed: Claimed):
        return await self.store.finish(self.node, [ended(c) for c in claimed])


def ended(claimed: Claimed, state: str = "succeeded", **fields) -> Finish:
    """How an attempt ended: well, unless the fields say otherwise."""
    fields = {"attempt_state": "succeeded" if state == "succeeded" else "failed", **fields}
    return Finish(
        id=claimed.id,
        fencing_token=claimed.fencing_token,
        state=state,
        started_ns=to_epoch_ns(NOW),
        finished_ns=to_epoch_ns(at(1)),
        **fields,
    )
