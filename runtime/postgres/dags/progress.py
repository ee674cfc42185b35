"""One turn of progress: what is in hand of some runs, changed by the rules, and written at once.

All of it happens in one transaction that holds the runs' locks. Rows are read as the rules come to
them, so a turn costs what it touches: a task that ended, its children, and what follows at once.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime

from actors.dag import rules
from actors.dag.rules import Skip, Stop
from actors.dag.shape import Shape, TaskShape
from protocols.dags import FINAL_RUN, TaskState
from runtime.postgres.dags.ends import ENDS, Ended, Turned
from runtime.postgres.dags.executions import Wanted, cancel, place
from runtime.postgres.dags.rows import (
    Key,
    RunRow,
    TaskRow,
    leave_looks,
    lock_runs,
    read_items,
    read_run,
    read_tasks,
    write_runs,
    write_tasks,
)
from runtime.postgres.dags.shapes import Shapes
from runtime.postgres.dags.starting import Starter
from runtime.postgres.pool import Session


class Turn:
    """The runs of one transaction, and what was read of their tasks."""

    def __init__(self, session: Session, shapes: Shapes, *, now: datetime) -> None:
        self.session = session
        self.now = now
        self.runs: dict[int, RunRow] = {}
        self.shapes: dict[int, Shape] = {}
        self.rows: dict[Key, TaskRow] = {}
        self.by_run: dict[int, dict[Key, TaskRow]] = {}
        """The same: of many runs in hand each is gone through by itself."""
        self.wanted: list[Wanted] = []
        self.accounted: Sequence[int] = ()
        """The rows of `dag_ended` that this turn takes account of."""
        self.costly = 0
        """Tasks that were found to start and may cost; mapped tasks and handlers by a guess."""
        self._kept = shapes
        self._starter = Starter(self)
        self._whole: set[int] = set()
        self._over: list[TaskRow] = []
        """Tasks that are over, and whose children have not heard of it."""
        self._starts: list[TaskRow] = []
        self._refill: dict[Key, int] = {}
        """Mapped tasks, and how many of their items have ended in this turn."""
        self._cancels: list[int] = []
        self._touched: set[int] = set()
        self._first_failed: dict[int, str] = {}

    async def lock(self, runs: Iterable[int]) -> None:
        """Take these runs in hand."""
        self.runs = await lock_runs(self.session, runs)
        for run in self.runs.values():
            self.shapes[run.run] = await self._kept.get(self.session, run.job_key, run.version)
            self.by_run[run.run] = {}

    def shape(self, task: TaskRow) -> TaskShape:
        """What its version says of a task."""
        return self.shapes[task.run].tasks[task.number]

    async def load(self, keys: Iterable[Key]) -> None:
        """Read those rows that are not in hand yet."""
        missing = {key for key in keys if key not in self.rows and key[0] not in self._whole}
        missing |= {key for key in keys if key not in self.rows and key[2] >= 0}
        if missing:
            self._take(await read_tasks(self.session, missing))

    def _take(self, rows: Sequence[TaskRow]) -> None:
        for row in rows:
            if row.key not in self.rows:
                self._put(row)

    def _put(self, row: TaskRow) -> None:
        self.rows[row.key] = self.by_run[row.run][row.key] = row

    async def load_run(self, run: int) -> list[TaskRow]:
        """Read all tasks of a run; those in hand stay as they are there."""
        self._take(await read_run(self.session, run))
        self._whole.add(run)
        return list(self.by_run[run].values())

    # --- what happened ------------------------------------------------------------------------

    async def end(self, ends: Sequence[Ended]) -> None:
        """Take account of executions that have ended; of one that is not its task's last, none."""
        ordered = sorted(ends, key=lambda e: e.finished_at)
        keys = {e.key for e in ordered}
        keys |= {(run, number, -1) for run, number, item in keys if item >= 0}
        for run, number, item in [e.key for e in ordered]:
            if item < 0 and run in self.runs:
                children = self.shapes[run].tasks[number].children
                keys |= {(run, child, -1) for child in children}
        await self.load(keys)
        for ended in ordered:
            task = self.rows.get(ended.key)
            if task is None or task.final or task.execution != ended.execution:
                continue
            state, reason = ENDS[ended.state], ended.reason
            if state == "cancelled":
                state, reason = rules.when_cancelled(self.runs[task.run], self.shape(task), reason)
            elif state == "succeeded":
                reason = None
            task.started_at, task.finished_at = ended.started_at, ended.finished_at
            task.result = ended.result
            self.finish(task, state, reason)

    async def look(self, run: int) -> None:
        """Decide all that is blocked in a run anew, by what its rows say."""
        record = self.runs.get(run)
        if record is None or record.finished_at is not None:
            return
        if record.born_at is None:
            record.cancelling = True  # its own execution has ended: somebody cancelled that
        shape = self.shapes[run]
        signals = await self._starter.signals(run)
        rows = await self.load_run(run)
        for task in rows:
            spec = shape.tasks[task.number].spec
            if task.item >= 0:
                continue
            if task.state == "blocked" and shape.tasks[task.number].role == "task":
                self._decide(task)
            elif task.state == "running" and spec.map is not None:
                self._refill[task.key] = -1
                self.costly += 1
        for task in rows:
            wait = shape.tasks[task.number].spec.wait
            if wait is not None and task.state == "waiting" and wait.signal in signals:
                task.result = signals[wait.signal]
                self.finish(task, "succeeded")
        self._touched.add(run)
        self.costly += not record.open  # its handlers are next

    async def expire(self, run: int) -> None:
        """Stop a run whose time is up."""
        record = self.runs.get(run)
        if record is None or record.finished_at is not None or record.cancelling:
            return
        if record.handlers == "none":
            await self._stop(record, "timeout")

    async def wake(self, keys: Sequence[Key]) -> None:
        """End the waits whose instant has come: for it, or for a signal in vain."""
        await self.load(keys)
        for key in keys:
            task = self.rows.get(key)
            if task is None or task.state != "waiting" or task.wake_at is None:
                continue
            if task.wake_at > self.now or task.execution is not None:
                continue
            wait = self.shape(task).spec.wait
            if wait is None or wait.signal is None:
                self.finish(task, "succeeded")
                continue
            sent = await self._starter.signals(task.run)
            if wait.signal in sent:  # it came in time, and nobody has looked since
                task.result = sent[wait.signal]
                self.finish(task, "succeeded")
            else:
                self.finish(task, "failed", rules.TIMEOUT)

    # --- what follows -------------------------------------------------------------------------

    def finish(
        self, task: TaskRow, state: TaskState, reason: str | None = None, cause: str | None = None
    ) -> None:
        """A task, or an item of one, is over."""
        task.end(state, reason, cause)
        task.wake_at, task.dirty = None, True
        self._touched.add(task.run)
        if task.item >= 0:
            self._finish_item(task)
            return
        rules.note_end(self.runs[task.run], task, self.shape(task).role)
        if state == "failed":
            self._first_failed.setdefault(task.run, self.shape(task).task_id)
        self._over.append(task)

    def _finish_item(self, item: TaskRow) -> None:
        mapped = self.rows[item.run, item.number, -1]
        how = rules.counts_as(item.state, item.reason)
        mapped.pending -= 1
        setattr(mapped, how, getattr(mapped, how) + 1)
        mapped.dirty = True
        had = self._refill.get(mapped.key, 0)
        self._refill[mapped.key] = had + 1 if had >= 0 else had

    async def settle(self) -> Turned:
        """Follow everything to its end, and write it."""
        while True:
            await self._tell_children()
            await self._refill_items()
            if self._over:
                continue
            for run in [self.runs[key] for key in sorted(self._touched)]:
                stop = rules.stop_of(run, self.shapes[run.run].on_failure)
                if stop is not None and run.finished_at is None:
                    await self._stop(run, stop)
            if self._over or self._refill:
                continue
            if self._starts:
                starts, self._starts = self._starts, []
                await self._start(starts)
            elif not (await self._close() or await self._place()):
                break
        return await self._write()

    def items_in_hand(self, mapped: TaskRow) -> list[TaskRow]:
        """What was read, or made, of a mapped task's items."""
        rows = self.by_run[mapped.run].values()
        return [row for row in rows if row.item >= 0 and row.number == mapped.number]

    def begin_items(self, mapped: TaskRow, count: int) -> None:
        """The first items of a task that was just expanded are to start."""
        for item in range(count):
            row = TaskRow(run=mapped.run, number=mapped.number, item=item, dirty=True)
            self._put(row)
            self._starts.append(row)

    async def _tell_children(self) -> None:
        while self._over:
            over, self._over = self._over, []
            pairs = [(task, child) for task in over for child in self.shape(task).children]
            await self.load((task.run, child, -1) for task, child in pairs)
            heard: dict[Key, TaskRow] = {}
            for parent, number in pairs:
                child = self.rows[parent.run, number, -1]
                if child.state == "blocked":
                    forgiven = rules.forgives(
                        self.shape(child).trigger, self.shapes[child.run].on_failure
                    )
                    rules.hear(child, parent, self.shape(parent).task_id, forgiven=forgiven)
                    child.dirty = True
                    heard[child.key] = child
            for child in heard.values():
                self._decide(child)

    def _decide(self, task: TaskRow) -> None:
        shape = self.shapes[task.run]
        match rules.decide(shape.tasks[task.number].trigger, task, shape.on_failure):
            case "start":
                self._starts.append(task)
                self.costly += shape.tasks[task.number].may_cost
            case Skip(reason=reason):
                upstream = reason in (rules.UPSTREAM_FAILED, rules.UPSTREAM_SKIPPED)
                self.finish(task, "skipped", reason, task.cause if upstream else None)

    async def _refill_items(self) -> None:
        """Begin as many items as have ended; end mapped tasks of which none is left."""
        refill, self._refill = self._refill, {}
        for key, count in refill.items():
            mapped = self.rows[key]
            if mapped.state != "running":
                continue
            if mapped.pending <= 0:
                await self._starter.gather(mapped)
                continue
            if self.runs[mapped.run].state == "running":
                room = count if count >= 0 else await self._starter.room(mapped)
                self._starts += await self._next_items(mapped, room)

    async def _next_items(self, mapped: TaskRow, count: int) -> list[TaskRow]:
        """Up to so many items that have not begun, by the books and in hand."""
        if count <= 0:
            return []
        begun = len(self.items_in_hand(mapped))
        # They begin in their order, so that none of those over lies behind one that has not begun;
        # but for items that were put back by a retry.
        over = mapped.succeeded + mapped.failed + mapped.skipped
        waiting = {row.key for row in self._starts}
        items: list[TaskRow] = []
        for first in (over, 0):
            found = await read_items(
                self.session, mapped.run, mapped.number, count + begun, first=first
            )
            self._take(found)
            rows = [self.rows[item.key] for item in found]
            items = [row for row in rows if row.state == "blocked" and row.key not in waiting]
            if items or not first:
                break
        return items[:count]

    async def _start(self, starts: Sequence[TaskRow]) -> None:
        once = {task.key: task for task in starts}.values()  # two parents may have decided one
        ready = [t for t in once if t.state == "blocked" and self.runs[t.run].state == "running"]
        await self._starter.start(ready)

    async def _stop(self, run: RunRow, stop: Stop) -> None:
        """Begin nothing more of a run: skip what has not begun, cancel what runs."""
        rows = await self.load_run(run.run)
        handlers = rules.handlers_to_stop(run, self.shapes[run.run], rows, stop)
        run.reason = stop
        if stop != "fail_fast" and run.state == "paused":
            run.state = "running"  # a pause does not keep its handlers
        self._touched.add(run.run)
        cause = self._first_failed.get(run.run) if stop == "fail_fast" else None
        for task in rows:
            shape = self.shape(task)
            if task.final or (shape.role != "task" and task.number not in handlers):
                continue
            if rules.survives(stop, shape.trigger):
                continue
            if task.state == "running":
                self._refill.setdefault(task.key, 0)
            elif task.execution is not None and task.state in ("scheduled", "waiting"):
                self._cancels.append(task.execution)
            else:
                self.finish(task, "skipped", stop, cause)
        self.wanted = [w for w in self.wanted if not w.task.final]

    async def _close(self) -> bool:
        """Start handlers of runs with nothing open, and end runs; whether anything was done."""
        did = False
        for run in self.runs.values():
            if run.open or run.finished_at is not None or run.run not in self._touched:
                continue
            if run.run in self._starter.left:
                continue
            shape = self.shapes[run.run]
            await self.load((run.run, number, -1) for number in shape.handlers)
            handlers = {n: self.rows[run.run, n, -1] for n in shape.handlers}
            if run.state == "paused" and any(not t.final for t in handlers.values()):
                continue
            starts, skips, over = rules.handlers_due(run, shape, handlers)
            run.handlers = "running"
            for number in skips:
                self.finish(handlers[number], "skipped", rules.UNTRIGGERED)
                did = True
            if starts:
                self._starts += [handlers[number] for number in starts]
                did = True
            elif over and not skips:
                run.state, run.handlers = rules.outcome_of(run), "done"
                run.finished_at = self.now
        return did

    async def _place(self) -> bool:
        """Put what is to run into its queue; whether there was what could not be."""
        wanted, self.wanted = self.wanted, []
        unplaced = await place(self.session, wanted, self._starter.pools, now=self.now)
        for task in unplaced:
            self.finish(task, "failed", "dag: its definition is gone")
        return bool(unplaced)

    async def _write(self) -> Turned:
        await write_tasks(
            self.session, [row for row in self.rows.values() if row.dirty], now=self.now
        )
        touched = [self.runs[run] for run in self._touched if run in self.runs]
        await write_runs(self.session, touched, accounted=self.accounted)
        left = sorted(self._starter.left.items())
        await leave_looks(self.session, left, now=self.now)
        asked = await cancel(self.session, self._cancels, now=self.now)
        return Turned(
            pools=tuple(sorted(self._starter.pools)),
            over=tuple(r.run for r in touched if r.state in FINAL_RUN),
            asked=asked,
            more=bool(left) or len(asked) < len(self._cancels),
        )
