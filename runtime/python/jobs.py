"""`@job`: a function that is a job, with the fields and the rules of a job file."""

from collections.abc import Callable
from functools import update_wrapper
from typing import Any, Final, Generic, ParamSpec, TypeVar

import msgspec

from protocols.errors import InvalidError, Problem
from protocols.jobs import JobSpec, PythonTask
from runtime.files.jobs import read_job

P = ParamSpec("P")
R = TypeVar("R")

_INLINE: Final = "inline"


class Called(msgspec.Struct, frozen=True, kw_only=True):
    """A function that a job or a task calls."""

    target: str
    function: Callable[..., Any]
    inline: bool
    owner: str | None
    """The one job whose function it is; None where many tasks may call it."""
    number: int
    """The place of what calls it among the parts of its definition."""


def target_of(function: Callable[..., Any]) -> str:
    """The name that a function is called by."""
    name = function.__qualname__.replace("<locals>.", "")
    return f"{function.__module__}:{name}"


class JobFunction(Generic[P, R]):
    """A function with a job's definition; called, it is the function.

    Inside the program that embeds the runtime it runs `inline` unless `isolation=` says otherwise.
    """

    def __init__(self, function: Callable[P, R], job_id: str, fields: dict[str, Any]) -> None:
        update_wrapper(self, function)
        self.function = function
        self.job_id = job_id
        self._fields = fields

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function, as if it were no job."""
        return self.function(*args, **kwargs)

    @property
    def target(self) -> str:
        """The name that the function is called by."""
        return target_of(self.function)

    @property
    def inline(self) -> bool:
        """Whether it runs in this very process."""
        return bool(self._fields.get("isolation", _INLINE) == _INLINE)

    def parts(self, tenant: str) -> tuple[list[JobSpec], list[Called]]:
        """The definition, and the function that it calls.

        Raises:
            InvalidError: With every field that is wrong.
        """
        called = Called(
            target=self.target,
            function=self.function,
            inline=self.inline,
            owner=self.job_id,
            number=0,
        )
        return [self.spec(tenant)], [called]

    def spec(self, tenant: str) -> JobSpec:
        """The job's definition.

        Raises:
            InvalidError: With every field that is wrong.
        """
        fields = {key: value for key, value in self._fields.items() if key != "isolation"}
        raw = {**fields, "job_id": self.job_id, "python": self.target}
        if not self.inline:
            raw["isolation"] = self._fields["isolation"]
        problems: list[Problem] = []
        spec = read_job(raw, (), problems, tenant=tenant, defaults={}, calendars={})
        if spec is None:
            raise InvalidError(tuple(problems))
        if self.inline:
            assert isinstance(spec.task, PythonTask)
            task = msgspec.structs.replace(spec.task, isolation=_INLINE)
            spec = msgspec.structs.replace(spec, task=task)
        return spec


def job(job_id: str, **fields: Any) -> Callable[[Callable[P, R]], JobFunction[P, R]]:
    """Make a function a job: `@job("refresh", schedule="*/5 * * * *", timeout="1m")`.

    `fields` are those of a job file, by the same names and rules; what is wrong with them is told
    when the job is applied.
    """

    def decorate(function: Callable[P, R]) -> JobFunction[P, R]:
        return JobFunction(function, job_id, fields)

    return decorate
