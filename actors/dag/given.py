"""What an attempt at a DAG's task is given, taken out of its execution's input."""

from typing import Any, Final

import msgspec

from actors.dag.values import variable
from protocols.dags import TaskInput
from protocols.ports.executor import Given
from protocols.tasks import CommandTask, HttpTask, PlainTask, PythonTask
from protocols.templates import render, render_text, render_url

_decode: Final = msgspec.json.Decoder(TaskInput).decode


def given_to(task: PlainTask, text: bytes) -> tuple[PlainTask, bytes | None, Given]:
    """The task with its references filled in, the run's input, and the rest.

    Args:
        task: as its definition has it.
        text: the execution's input, a `TaskInput` as JSON.
    """
    given = _decode(text)
    values = {name: msgspec.json.decode(raw) for name, raw in given.values.items()}
    own = bytes(given.input)
    return (
        filled(task, values) if values else task,
        None if own == b"null" else own,
        Given(
            run_id=given.run_id,
            task_id=given.task_id,
            item=None if given.number is None else bytes(given.item),
            number=given.number,
            refs=tuple(variable(bytes(ref)) for ref in given.refs),
        ),
    )


def filled(task: PlainTask, values: dict[str, Any]) -> PlainTask:
    """A task with its references filled in, by what stands inside each; never into a shell's text.

    Arguments, variables, headers and URLs stay text; arguments of a function and the body of a
    request keep the kind of value they refer to.
    """
    match task:
        case CommandTask(argv=argv, env=env):
            return msgspec.structs.replace(
                task,
                argv=None if argv is None else tuple(render_text(one, values) for one in argv),
                env={name: render_text(one, values) for name, one in env.items()},
                cwd=None if task.cwd is None else render_text(task.cwd, values),
            )
        case PythonTask(args=args, kwargs=kwargs):
            return msgspec.structs.replace(
                task, args=tuple(render(args, values)), kwargs=render(kwargs, values)
            )
        case HttpTask(headers=headers):
            return msgspec.structs.replace(
                task,
                url=render_url(task.url, values),
                headers={name: render_text(one, values) for name, one in headers.items()},
                body=render(task.body, values),
            )
