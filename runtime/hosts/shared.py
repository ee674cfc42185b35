"""A pool's `shared` attempts: many in one job host, and a new host at once when that one fails."""

import asyncio
from collections import deque

import structlog

from protocols.ports.executor import Output
from runtime.hosts.guardian import GuardianLost, UnitEvent
from runtime.hosts.python_host import PythonHost, Reserve
from runtime.hosts.settings import HostSettings
from runtime.hosts.wire import CANCELLED, SUCCEEDED, UNIMPORTABLE, UNSTARTED, Ask, Done, Held
from runtime.hosts.work import (
    ENDED_AS,
    Desk,
    Work,
    barren_delay_s,
    output_of,
    withdrawn_as,
)

log = structlog.get_logger("runtime.hosts")

RETIRED_MAX = 3
"""Held hosts that may wait for their end beside the one in use."""
REVOKE_S = 0.05


class SharedRunner:
    """Feeds one host per pool; a host whose loop is held gets no more, another takes over."""

    def __init__(self, *, reserve: Reserve, settings: HostSettings, desk: Desk) -> None:
        self._reserve = reserve
        self._settings = settings
        self._desk = desk
        self._host: PythonHost | None = None
        self._retired: set[PythonHost] = set()
        self._again: deque[Work] = deque()
        self._watching = False
        self._kills: dict[int, asyncio.TimerHandle] = {}
        self._loop = asyncio.get_running_loop()
        self._barren = 0
        self.hosts_killed = 0

    def start(self, works: list[Work]) -> None:
        """Feed these to the pool's host, starting it if there is none."""
        if self._host is None:
            try:
                self._host = self._reserve.take(self, "shared")
            except OSError as error:
                self._start_later(works, str(error))
                return
        self._host.feed(works)
        if not self._watching:
            self._watching = True
            self._loop.call_later(self._settings.stall_s, self._watch, self._host, -1)

    def begun_ns(self, work: Work) -> int:
        """By the host's word, or by the board where its loop cannot speak."""
        if work.begun_ns:
            return work.begun_ns
        host = work.place
        if host is None:
            return 0
        return max(work.fed_ns, host.ready_ns) if work.number <= host.started else 0

    def end(self, work: Work) -> None:
        """Cancel at the next await; after the grace its host is killed, if it has begun."""
        host: PythonHost | None = work.place
        if host is None:
            return  # it waits for a host, and is looked at then
        host.cancel(work)
        self._kills[work.token] = self._loop.call_later(
            self._settings.kill_grace_s, self._kill, work
        )

    async def close(self) -> None:
        """Let the hosts go."""
        for host in [*self._retired, *([self._host] if self._host else [])]:
            host.close()
        self._host = None
        self._retired.clear()

    def on_begun(self, work: Work, at_ns: int) -> None:
        """It runs."""
        self._desk.begun(work, at_ns)

    def on_done(self, host: PythonHost, work: Work, done: Done) -> None:
        """It ended by itself, or by being cancelled."""
        if self._kills:
            self._forget_kill(work)
        if done.state == UNSTARTED and work.reason is None:
            self._restart([work])
        else:
            report(self._desk, work, done, output_of(done.head, done.tail, done.omitted_bytes))
        if host in self._retired and not host.works:
            self._retired.discard(host)
            host.close()

    def on_ask(self, host: PythonHost, work: Work, ask: Ask) -> None:
        """It asks the node."""
        self._desk.ask(work, host, ask.number, ask.kind, ask.value)

    def on_held(self, work: Work | None, held: Held) -> None:
        """It holds the loop that others wait for."""
        self._desk.held(work, held.for_s, held.stack)

    def on_ended(self, host: PythonHost, why: str, status: int | None, event: UnitEvent) -> None:
        """Settle what a host left: the guilty, those it had begun, those it had not."""
        if host is self._host:
            self._host = None
        self._retired.discard(host)
        begun = [work for work in host.works.values() if work.number <= host.started]
        fresh = [work for work in host.works.values() if work.number > host.started]
        host.works.clear()
        innocent = host.killed_for is not None or isinstance(event, GuardianLost)
        alone = len(begun) == 1 and not innocent
        for work in begun:
            self._forget_kill(work)
            work.begun_ns = self.begun_ns(work)  # what held its loop could not say so itself
            if work.reason is not None:
                self._desk.finish(work, ENDED_AS[work.reason], error=work.why())
            elif alone:
                # Nothing else ran there: it did this itself (os._exit, a crash, out of memory).
                self._desk.finish(work, "failed", error=f"its process ended: {why}",
                                  exit_code=status)  # fmt: skip
            else:
                error = f"its job host ended: {why}"
                self._desk.finish(work, "lost", error=error, bystander=innocent)
        if host.ready_ns:
            self._barren = 0
            self._restart(fresh)
        else:
            # It ended before it could run anything: a broken installation, or no memory.
            self._start_later(fresh, why)

    def _start_later(self, works: list[Work], why: str) -> None:
        self._barren += 1
        delay_s = barren_delay_s(self._barren)
        log.warning("host.none", mode="shared", why=why, waiting=len(works), again_in_s=delay_s)
        self._loop.call_later(delay_s, self._restart, works)

    def _restart(self, works: list[Work]) -> None:
        """What had not begun starts elsewhere, unless it was to end anyway."""
        again = []
        for work in works:
            self._forget_kill(work)
            if work.reason is None:
                again.append(work)
            else:
                self._desk.finish(work, withdrawn_as(work), error=work.why())
        if again:
            self.start(again)

    def _watch(self, host: PythonHost, before: int) -> None:
        """See that what was fed begins; a host that begins nothing is left to itself."""
        now = host.started
        if host is not self._host or now >= host.fed:
            self._watching = False
            current = self._host
            if current is not None and current.started < current.fed:
                self._watching = True
                self._loop.call_later(self._settings.stall_s, self._watch, current, -1)
            return
        if now == before and host.ready_ns and len(self._retired) < RETIRED_MAX:
            self._watching = False
            self._retire(host)
            return
        self._loop.call_later(self._settings.stall_s, self._watch, host, now)

    def _retire(self, host: PythonHost) -> None:
        """Feed it no more, and take back what it has not begun."""
        if host is self._host:
            self._host = None
        self._retired.add(host)
        host.revoke()
        self._loop.call_later(REVOKE_S, self._take_back, host)

    def _take_back(self, host: PythonHost) -> None:
        if host.ended:
            return
        self._restart(host.revoked())
        if not host.works and host in self._retired:
            self._retired.discard(host)
            host.close()

    def _kill(self, work: Work) -> None:
        self._kills.pop(work.token, None)
        host: PythonHost = work.place
        if host.works.get(work.token) is not work:
            return
        if work.number > host.started:
            # Not its fault: it never came to its turn. Its host is judged by those that did.
            self._retire(host)
            return
        self.hosts_killed += 1
        # From now on the pool's next attempts go elsewhere, while the tree is being killed.
        self._retire(host)
        host.kill(f"killed, since {work.assignment.job_id} did not end when asked to")

    def _forget_kill(self, work: Work) -> None:
        timer = self._kills.pop(work.token, None)
        if timer is not None:
            timer.cancel()


def report(desk: Desk, work: Work, done: Done, output: Output | None) -> None:
    """Turn a host's word on an attempt into its outcome.

    What ended before it was told to end, ended by itself, whatever the node meant to do. What
    returned after it was told may have cut its work short for that: it does not count as done.
    """
    work.begun_ns = done.started_ns
    if done.state == UNIMPORTABLE:
        desk.finish(work, "unstarted", error=done.error, unimportable=True, output=output)
    elif done.state == UNSTARTED:
        work.begun_ns = 0
        desk.finish(work, withdrawn_as(work), error=work.why())
    elif done.state == CANCELLED:
        state = ENDED_AS[work.reason] if work.reason is not None else "failed"
        desk.finish(work, state, at_ns=done.finished_ns, error=work.why(), output=output)
    else:
        desk.finish(
            work,
            "succeeded" if done.state == SUCCEEDED else "failed",
            at_ns=done.finished_ns,
            error=done.error,
            exit_code=done.exit_code,
            result=done.result,
            output=output,
        )
