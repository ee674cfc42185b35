"""`@dag` and `@task`: a DAG drawn by a function's body, with the fields and rules of a job file.

    @task(max_retries=2)
    def extract(ctx): return {"rows": [1, 2]}

    @task
    async def load(ctx, rows): ...

    @dag("etl", schedule="0 2 * * *")
    def etl():
        load(extract()["rows"])

The body runs once, when the DAG is applied. A task that is called in it is not run: the call is a
task of the DAG, and what it returns stands for the result that a run will have. Where that is an
argument of another task, that one waits for it, and gets the value.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import update_wrapper
from typing import Any, Final, Self

import msgspec

from protocols.dags import DagTask
from protocols.errors import InvalidError, Problem
from protocols.jobs import JobSpec
from protocols.tasks import PythonTask
from runtime.files.dags import read_dag
from runtime.python.jobs import Called, target_of

__all__ = ["DagFunction", "Reference", "Task", "TaskCall", "dag", "item", "sub_dag", "task", "wait"]

_INLINE: Final = "inline"


class Reference:
    """A value that a run will have: the result of a task, the input, an item; `[...]` goes in."""

    def __init__(self, expression: str, tasks: frozenset[str] = frozenset()) -> None:
        self._expression = expression
        self._tasks = tasks

    def __getitem__(self, key: str | int) -> "Reference":
        """What is inside: a name or a place."""
        return Reference(f"{self._expression}[{_literal(key)}]", self._tasks)

    def __iter__(self) -> Any:
        raise TypeError("what a run will have cannot be gone through here: use `map=`")

    def __eq__(self, other: object) -> bool:
        raise TypeError("what a run will have cannot be compared here: use `when=`")

    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        raise TypeError("what a run will have is not known here: use `when=`")

    def __str__(self) -> str:
        return f"${{{{ {self._expression} }}}}"


class TaskCall(Reference):
    """A task of the DAG that is being drawn, and its result."""

    def __init__(self, task_id: str, fields: dict[str, Any]) -> None:
        super().__init__(f"tasks[{_literal(task_id)}].result", frozenset({task_id}))
        self.task_id = task_id
        self.fields = fields

    @property
    def state(self) -> Reference:
        """`succeeded`, `failed` or `skipped`, for a `when`."""
        return Reference(f"tasks[{_literal(self.task_id)}].state", self._tasks)

    def after(self, *others: "TaskCall") -> Self:
        """Begin only after these."""
        _depend(self.fields, (other.task_id for other in others))
        return self

    def __rshift__(self, other: "TaskCall") -> "TaskCall":
        """`a >> b`: b begins after a."""
        return other.after(self)


item: Final = Reference("item")
"""In a task with `map=`: the item that it is for."""


class _Drawing:
    """The tasks of a DAG whose body is running."""

    def __init__(self) -> None:
        self.calls: dict[str, TaskCall] = {}
        self.functions: dict[str, Task] = {}

    def add(self, task_id: str, fields: Mapping[str, Any], *, numbered: bool) -> TaskCall:
        """One more task; a second call of a function gets a number."""
        free, number = task_id, 1
        while numbered and free in self.calls:
            number += 1
            free = f"{task_id}-{number}"
        tasks: set[str] = set()
        written: dict[str, Any] = {"task_id": free}
        written |= {key: _written(value, tasks) for key, value in fields.items()}
        _depend(written, sorted(tasks - {free}))
        call = TaskCall(free, written)
        if free in self.calls:
            message = f"{free} is a task of this DAG already: give it another task_id"
            raise InvalidError((Problem(("tasks", len(self.calls), "task_id"), message),))
        self.calls[free] = call
        return call


_drawing: Final[ContextVar[_Drawing | None]] = ContextVar("drawing", default=None)


class Task:
    """A function that is a task where it is called in a DAG's body, and itself anywhere else."""

    def __init__(self, function: Callable[..., Any], fields: Mapping[str, Any]) -> None:
        update_wrapper(self, function)
        self.function = function
        self.fields = dict(fields)

    @property
    def target(self) -> str:
        """The name that the function is called by."""
        return target_of(self.function)

    @property
    def inline(self) -> bool:
        """Whether it runs in the program that embeds the runtime."""
        return bool(self.fields.get("isolation", _INLINE) == _INLINE)

    def options(self, **fields: Any) -> "Task":
        """The same with other fields: `load.options(task_id="again", when=rows["any"])(rows)`."""
        return Task(self.function, self.fields | fields)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """In a DAG's body: a task of it. Anywhere else: the function."""
        drawing = _drawing.get()
        if drawing is None:
            return self.function(*args, **kwargs)
        fields = {"python": self.target, **self.fields}
        if self.inline:
            fields.pop("isolation", None)
        if args:
            fields["args"] = list(args)
        if kwargs:
            fields["kwargs"] = kwargs
        named = fields.pop("task_id", None)
        default = self.function.__name__.strip("_").replace("<lambda>", "task")
        call = drawing.add(str(named or default), fields, numbered=named is None)
        drawing.functions[call.task_id] = self
        return call


