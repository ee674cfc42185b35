"""`Runtime`: a whole node inside a program of one's own.

async with Runtime.embedded() as rt:
    await rt.apply(refresh)
    execution = await rt.trigger("refresh", input={"day": 3})
    await execution.wait()
"""

import hashlib
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import anyio
import msgspec
import structlog

from protocols.actor import Actor, Props, Ref
from protocols.errors import InvalidError, Problem, TickwrightError
from protocols.ids import execution_id
from protocols.jobs import JobSpec
from protocols.messages import EventsAppended, JobsFinished, Ready, SchedulesChanged
from protocols.ports.store import Triggered, TriggerRequest
from protocols.views import Applied
from runtime.apply import apply_files
from runtime.files.callables import look_up, resolved
from runtime.files.load import load_files
from runtime.files.triggers import kafka_problems
from runtime.logs import configure_logs
from runtime.node import Node, open_node
from runtime.postgres.definitions.apply import apply
from runtime.postgres.events import START, LoggedEvent, end_of_events, read_events
from runtime.postgres.operations.session import Connection, transact
from runtime.python.dags import DagFunction
from runtime.python.execution import Execution
from runtime.python.jobs import Called, JobFunction
from runtime.settings import Settings, load_settings

SOURCE: Final = "python"
_READ: Final = 500
_LOOK_S: Final = 0.1


