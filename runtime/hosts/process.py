"""`process` attempts: each has a warm process of its own while it runs."""

import asyncio
from collections import deque
from functools import partial

import structlog

from runtime.hosts.guardian import Guardian, GuardianLost, UnitEvent
from runtime.hosts.python_host import PythonHost, Reserve
from runtime.hosts.settings import HostSettings
from runtime.hosts.shared import report
from runtime.hosts.wire import SUCCEEDED, Ask, Done, Ended, Held, Taken
from runtime.hosts.work import (
    ENDED_AS,
    Desk,
    Work,
    barren_delay_s,
    output_of,
    withdrawn_as,
)

log = structlog.get_logger("runtime.hosts")


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
        self._done: dict[int, Done] = {}
        """How attempts ended that are not told yet: output or leftovers are with the guardian."""
        self._kills: dict[int, asyncio.TimerHandle] = {}
        self._barren = 0
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
                try:
                    host = self._reserve.take(self, "process")
                except OSError as error:
                    self._give_back_later([work], str(error))
                    continue
            host.feed([work])

    def begun_ns(self, work: Work) -> int:
        """By the host's word; it says so before it runs anything."""
        return work.begun_ns

    def end(self, work: Work) -> None:
        """Set `ctx.cancelled`, cancel a coroutine; after the grace kill the process."""
        host: PythonHost | None = work.place
        if host is None or work.token in self._done:
            return
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
        self._barren = 0
        self._desk.begun(work, at_ns)

    def on_done(self, host: PythonHost, work: Work, done: Done) -> None:
        """It ended; what it and its children printed, and left running, is with the guardian."""
        self._forget_kill(work)
        host.works[work.token] = work
        self._done[work.token] = done
        if done.state == SUCCEEDED and not host.spent:
            self._guardian.take_output(host.unit, partial(self._settle, host, work))
        else:
            # No retry runs beside what an attempt left: it is told with the end of the last of it.
            host.retire()

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
        fresh = []
        for work in works:
            self._forget_kill(work)
            done = self._done.pop(work.token, None)
            if done is not None:
                report(self._desk, work, done, output)
                continue
            begun = work.begun_ns != 0 or work.number <= host.started
            if not begun and (host.ready_ns or work.reason is not None):
                self._give_back([work], why)
            elif not begun:
                fresh.append(work)
            elif work.reason is not None:
                state = ENDED_AS[work.reason]
                self._desk.finish(work, state, error=work.why(), output=output)
            elif isinstance(event, GuardianLost) or host.killed_for is not None:
                self._desk.finish(work, "lost", error=why, output=output, bystander=True)
            else:
                error = f"its process ended: {why}"
                self._desk.finish(work, "failed", error=error, exit_code=status, output=output)
        if fresh:
            # It ended before it could run anything: a broken installation, or no memory.
            self._give_back_later(fresh, why)

    def _settle(self, host: PythonHost, work: Work, taken: Taken | None) -> None:
        if taken is None or host.works.pop(work.token, None) is None:
            return  # the process ended meanwhile, which told of the attempt
        done = self._done.pop(work.token)
        if len(self._idle) < self._settings.idle_processes_max:
            timer = self._loop.call_later(self._settings.idle_process_s, self._expire, host)
            self._idle.append((host, timer))
        else:
            host.close()
        report(self._desk, work, done, output_of(taken.head, taken.tail, taken.omitted_bytes))

    def _give_back(self, works: list[Work], why: str) -> None:
        for work in works:
            error = why if work.reason is None else work.why()
            self._desk.finish(work, withdrawn_as(work), error=error)

    def _give_back_later(self, works: list[Work], why: str) -> None:
        """At a pace: what is handed back may come again at once."""
        self._barren += 1
        delay_s = barren_delay_s(self._barren)
        log.warning("host.none", mode="process", why=why, waiting=len(works), again_in_s=delay_s)
        self._loop.call_later(delay_s, self._give_back, works, why)

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