class DagFunction:
    """A function whose body draws a DAG."""

    def __init__(self, body: Callable[..., Any], dag_id: str, fields: dict[str, Any]) -> None:
        self.__doc__ = body.__doc__
        self.body = body
        self.dag_id = dag_id
        self._fields = fields

    def parts(self, tenant: str) -> tuple[list[JobSpec], list[Called]]:
        """The DAG, then the hidden jobs of its tasks, and the functions that these call.

        Raises:
            InvalidError: With everything that is wrong.
        """
        with _drawn() as drawing:
            takes_input = self.body.__code__.co_argcount > 0
            self.body(*([Reference("input")] if takes_input else []))
        calls = [call.fields for call in drawing.calls.values()]
        raw = {**self._fields, "dag_id": self.dag_id, "tasks": calls}
        problems: list[Problem] = []
        parts = read_dag(raw, (), problems, tenant=tenant, calendars={})
        if not parts:
            raise InvalidError(tuple(problems))
        specs = [spec for spec, _ in parts]
        functions = {
            spec.job_id: drawing.functions[name]
            for spec in specs[1:]
            if (name := spec.job_id.partition("/")[2]) in drawing.functions
        }
        called = [
            Called(
                target=functions[spec.job_id].target,
                function=functions[spec.job_id].function,
                inline=functions[spec.job_id].inline,
                owner=None,
                number=number,
            )
            for number, spec in enumerate(specs)
            if spec.job_id in functions
        ]
        inline = {one.target for one in called if one.inline}
        return [_inlined(spec, inline) for spec in specs], called


def task(function: Callable[..., Any] | None = None, /, **fields: Any) -> Any:
    """Make a function a task: `@task`, or `@task(max_retries=2)` with the fields of a job file."""
    if function is not None:
        return Task(function, fields)
    return lambda given: Task(given, fields)


def dag(dag_id: str, **fields: Any) -> Callable[[Callable[..., Any]], DagFunction]:
    """Make a function's body a DAG; a parameter of it, if it has one, is the run's input.

    `fields` are those of a DAG in a job file; what is wrong is told when the DAG is applied.
    """
    return lambda body: DagFunction(body, dag_id, fields)


def wait(task_id: str, **fields: Any) -> TaskCall:
    """A task that waits: `wait("approve", signal="go", timeout="1d")`, or `until=`."""
    own = {key: fields.pop(key) for key in ("signal", "until", "timeout") if key in fields}
    return _current().add(task_id, {"wait": own, **fields}, numbered=False)


def sub_dag(task_id: str, dag_id: str, *, input: Any = None, **fields: Any) -> TaskCall:  # noqa: A002 - the field's name everywhere
    """A task that is a run of another DAG."""
    given = {"dag_id": dag_id} | ({} if input is None else {"input": input})
    return _current().add(task_id, {"dag": given, **fields}, numbered=False)


def _current() -> _Drawing:
    drawing = _drawing.get()
    if drawing is None:
        raise TypeError("this stands in the body of a @dag")
    return drawing


@contextmanager
def _drawn() -> Any:
    drawing = _Drawing()
    token = _drawing.set(drawing)
    try:
        yield drawing
    finally:
        _drawing.reset(token)


def _depend(fields: dict[str, Any], tasks: Iterable[str]) -> None:
    fields["dependencies"] = list(dict.fromkeys([*fields.get("dependencies", ()), *tasks]))


def _written(value: Any, tasks: set[str]) -> Any:
    """A value as a job file has it, and into `tasks` those whose results are in it."""
    if isinstance(value, Reference):
        tasks |= value._tasks  # noqa: SLF001 - this module's own
        return str(value)
    if isinstance(value, Mapping):
        return {key: _written(one, tasks) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_written(one, tasks) for one in value]
    return value


def _literal(key: str | int) -> str:
    if isinstance(key, bool) or not isinstance(key, str | int):
        raise TypeError(f"{key!r} is neither a name nor a place")
    if isinstance(key, int):
        return str(key)
    escaped = key.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"


def _inlined(spec: JobSpec, targets: set[str]) -> JobSpec:
    """The job, or the DAG, whose functions of this program are called in it."""
    found = spec.task
    if isinstance(found, PythonTask):
        return msgspec.structs.replace(spec, task=_inline(found, targets))
    if not isinstance(found, DagTask):
        return spec
    tasks = tuple(
        msgspec.structs.replace(one, task=_inline(one.task, targets))
        if isinstance(one.task, PythonTask)
        else one
        for one in found.tasks
    )
    return msgspec.structs.replace(spec, task=msgspec.structs.replace(found, tasks=tasks))


def _inline(found: PythonTask, targets: set[str]) -> PythonTask:
    if found.isolation is None and found.target in targets:
        return msgspec.structs.replace(found, isolation=_INLINE)
    return found
