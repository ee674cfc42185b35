"""Commands: a process tree of its own for each, started and ended by the guardian."""

from pathlib import Path

import msgspec

from protocols.jobs import CommandTask
from runtime.hosts.environment import base_environment, identity, task_values
from runtime.hosts.guardian import Guardian, GuardianLost, UnitEvent
from runtime.hosts.python_host import how_it_ended
from runtime.hosts.settings import HostSettings
from runtime.hosts.wire import Began, Ended, Refused
from runtime.hosts.work import ENDED_AS, Desk, Work, output_of, withdrawn_as

LAST_LINE_BYTES_MAX = 300


class CommandRunner:
    """Hands commands to the guardian and turns its events into outcomes."""

    def __init__(self, *, guardian: Guardian, settings: HostSettings, desk: Desk) -> None:
        self._guardian = guardian
        self._settings = settings
        self._desk = desk

    def start(self, works: list[Work]) -> None:
        """Start each, in the order given."""
        for work in works:
            self._start(work)

    def begun_ns(self, work: Work) -> int:
        """When its process was started."""
        return work.begun_ns

    def end(self, work: Work) -> None:
        """SIGTERM to the whole tree; SIGKILL to what is left after the grace."""
        self._guardian.end(work.place, grace_s=self._settings.kill_grace_s)

    async def close(self) -> None:
        """Nothing is kept between commands."""

    def _start(self, work: Work) -> None:
        given, task = work.assignment, work.assignment.task
        assert isinstance(task, CommandTask)
        try:
            values, spill = task_values(
                execution_id=given.execution_id,
                token=given.fencing_token,
                tenant=given.tenant,
                job_id=given.job_id,
                attempt=given.attempt,
                scheduled_for_ns=given.scheduled_for_ns,
                url=self._settings.url,
                given=given.input,
                checkpoint=given.checkpoint,
                dag=given.dag,
            )
        except UnicodeDecodeError:
            self._desk.finish(work, "failed", error="its input is not UTF-8")
            return
        except ValueError as error:
            self._desk.finish(work, "failed", error=str(error))
            return
        argv = ("/bin/sh", "-c", task.shell) if task.shell is not None else task.argv
        assert argv is not None
        cwd = str(Path(self._settings.cwd) / task.cwd) if task.cwd else self._settings.cwd

        def on_event(event: UnitEvent) -> None:
            self._on_event(work, task, event)

        work.place = self._guardian.start(
            argv=argv,
            env={**base_environment(), **task.env, **values},
            cwd=cwd,
            marks=identity(given.execution_id, given.fencing_token),
            on_event=on_event,
            output_bytes_max=self._settings.output_bytes_max,
            spill=spill,
        )

    def _on_event(self, work: Work, task: CommandTask, event: UnitEvent) -> None:
        match event:
            case Began():
                self._desk.begun(work, event.at_ns)
            case Refused():
                if work.reason is None:
                    self._desk.finish(work, "failed", at_ns=event.at_ns, error=event.error)
                else:
                    self._desk.finish(work, withdrawn_as(work), error=work.why())
            case Ended():
                self._on_ended(work, task, event)
            case GuardianLost():
                if work.reason is None:
                    error = "the guardian ended, and the command with it"
                    self._desk.finish(work, "lost", error=error, bystander=True)
                else:
                    self._desk.finish(work, ENDED_AS[work.reason], error=work.why())

    def _on_ended(self, work: Work, task: CommandTask, ended: Ended) -> None:
        output = output_of(ended.head, ended.tail, ended.omitted_bytes)
        if work.reason is not None:
            state, error = ENDED_AS[work.reason], work.why()
        elif ended.status in task.success_exit_codes:
            state, error = "succeeded", None
        else:
            state, error = "failed", how_it_ended(ended.status)
            if line := last_line(ended.tail or ended.head):
                error = f"{error}: {line}"
        result = None
        if state == "succeeded" and work.assignment.dag is not None:
            result = printed_result(ended.head, ended.tail, ended.omitted_bytes)
        self._desk.finish(
            work,
            state,
            at_ns=ended.at_ns,
            error=error,
            exit_code=ended.status,
            result=result,
            output=output,
        )


def printed_result(head: bytes | None, tail: bytes, omitted: int) -> bytes | None:
    """The last line that a command printed, where that is JSON: the result of a DAG's task."""
    before, newline, line = (
        ((head or b"") + tail if not omitted else tail).rstrip().rpartition(b"\n")
    )
    del before
    if not line or (omitted and not newline):
        return None  # nothing, or only the end of a line
    try:
        msgspec.json.decode(line)
        line.decode()
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return line


def last_line(printed: bytes) -> str:
    """The last line that says anything: mostly the complaint."""
    lines = printed[-4 * LAST_LINE_BYTES_MAX :].rstrip().splitlines()
    return lines[-1][-LAST_LINE_BYTES_MAX:].decode(errors="replace").strip() if lines else ""
