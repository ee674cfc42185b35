"""`process` attempts: each has a warm process of its own while it runs."""

import asyncio
from collections import deque

from runtime.hosts.guardian import Guardian, GuardianLost, UnitEvent
from runtime.hosts.python_host import PythonHost, Reserve
from runtime.hosts.settings import HostSettings
from runtime.hosts.shared import report
from runtime.hosts.wire import SUCCEEDED, Ask, Done, Ended, Held, Taken
from runtime.hosts.work import ENDED_AS, Desk, Work, output_of, withdrawn_as


class ProcessRunner:
    """One host for one attempt; a host that ended one cleanly is kept warm for the next."""

    def __init__(
        self, *, guardian: Guardian, reserve: Reserve, settings: HostSettings, desk: Desk
    ) -> None:
        self._guardian = guardian
        self._reserve = reserve
        self._settings = settings
        self._desk = desk
        self._idle: deque[tuple[PythonHost, asyncio.TimerHandle]] = deque()
        self._kills: dict[int, asyncio.TimerHandle] = {}
        self._loop = asyncio.get_running_loop()
        self.hosts_killed = 0

    def start(self, works: list[Work]) -> None:
        """Give each a process."""
        for work in works:
            if self._idle:
                # The one used last: the others may reach the end of their idle time.
                host, timer = self._idle.pop()
                timer.cancel()
            else:
                host = self._reserve.take(self, "process")
            host.feed([work])

    def begun_ns(self, work: Work) -> int:
        """By the host's word; it says so before it runs anything."""
        return work.begun_ns

    def end(self, work: Work) -> None:
        """Set `ctx.cancelled`, cancel a coroutine; after the grace kill the process."""
        host: PythonHost = work.place
        host.cancel(work)
        self._kills[work.token] = self._loop.call_later(
            self._settings.kill_grace_s, self._kill, work
        )

    async def close(self) -> None:
        """Let the idle ones go."""
        for host, timer in self._idle:
            timer.cancel()
            host.close()
        self._idle.clear()

    def on_begun(self, work: Work, at_ns: int) -> None:
        """It runs."""
        self._desk.begun(work, at_ns)

    def on_done(self, host: PythonHost, work: Work, done: Done) -> None:
        """It ended; what it and its children printed is with the guardian."""
        self._forget_kill(work)

        def then(taken: Taken | None) -> None:
            self._settle(host, work, done, taken)

        host.works[work.token] = work
        self._guardian.take_output(host.unit, then)

    def on_ask(self, host: PythonHost, work: Work, ask: Ask) -> None:
        """It asks the node."""
        self._desk.ask(work, host, ask.number, ask.kind, ask.value)

    def on_held(self, work: Work | None, held: Held) -> None:
        """A process of one's own may be held."""

    def on_ended(self, host: PythonHost, why: str, status: int | None, event: UnitEvent) -> None:
        """The process ended under its attempt, or was idle."""
        for at, (idle, timer) in enumerate(self._idle):
            if idle is host:
                timer.cancel()
                del self._idle[at]
                break
        works, host.works = list(host.works.values()), {}
        output = None
        if isinstance(event, Ended):
            output = output_of(event.head, event.tail, event.omitted_bytes)
        for work in works:
            self._forget_kill(work)
            begun = work.begun_ns != 0 or work.number <= host.started
            if work.reason is not None:
                state = ENDED_AS[work.reason] if begun else withdrawn_as(work)
                self._desk.finish(work, state, error=work.why(), output=output)
            elif not begun:
                self._desk.finish(work, "unstarted", error=why)
            elif isinstance(event, GuardianLost) or host.killed_for is not None:
                self._desk.finish(work, "lost", error=why, output=output, bystander=True)
            else:
                error = f"its process ended: {why}"
                self._desk.finish(work, "failed", error=error, exit_code=status, output=output)

    def _settle(self, host: PythonHost, work: Work, done: Done, taken: Taken | None) -> None:
        if host.works.pop(work.token, None) is None:
            return
        if taken is not None and taken.head:
            done = Done(
                done.token, done.state, done.started_ns, done.finished_ns, done.result,
                done.error, done.exit_code, taken.head, taken.tail, taken.omitted_bytes,
            )  # fmt: skip
        keep = (
            done.state == SUCCEEDED
            and not host.spent
            and len(self._idle) < self._settings.idle_processes_max
        )
        if keep:
            timer = self._loop.call_later(self._settings.idle_process_s, self._expire, host)
            self._idle.append((host, timer))
        else:
            host.close()
        report(self._desk, work, done)

    def _expire(self, host: PythonHost) -> None:
        self._idle = deque(entry for entry in self._idle if entry[0] is not host)
        host.close()

    def _kill(self, work: Work) -> None:
        self._kills.pop(work.token, None)
        host: PythonHost = work.place
        if host.works.get(work.token) is work:
            self.hosts_killed += 1
            host.kill(work.why())

    def _forget_kill(self, work: Work) -> None:
        timer = self._kills.pop(work.token, None)
        if timer is not None:
            timer.cancel()
