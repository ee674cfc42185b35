"""The console script `runtime`: each command in a module of its own, loaded when it is called.

Whatever happens, a user reads one sentence with the way out and gets an exit code: 0 done, 1 what
was asked for failed, 2 the command line was wrong, 3 the node or the database cannot be reached.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Final

import click

from runtime.cli.failures import exit_code_of, readable, sentence_of, told
from runtime.zones import use_pinned_zones

INTERRUPTED: Final = 130
PIPE_CLOSED: Final = 141

COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "start": ("start", "Start a node."),
    "check": ("check", "Validate job files, without a node."),
    "apply": ("apply", "Make job files the definitions of their source."),
    "jobs": ("jobs", "List, show, pause, resume and delete jobs."),
    "trigger": ("trigger", "Run a job or a DAG now, or at a time of its own."),
    "emit": ("trigger", "Emit an event, which triggers the jobs that listen."),
    "backfill": ("backfill", "Run the instants of a job in a past window."),
    "next": ("next", "Show when a job or an expression is due next."),
    "executions": ("executions", "List, show, cancel, retry and follow executions."),
    "dags": ("dags", "List and draw DAGs and their runs; retry, mark, signal."),
    "dead-letters": ("dead_letters", "List, replay and discard what ended dead."),
    "locks": ("locks", "List the locks that tasks hold, and release one."),
    "nodes": ("nodes", "List the nodes, and drain one."),
    "actors": ("nodes", "Show the live supervision tree."),
    "reshard": ("nodes", "Change timer.shards while nodes run."),
    "top": ("top", "Watch what runs, live."),
    "pause": ("house", "Pause the whole house."),
    "resume": ("house", "Resume the whole house."),
    "doctor": ("doctor", "Look for what is wrong, and say how to mend it."),
    "migrate": ("migrate", "Bring the database's schema up to this build."),
    "checkpoint": ("task_commands", "Save where this task has got to (from inside a task)."),
    "heartbeat": ("task_commands", "Say that this task is alive (from inside a task)."),
    "once": ("task_commands", "Ask whether this task may do a piece of work."),
}
"""Each command, its module, and its line in the help; the order is the help's."""


class Commands(click.Group):
    """Loads a command's module only when it is called, so that each starts in a moment."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every command that works."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command itself."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"runtime.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_") + "_command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The help's list, without loading what it lists."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--tenant", help="For whom; RUNTIME_TENANT says it too. Default: default.")
@click.option("--debug", is_flag=True, help="Show the whole story of an unexpected error.")
@click.version_option(version("tickwright"), "-V", "--version", message="tickwright %(version)s")
@click.pass_context
def commands(ctx: click.Context, tenant: str | None, debug: bool) -> None:  # noqa: FBT001
    """Run jobs on time: cron, intervals and one-off, every due instant recorded exactly once.

    \b
    runtime start                     a node, with its own PostgreSQL
    runtime apply jobs.yaml           the jobs it runs
    runtime trigger JOB --wait        one of them, now
    """  # noqa: D301 - click reads \b
    ctx.obj = {"tenant": tenant, "debug": debug}


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; never raises, never shows a traceback."""
    try:
        answer = commands.main(list(arguments), prog_name="runtime", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BaseException as error:
        if _is_closed_pipe(error):
            _let_go_of_stdout()
            return PIPE_CLOSED
        if isinstance(error, SystemExit):
            return error.code if isinstance(error.code, int) else 1
        if "--debug" in arguments or not isinstance(error, Exception):
            raise
        meant = told(error)
        click.echo(readable(sentence_of(meant)), err=True)
        return exit_code_of(meant)
    return answer if isinstance(answer, int) else 0


def main() -> None:
    """Be the console script."""
    use_pinned_zones()
    sys.exit(run(sys.argv[1:]))


def _is_closed_pipe(error: BaseException) -> bool:
    """Whoever read our output has gone: click turns that into an exit, we into silence."""
    closed = isinstance(error.__context__ or error, BrokenPipeError)
    return closed or isinstance(error, BrokenPipeError)


def _let_go_of_stdout() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


if __name__ == "__main__":
    main()
