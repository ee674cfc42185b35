"""What becomes of a task that is due: an execution, a wait, a list of items, or a run of a DAG."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio.lowlevel
import msgspec

from actors.dag import rules, values
from actors.dag.shape import TaskShape
from protocols.dags import POOL, TaskInput, TaskState
from protocols.errors import KeyReusedError, NotFoundError
from protocols.ids import execution_id
from protocols.instants import iso
from protocols.ports.store import TriggerRequest
from runtime.postgres.dags.executions import Wanted
from runtime.postgres.dags.rows import RunRow, TaskRow
from runtime.postgres.dags.within import mark_within
from runtime.postgres.trigger import trigger

if TYPE_CHECKING:
    from runtime.postgres.dags.progress import Turn

TASK_INPUT_BYTES_MAX: Final = 1 << 20
"""Of all that one task is given, as JSON."""
RESULTS_BYTES_MAX: Final = 1 << 20
"""Of the list of a mapped task's results; a longer one is not kept."""
TURN_S: Final = 0.25
"""What a turn's tasks, handlers, and lists of items may take each; the rest is left."""
_HOLD_S: Final = 0.01
"""How long they keep the node from anything else at once, but for one task's."""
DEPTH_MAX: Final = 10
"""How deep runs of DAGs may lie within each other."""
_REASON_MAX: Final = 500
Thing = TypeVar("Thing")
# A number that no JSON holds, an instant past the calendar: what a value can bring about.
_UNWORKABLE: Final = (
    values.ValuesError,
    msgspec.MsgspecError,
    ValueError,
    OverflowError,
    RecursionError,
)

# dag_tasks_pkey.
_RESULTS: Final = """
SELECT k.run, k.number, k.state, k.reason, k.result
FROM unnest($1::bigint[], $2::integer[]) AS u(run, number)
CROSS JOIN LATERAL (
    SELECT * FROM dag_tasks t
    WHERE t.run = u.run AND t.number = u.number AND t.item = -1 LIMIT 1
) AS k
"""

# dag_signals_pkey.
_SIGNALS: Final = "SELECT name, payload FROM dag_signals WHERE run = $1 ORDER BY run, name"

_FORGET_ITEMS: Final = "DELETE FROM dag_tasks WHERE run = $1 AND number = $2 AND item >= 0"
_MAKE_ITEMS: Final = """
INSERT INTO dag_tasks (run, number, item, tenant, task_id, state)
SELECT $1, $2, i, $4, $5, 'blocked' FROM generate_series(0, $3 - 1) AS i
"""
_ITEM_RESULTS: Final = """
SELECT item, result FROM dag_tasks
WHERE run = $1 AND number = $2 AND item >= 0
ORDER BY run, number, item
"""
_BEGUN_ITEMS: Final = """
SELECT item, state FROM dag_tasks
WHERE run = $1 AND number = $2 AND item >= 0 AND state IN ('scheduled', 'waiting', 'running')
ORDER BY run, number, item
"""

# dag_runs_pkey, as far up as runs lie within runs; dags_name.
_SUB_DAG: Final = """
WITH RECURSIVE up (run, depth) AS (
    SELECT $1::bigint, 0
    UNION ALL
    SELECT (SELECT r.parent_run FROM dag_runs r WHERE r.run = up.run LIMIT 1), up.depth + 1
    FROM up WHERE up.run IS NOT NULL AND up.depth < 100
)
SELECT (SELECT count(*) - 1 FROM up WHERE run IS NOT NULL) AS depth, (
    SELECT true FROM dags d WHERE d.tenant = $2 AND d.dag_id = $3
    ORDER BY d.tenant, d.dag_id LIMIT 1
) AS known
"""


def by_turns(things: Sequence[Thing], tenant: Callable[[Thing], str]) -> list[Thing]:
    """Each tenant's first thing, then each one's second: who has many keeps nobody waiting.

    Among tenants chance decides who is first, at each call anew; a tenant's own keep their order.
    """
    seen: dict[str, int] = {}
    chance: dict[str, float] = {}
    places = []
    for thing in things:
        name = tenant(thing)
        place = seen[name] = seen.get(name, -1) + 1
        luck = chance.setdefault(name, random.random())  # noqa: S311 - fairness, no secret
        places.append((place, luck))
    return [things[i] for i in sorted(range(len(things)), key=places.__getitem__)]


