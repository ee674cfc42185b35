"""Runs actors, and everything that touches the outside world: adapters, API, CLI, wiring.

`Runtime`, `job`, `dag` and what belongs to them are for programs; they are imported when first
asked for, since a command that needs no node should not wait for one.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtime.python.dags import dag, item, sub_dag, task, wait
    from runtime.python.embedding import Runtime
    from runtime.python.jobs import job

__all__ = ["Runtime", "dag", "item", "job", "sub_dag", "task", "wait"]
_OF_DAGS = frozenset({"dag", "item", "sub_dag", "task", "wait"})


def __getattr__(name: str) -> Any:
    if name == "Runtime":
        from runtime.python.embedding import Runtime  # noqa: PLC0415

        return Runtime
    if name == "job":
        from runtime.python.jobs import job  # noqa: PLC0415

        return job
    if name in _OF_DAGS:
        from runtime.python import dags  # noqa: PLC0415

        return getattr(dags, name)
    raise AttributeError(f"module 'runtime' has no attribute {name!r}")
