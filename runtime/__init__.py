"""Runs actors, and everything that touches the outside world: adapters, API, CLI, wiring.

`Runtime` and `job` are for programs; they are imported when first asked for, since a command that
needs no node should not wait for one.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtime.python.embedding import Runtime
    from runtime.python.jobs import job

__all__ = ["Runtime", "job"]


def __getattr__(name: str) -> Any:
    if name == "Runtime":
        from runtime.python.embedding import Runtime  # noqa: PLC0415

        return Runtime
    if name == "job":
        from runtime.python.jobs import job  # noqa: PLC0415

        return job
    raise AttributeError(f"module 'runtime' has no attribute {name!r}")