class Starter:
    """Starts the tasks of one turn."""

    def __init__(self, turn: Turn) -> None:
        self.pools: set[str] = set()
        """Pools with more to claim."""
        self.left: dict[int, str] = {}
        """Runs, and their tenants, with blocked tasks that this turn had no time to start."""
        self._turn = turn
        self._spent_s = {"task": 0.0, "handler": 0.0, "list": 0.0}
        """On expressions. Handlers start after all tasks, which would leave them nothing; and a
        list that is worked out once more is of use only if items of it are started, too."""
        self._held_s = 0.0
        """The same, since something else could happen."""
        self._results: dict[tuple[int, int], tuple[str, str | None, bytes | None]] = {}
        self._signals: dict[int, dict[str, bytes | None]] = {}
        self._lists: dict[tuple[int, int], list[Any]] = {}
        self._scopes: dict[tuple[int, int], dict[str, Any]] = {}
        """What expressions of a task see, but for its item."""

    async def start(self, tasks: Sequence[TaskRow]) -> None:
        """Start these; what cannot be worked out fails, what a condition forbids is skipped."""
        able = []
        for task in tasks:
            try:
                self._turn.shape(task).read_needs()
            except _UNWORKABLE as error:
                self._fail(task, error)
            else:
                able.append(task)
        await self._read_results(able)
        for task in by_turns(able, lambda task: self._turn.runs[task.run].tenant):
            shape, run = self._turn.shape(task), self._turn.runs[task.run]
            kind = self._kind(task, shape)
            if shape.needs.any and self._spent_s[kind] > TURN_S:
                self.left[run.run] = run.tenant
                continue
            began = time.thread_time()
            try:
                await self._start(task)
            except _UNWORKABLE as error:
                self._fail(task, error)
            if shape.needs.any:
                await self._count(kind, time.thread_time() - began)

    def _kind(self, task: TaskRow, shape: TaskShape) -> str:
        if shape.spec.map is not None and (task.run, task.number) not in self._lists:
            return "list"
        return "task" if shape.role == "task" else "handler"

    async def _count(self, kind: str, took_s: float) -> None:
        self._spent_s[kind] += took_s
        self._held_s += took_s
        if self._held_s > _HOLD_S:
            self._held_s = 0.0
            await anyio.lowlevel.checkpoint()

    def _fail(self, task: TaskRow, error: Exception) -> None:
        """What cannot be worked out is its task's failure, and never the end of all progress."""
        text = str(error) if isinstance(error, values.ValuesError) else f"expression: {error}"
        told = text[:_REASON_MAX].replace("\0", "").encode("utf-8", "replace").decode()
        self._turn.finish(task, "failed", told)

    async def _start(self, task: TaskRow) -> None:
        shape, run = self._turn.shape(task), self._turn.runs[task.run]
        spec = shape.spec
        scope = self._scope(task, shape, run)
        task.dirty = True
        task.cause = None
        if task.item < 0:
            if not values.holds(spec, scope):
                self._turn.finish(task, "skipped", rules.CONDITION)
                return
            if spec.map is not None:
                await self._expand(task, shape, scope)
                return
        task.executions += 1
        task.execution = None
        if spec.wait is not None:
            await self._wait(task, shape, scope)
        elif spec.dag is not None:
            await self._run_dag(task, shape, run, scope)
        else:
            given = TaskInput(
                run_id=self._run_id(run),
                task_id=shape.task_id,
                input=msgspec.Raw(run.input or b"null"),
                **values.worked_out(spec, shape.needs, scope, item=task.item),
            )
            text = msgspec.json.encode(given)
            if len(text) > TASK_INPUT_BYTES_MAX:
                raise values.ValuesError(f"input: more than {TASK_INPUT_BYTES_MAX} bytes as JSON")
            task.state, task.reason = "scheduled", None
            self._turn.wanted.append(
                Wanted(
                    task=task,
                    job_key=shape.key,
                    version=run.version,
                    scheduled_for=run.scheduled_for,
                    input=text,
                )
            )

    # --- what expressions see -----------------------------------------------------------------

    async def _read_results(self, tasks: Iterable[TaskRow]) -> None:
        wanted = set()
        for task in tasks:
            shape = self._turn.shapes[task.run]
            for name in shape.tasks[task.number].needs.tasks:
                number = shape.number_of(name)
                if number is not None and (task.run, number) not in self._results:
                    wanted.add((task.run, number))
        if not wanted:
            return
        ordered = sorted(wanted)
        rows = await self._turn.session.fetch(
            _RESULTS, [run for run, _ in ordered], [number for _, number in ordered]
        )
        for row in rows:
            key = (row["run"], row["number"])
            self._results[key] = (row["state"], row["reason"], row["result"])

    def _scope(self, task: TaskRow, shape: TaskShape, run: RunRow) -> Mapping[str, Any]:
        key, needs = (task.run, task.number), shape.needs
        scope = dict(self._scopes.get(key, ()))
        if needs.any and not scope:
            scope["input"] = None if run.input is None else msgspec.json.decode(run.input)
            scope["run"] = {"id": self._run_id(run), "scheduled_for": iso(run.scheduled_for)}
            scope["tasks"] = {name: self._task_value(task.run, name) for name in needs.tasks}
            self._scopes[key] = dict(scope)
        if task.item >= 0:
            whole = self._lists.get(key)
            if whole is None:
                whole = self._lists[key] = values.items(shape.spec, scope)
            if task.item >= len(whole):
                raise values.ValuesError("map: the list has become shorter")
            scope["item"] = whole[task.item]
        return scope

    def _task_value(self, run: int, name: str) -> dict[str, Any]:
        number = self._turn.shapes[run].number_of(name)
        if number is None:
            raise values.ValuesError(f"expression: there is no task {name!r}")
        state, reason, result = self._results.get((run, number), ("blocked", None, None))
        row = self._turn.rows.get((run, number, -1))
        if row is not None and row.dirty:
            state, reason = row.state, row.reason
            result = row.result if row.result is not None else result
        if reason == values.TOO_LARGE:
            raise values.ValuesError(f"expression: the results of {name!r} were too large to keep")
        return {"state": state, "result": None if result is None else msgspec.json.decode(result)}

    def _run_id(self, run: RunRow) -> str:
        return execution_id(run.run, run.born_at or run.started_at)

    # --- items --------------------------------------------------------------------------------

    async def _expand(self, task: TaskRow, shape: TaskShape, scope: Mapping[str, Any]) -> None:
        spec = shape.spec.map
        assert spec is not None
        listed = self._lists[task.run, task.number] = values.items(shape.spec, scope)
        session, run = self._turn.session, self._turn.runs[task.run]
        if task.executions:
            await session.execute(_FORGET_ITEMS, task.run, task.number)
        task.executions += 1
        task.state, task.reason, task.started_at = "running", None, self._turn.now
        task.pending = len(listed)
        task.succeeded = task.failed = task.skipped = 0
        if not listed:
            task.result = b"[]"
            self._turn.finish(task, "succeeded")
            return
        await session.execute(
            _MAKE_ITEMS, task.run, task.number, len(listed), run.tenant, shape.task_id
        )
        self._turn.begin_items(task, min(spec.parallelism, len(listed)))

    async def room(self, mapped: TaskRow) -> int:
        """How many more items of a mapped task may run at once."""
        spec = self._turn.shape(mapped).spec.map
        assert spec is not None
        rows = await self._turn.session.fetch(_BEGUN_ITEMS, mapped.run, mapped.number)
        begun = {row["item"] for row in rows}
        for row in self._turn.items_in_hand(mapped):
            if row.state in ("scheduled", "waiting", "running"):
                begun.add(row.item)
            else:
                begun.discard(row.item)
        return max(0, spec.parallelism - len(begun))

    async def gather(self, mapped: TaskRow) -> None:
        """End a mapped task whose items are all over; its result is the list of theirs."""
        turn = self._turn
        rows = await turn.session.fetch(_ITEM_RESULTS, mapped.run, mapped.number)
        in_hand = {row.item: row.result for row in turn.items_in_hand(mapped)}
        results = [in_hand.get(row["item"]) or row["result"] or b"null" for row in rows]
        state: TaskState = "succeeded"
        reason = None
        if mapped.failed:
            state, reason = "failed", rules.ITEMS
        elif mapped.skipped:
            run = turn.runs[mapped.run]
            state, reason = rules.when_items_skipped(run, turn.shape(mapped))
        size = sum(len(result) + 1 for result in results)
        if size <= RESULTS_BYTES_MAX:
            mapped.result = b"[" + b",".join(results) + b"]"
        else:
            reason = reason or values.TOO_LARGE
        turn.finish(mapped, state, reason)

    # --- waits and runs within runs -----------------------------------------------------------

    async def signals(self, run: int) -> dict[str, bytes | None]:
        """The signals that a run was sent, with their payloads."""
        if run not in self._signals:
            rows = await self._turn.session.fetch(_SIGNALS, run)
            self._signals[run] = {row["name"]: row["payload"] for row in rows}
        return self._signals[run]

    async def _wait(self, task: TaskRow, shape: TaskShape, scope: Mapping[str, Any]) -> None:
        wait, now = shape.spec.wait, self._turn.now
        assert wait is not None
        task.state, task.reason, task.started_at = "waiting", None, now
        if wait.signal is not None:
            sent = await self.signals(task.run)
            if wait.signal in sent:
                task.result = sent[wait.signal]
                self._turn.finish(task, "succeeded")
            elif wait.timeout_s is not None:
                task.wake_at = now + timedelta(seconds=wait.timeout_s)
            return
        until = values.instant(shape.spec, scope)
        if until <= now:
            self._turn.finish(task, "succeeded")
        else:
            task.wake_at = until.astimezone(UTC)

    async def _run_dag(
        self, task: TaskRow, shape: TaskShape, run: RunRow, scope: Mapping[str, Any]
    ) -> None:
        dag = shape.spec.dag
        assert dag is not None
        session = self._turn.session
        (found,) = await session.fetch(_SUB_DAG, run.run, run.tenant, dag.dag_id)
        if found["depth"] >= DEPTH_MAX:
            raise values.ValuesError(f"dag: runs lie more than {DEPTH_MAX} deep within each other")
        missing = values.ValuesError(f"dag: there is no DAG {dag.dag_id!r}")
        if not found["known"]:  # or a job by now, whose end nobody would tell of
            raise missing
        request = TriggerRequest(
            tenant=run.tenant, job_id=dag.dag_id, input=values.dag_input(shape.spec, scope)
        )
        (answer,) = await trigger(session, [request], now=self._turn.now)
        if isinstance(answer, NotFoundError | KeyReusedError):
            raise missing
        task.state, task.reason, task.started_at = "waiting", None, self._turn.now
        task.execution = answer.id
        await mark_within(session, answer.id, run.run)
        self.pools.add(POOL)
