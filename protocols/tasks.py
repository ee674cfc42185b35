"""What one execution does: a command, a callable or an HTTP request, once read."""

from typing import Any, Literal

import msgspec

Isolation = Literal["shared", "process", "inline"]


class CommandTask(msgspec.Struct, frozen=True, kw_only=True, tag="command", omit_defaults=True):
    """A process: `shell` is run by /bin/sh, `argv` as it stands; exactly one of them is set."""

    shell: str | None = None
    argv: tuple[str, ...] | None = None
    cwd: str | None = None
    env: dict[str, str] = {}
    success_exit_codes: tuple[int, ...] = (0,)


class PythonTask(msgspec.Struct, frozen=True, kw_only=True, tag="python", omit_defaults=True):
    """A callable, named `package.module:function`, called as `function(ctx, *args, **kwargs)`.

    `isolation` is resolved when the job is applied: `shared` for a coroutine function, `process`
    for a plain one, `inline` only inside the program that embeds the runtime.
    """

    target: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    isolation: Isolation | None = None
    """None only between the file and its apply, which finds out what kind of callable it is."""


class HttpExpect(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What makes an HTTP answer a success; any 2xx where `status` is empty."""

    status: tuple[int, ...] = ()
    body_contains: str | None = None


class HttpTask(msgspec.Struct, frozen=True, kw_only=True, tag="http", omit_defaults=True):
    """One HTTP request; `body` is sent as JSON unless it is a string."""

    method: str = "GET"
    url: str
    headers: dict[str, str] = {}
    body: Any = None
    expect: HttpExpect = HttpExpect()


class NoTask(msgspec.Struct, frozen=True, kw_only=True, tag="none", omit_defaults=True):
    """Nothing to run: a task of a DAG that waits, or that is a run of another DAG."""


PlainTask = CommandTask | PythonTask | HttpTask
"""What a worker can be given."""