class Runtime:
    """A node in this program; made by `embedded` or `from_config`, run by `async with`."""

    def __init__(self, settings: Settings, *, tenant: str = "default") -> None:
        self.settings = settings
        self.tenant = tenant
        self._functions: dict[str, Callable[..., Any]] = {}
        self._job_of: dict[str, str] = {}
        """The job of each of these functions."""
        self._node: Node | None = None
        self._opened: AbstractAsyncContextManager[Node] | None = None

    @classmethod
    def embedded(
        cls, data_dir: str | Path | None = None, *, tenant: str = "default", **options: Any
    ) -> Self:
        """A node on an embedded PostgreSQL; its API is on a free port unless `port=` names one.

        `options` are settings by their path with two underscores: `pools__default__slots=8`.

        Raises:
            SettingsError: One of them is unknown or wrong.
        """
        given = {name.replace("__", "."): value for name, value in options.items()}
        given = {"api.port": given.pop("port", 0), "data_dir": data_dir, **given}
        named = {key: str(v) if isinstance(v, Path) else v for key, v in given.items()}
        return cls(
            load_settings(config=None, environment={}, options=named, cwd=Path.cwd()),
            tenant=tenant,
        )

    @classmethod
    def from_config(cls, config: str | Path, *, tenant: str = "default") -> Self:
        """A node with the settings of a file and of the environment.

        Raises:
            SettingsError: One of them is unknown or wrong.
        """
        settings = load_settings(
            config=Path(config), environment=os.environ, options={}, cwd=Path.cwd()
        )
        return cls(settings, tenant=tenant)

    @property
    def node(self) -> Node:
        """The running node.

        Raises:
            TickwrightError: It does not run.
        """
        if self._node is None:
            raise TickwrightError("the runtime does not run: use `async with`")
        return self._node

    @property
    def url(self) -> str:
        """Where its HTTP API is."""
        return self.node.url

    async def __aenter__(self) -> Self:
        if not structlog.is_configured():
            configure_logs()  # structlog's own default would print to the program's stdout
        self._opened = open_node(self.settings, functions=self._functions)
        self._node = await self._opened.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        assert self._opened is not None
        self._node = None
        if error is None or isinstance(error, anyio.get_cancelled_exc_class()):
            return await self._opened.__aexit__(kind, error, trace)
        # The program's own error goes on as itself, in no group.
        await self._opened.__aexit__(None, None, None)
        return None

    async def apply(self, *things: JobFunction[..., Any] | DagFunction | str | Path) -> Applied:
        """Apply jobs and DAGs of this program, and job files, as `runtime apply` does; no pruning.

        Raises:
            InvalidError: A function's fields are wrong.
            InvalidFileError: A file is wrong.
            ConflictError: A job belongs to another source.
        """
        node = self.node
        functions = [one for one in things if isinstance(one, JobFunction | DagFunction)]
        paths = [Path(one) for one in things if isinstance(one, str | Path)]
        answers = []
        if paths:
            done = await apply_files(
                node.api,
                load_files(paths),
                cwd=self.settings.tasks_cwd,
                now=node.clock.now(),
                who="python",
                kafka=self.settings.clustered,
            )
            answers += list(done.values())
        if functions:
            answers.append(await self._apply_functions(functions))
        node.hints.send(SchedulesChanged())
        return _together(answers)

    async def _apply_functions(
        self, functions: list[JobFunction[..., Any] | DagFunction]
    ) -> Applied:
        node = self.node
        specs: list[JobSpec] = []
        calls: list[Called] = []
        for thing in functions:
            parts, called = thing.parts(self.tenant)
            calls += [msgspec.structs.replace(c, number=len(specs) + c.number) for c in called]
            specs += parts
        found = await look_up(
            [c.target for c in calls if not c.inline], cwd=self.settings.tasks_cwd
        )
        missing = [
            Problem(
                ("jobs", c.number, "python"),
                f"{c.target} cannot be imported: {found[c.target].error}",
            )
            for c in calls
            if not c.inline and found[c.target].isolation is None
        ]
        if not self.settings.clustered:
            missing += [
                Problem(("jobs", i, *problem.path), problem.message)
                for i, spec in enumerate(specs)
                for problem in kafka_problems(spec)
            ]
        if missing:
            raise InvalidError(tuple(missing))
        specs = [resolved(spec, found) for spec in specs]
        self._take_inline(calls)
        digest = hashlib.sha256(msgspec.json.encode(specs)).digest()

        async def work(conn: Connection) -> Applied:
            return await apply(
                conn,
                tenant=self.tenant,
                source=SOURCE,
                jobs=specs,
                calendars={},
                content_hash=digest,
                now=node.clock.now(),
                who="python",
            )

        return await transact(node.api, self.tenant, work)

    def _take_inline(self, calls: list[Called]) -> None:
        """Keep the functions that run in this program, each under a name that is one job's.

        Raises:
            InvalidError: Two functions have one name, and only the last would ever run.
        """
        taken, functions = dict(self._job_of), dict(self._functions)
        for one in (call for call in calls if call.inline):
            owner = one.owner or "a task"
            same = one.owner is None and functions.get(one.target, one.function) is one.function
            if taken.setdefault(one.target, owner) != owner or not (one.owner or same):
                text = (
                    f"{one.target} is the function of {taken[one.target]} already: give each "
                    "function a name of its own"
                )
                raise InvalidError((Problem(("jobs", one.number, "python"), text),))
            functions[one.target] = one.function
        self._job_of = taken
        self._functions.update(functions)

    async def trigger(
        self,
        job_id: str,
        *,
        input: Any = None,  # noqa: A002 - the field's name everywhere
        key: str | None = None,
        at: datetime | None = None,
        with_dependencies: bool = False,
    ) -> Execution:
        """Run a job once, now or `at` an aware instant; durable when this returns.

        Raises:
            NotFoundError: There is no such job.
            KeyReusedError: The idempotency key `key` was used with another input.
            UnavailableError: The database cannot be reached; nothing was acknowledged.
        """
        given = None if input is None else msgspec.json.encode(input)
        body = hashlib.sha256(msgspec.json.encode((job_id, input, at, with_dependencies))).digest()
        request = TriggerRequest(
            tenant=self.tenant,
            job_id=job_id,
            input=given,
            run_at=at,
            with_dependencies=with_dependencies,
            key=key,
            body_hash=body,
        )
        (answer,) = await self.node.store.trigger([request], now=self.node.clock.now())
        if not isinstance(answer, Triggered):
            raise answer
        if answer.state == "blocked":
            self.node.hints.send(JobsFinished((answer.job_key,)))
        elif answer.pool is not None:
            self.node.hints.send(Ready(answer.pool))
        return Execution(self.node, self.tenant, execution_id(answer.id, answer.created_at))

    async def emit(self, event: str, payload: Any = None, *, key: str | None = None) -> None:
        """Emit an event, which triggers the jobs that are `on` it; durable when this returns."""
        node = self.node
        given = None if payload is None else msgspec.json.encode(payload)
        await node.store.emit(self.tenant, event, given, now=node.clock.now(), key=key)
        node.hints.send(EventsAppended())

    def spawn(
        self, actor: Props | Callable[[], Actor] | type[Actor], *, name: str | None = None
    ) -> Ref:
        """Start an actor of one's own, with a supervisor and a restart budget of its own.

        Once that budget is spent the actor stays ended, and the node goes on.
        """
        system = self.node.system
        props = actor if isinstance(actor, Props) else Props(factory=actor)
        supervisor = system.spawn(
            Props(restart="temporary"),
            name=name or props.name or None,
            under=system.lookup("/actors"),
        )
        return system.spawn(props, name=name, under=supervisor)

    def lookup(self, name: str) -> Ref | None:
        """An actor by name or path: of this node, or, as `name@node`, of another.

        None where no such actor lives here, or no such node; whether the actor of another node
        lives is told by its first answer.
        """
        return self.node.system.look_everywhere(name)

    async def subscribe(self, *, from_start: bool = False) -> AsyncIterator[LoggedEvent]:
        """What happens from now on, or has since the log begins, in order and without a gap.

        It reads the event log, so it ends at nothing: leave the loop when you have seen enough.
        """
        place = START if from_start else await end_of_events(self.node.keeping)
        while True:
            events = await read_events(self.node.keeping, after=place, limit=_READ)
            for event in events:
                place = event.place
                if event.tenant in (None, self.tenant):
                    yield event
            if len(events) < _READ:
                await anyio.sleep(_LOOK_S)


def _together(answers: list[Applied]) -> Applied:
    merged: Mapping[str, list[Any]] = {
        field: sorted((item for one in answers for item in getattr(one, field)), key=str)
        for field in Applied.__struct_fields__
    }
    return Applied(**{field: tuple(items) for field, items in merged.items()})
