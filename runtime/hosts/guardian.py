"""The node's side of the guardian: starts it, starts it again, and tells how units end."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
import msgspec
import structlog

from runtime.hosts import cgroup
from runtime.hosts.channel import Channel, pair
from runtime.hosts.environment import base_environment
from runtime.hosts.guarding import incarnation_of
from runtime.hosts.wire import (
    Began,
    Ended,
    EndUnit,
    FromGuardian,
    Ready,
    Refused,
    StartUnit,
    Taken,
    TakeOutput,
    ToGuardian,
)

ROOT: Final = str(Path(__file__).parents[2])
BOOT: Final = (
    "import sys; root = sys.argv.pop(1); root in sys.path or sys.path.insert(0, root); "
    "from {module} import main; main()"
)
BACKOFF_S: Final = (0.0, 0.1, 0.5, 2.0, 5.0)

log = structlog.get_logger("runtime.hosts")


class GuardianLost(msgspec.Struct, frozen=True):
    """The guardian died; what it ran was swept away by the next one."""

    unit: int


UnitEvent = Began | Refused | Ended | GuardianLost


def boot(module: str) -> tuple[str, ...]:
    """The command line of a child of ours; `-P`: no folder of a task's may hide a module of it."""
    return (sys.executable, "-P", "-c", BOOT.format(module=module), ROOT)


class Guardian:
    """One per node. `owner` names the node for ever: what an earlier life left is found by it."""

    def __init__(self, *, owner: str) -> None:
        self._owner = owner.replace("/", "_")
        self._incarnation = incarnation_of(os.getpid())
        self._channel: Channel | None = None
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(FromGuardian)
        self._units: dict[int, Callable[[UnitEvent], None]] = {}
        self._waiting: list[tuple[StartUnit, Sequence[int]]] = []
        self._taking: dict[int, Callable[[Taken | None], None]] = {}
        self._number = 0
        self._up = anyio.Event()
        self._died = anyio.Event()
        self._group: str | None = None
        self.pid: int | None = None
        self.restarts = 0

    @property
    def mark(self) -> dict[str, str]:
        """The variable that everything this node starts has in its environment."""
        return {"RUNTIME_GUARDIAN": f"{self._owner}/{self._incarnation}"}

    async def run(self) -> None:
        """Keep a guardian up until cancelled; then end it, and with it all that it runs."""
        failures = 0
        while True:
            try:
                process = await self._launch()
            except OSError as error:
                if not self.restarts:
                    raise
                failures += 1
                again_s = BACKOFF_S[min(failures, len(BACKOFF_S) - 1)]
                log.warning("guardian.not_started", why=str(error), again_in_s=again_s)
                await anyio.sleep(again_s)
                continue
            try:
                await self._died.wait()
            finally:
                self._close()
                with anyio.CancelScope(shield=True):
                    await self._bury(process)
            failures = failures + 1 if not self._up.is_set() else 0
            self.restarts += 1
            log.warning("guardian.died", pid=process.pid, restarts=self.restarts)
            await anyio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])

    async def wait_up(self) -> None:
        """Return once a guardian runs."""
        while self._channel is None or not self._up.is_set():
            await self._up.wait()

    def start(
        self,
        *,
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: str,
        marks: Mapping[str, str],
        on_event: Callable[[UnitEvent], None],
        output_bytes_max: int,
        fds: Sequence[int] = (),
        spill: Mapping[str, bytes] | None = None,
    ) -> int:
        """Start a unit; its events come to `on_event`, the last is not `Began`.

        `fds` are passed on and closed here. `marks` are variables of `env` that only this tree has.
        """
        self._number += 1
        order = StartUnit(
            self._number,
            tuple(argv),
            {**env, **self.mark},
            cwd,
            dict(marks),
            output_bytes_max,
            len(fds),
            dict(spill or {}),
        )
        self._units[order.unit] = on_event
        if self._channel is None or not self._up.is_set():
            self._waiting.append((order, fds))
        else:
            self._send(order, fds)
        return order.unit

    def end(self, unit: int, *, grace_s: float) -> None:
        """SIGTERM to a unit's whole tree, SIGKILL after the grace; nothing if it has ended."""
        for at, (order, fds) in enumerate(self._waiting):
            if order.unit == unit:
                for fd in fds:
                    os.close(fd)
                del self._waiting[at]
                event = Refused(unit, "withdrawn before its start", 0)
                asyncio.get_running_loop().call_soon(self._tell, event)
                return
        if unit in self._units:
            self._send(EndUnit(unit, grace_s))

    def take_output(self, unit: int, then: Callable[[Taken | None], None]) -> None:
        """Hand what the unit printed so far to `then`; None where it ended meanwhile."""
        self._number += 1
        self._taking[self._number] = then
        self._send(TakeOutput(unit, self._number))

    def _send(self, message: ToGuardian, fds: Sequence[int] = ()) -> None:
        if self._channel is not None:
            self._channel.send(self._encoder.encode(message), fds)

    async def _launch(self) -> "subprocess.Popen[bytes]":
        ours, theirs = pair()
        self._died = anyio.Event()
        if self._up.is_set():
            self._up = anyio.Event()  # an unset one may have waiters already
        with theirs, contextlib.ExitStack() as opened:
            opened.callback(ours.close)
            # From the loop's own thread, and quick: it is the node's one direct child for tasks.
            process = subprocess.Popen(  # noqa: ASYNC220, S603
                [*boot("runtime.hosts.guarding"), str(theirs.fileno()), self._owner,
                 self._incarnation],
                env=base_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )  # fmt: skip
            opened.pop_all()
        self.pid = process.pid
        self._channel = Channel(ours, on_frames=self._on_frames, on_closed=self._died.set)
        return process

    def _on_frames(self, bodies: list[bytes]) -> None:
        for body in bodies:
            try:
                message = self._decoder.decode(body)
            except msgspec.DecodeError:
                self._died.set()
                return
            match message:
                case Ready():
                    self._on_ready(message)
                case Taken():
                    then = self._taking.pop(message.number, None)
                    if then is not None:
                        then(message)
                case _:
                    self._tell(message)

    def _tell(self, event: UnitEvent) -> None:
        if isinstance(event, Began):
            on_event = self._units.get(event.unit)
        else:
            on_event = self._units.pop(event.unit, None)
        if on_event is not None:
            on_event(event)

    def _on_ready(self, ready: Ready) -> None:
        self._group = ready.cgroup
        if ready.swept:
            log.warning("guardian.swept", processes=ready.swept)
        waiting, self._waiting = self._waiting, []
        mine = {order.unit for order, _ in waiting}
        lost = [unit for unit in self._units if unit not in mine]
        self._up.set()
        for order, fds in waiting:
            self._send(order, fds)
        # Only now: the new guardian has killed what the old one left, so none runs beside a retry.
        for unit in lost:
            self._tell(GuardianLost(unit))
        taking, self._taking = self._taking, {}
        for then in taking.values():
            then(None)

    def _close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    async def _bury(self, process: "subprocess.Popen[bytes]") -> None:
        """Wait for the process to end; it ends by itself once its socket is closed."""

        def wait() -> None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=15)
                return
            process.kill()
            process.wait()

        await anyio.to_thread.run_sync(wait)
        if self._group is not None:
            cgroup.kill(self._group)
            with anyio.move_on_after(5):
                while not cgroup.remove(self._group):  # noqa: ASYNC110 - the kernel tells nobody
                    await anyio.sleep(0.01)
            self._group = None
