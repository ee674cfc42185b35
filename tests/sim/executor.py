"""An executor whose jobs take virtual time, and end as the seed has it."""
# ruff: noqa: A001, A002 - a row's key is called id everywhere

import asyncio
import random
from collections.abc import Sequence
from typing import Any

from protocols.ports.executor import Assignment, Outcome, Request, Sink, Started
from runtime.kernel.testkit import NodeTime
from tests.sim.world import World

ENDS = (
    *["succeeded"] * 15,
    *["failed"] * 3,
    "timed_out",
    "lost",
    "bystander",
    "unstarted",
)
ONCE = b'{"key": "k", "ttl_s": 5}'


class SimExecutor:
    """Runs attempts of one pool in one life of a node."""

    def __init__(self, world: World, time: NodeTime, sink: Sink, dice: random.Random) -> None:
        self._world = world
        self._time = time
        self._sink = sink
        self._dice = dice
        self._held: dict[tuple[int, int], Assignment] = {}
        self._begun: dict[tuple[int, int], int] = {}
        self._requests = 0
        self._stopping = False

    def start(self, assignments: Sequence[Assignment]) -> None:
        for one in assignments:
            self._start(one)

    def _start(self, one: Assignment) -> None:
        dice, key = self._dice, (one.id, one.fencing_token)
        end = dice.choice(ENDS)
        if self._stopping:
            end = "unstarted"
        if self._world.faults.healed and end != "succeeded":
            end = dice.choice(("succeeded", "succeeded", end))
        takes_s = dice.choice((0.0, 0.05, 0.4, 2.5)) * dice.random()
        self._held[key] = one
        if end == "unstarted":
            self._time.call_later(0.01, self._end, key, end)
            return
        self._world.note("job", f"{one.job_id} starts", key)
        self._world.ledger.started(one)
        self._begun[key] = self._time.now_ns()
        if dice.random() < 0.3:
            self._sink([Started(one.id, one.fencing_token, self._begun[key])])
        if dice.random() < 0.1:
            self._time.call_later(takes_s * 0.5, self._ask, key)
        self._time.call_later(takes_s, self._end, key, end)

    def _ask(self, key: tuple[int, int]) -> None:
        if key in self._held:
            self._requests += 1
            kind, value = self._dice.choice((("checkpoint", b"7"), ("once", ONCE)))
            id, token = key
            request = Request(
                number=self._requests, id=id, fencing_token=token, kind=kind, value=value
            )
            self._sink([request])

    def _end(self, key: tuple[int, int], end: str) -> None:
        if self._held.pop(key, None) is None:
            return
        now_ns = self._time.now_ns()
        outcome = Outcome(
            id=key[0],
            fencing_token=key[1],
            state="lost" if end == "bystander" else end,
            started_ns=self._begun.pop(key, now_ns),
            finished_ns=now_ns,
            bystander=end == "bystander",
        )
        self._world.note("job", f"ends {end}", key)
        self._world.ledger.reported(outcome)
        self._sink([outcome])

    def cancel(self, id: int, fencing_token: int) -> None:
        self._time.call_later(0.05, self._end, (id, fencing_token), "cancelled")

    def answer(self, number: int, *, value: Any = None, error: str | None = None) -> None:
        self._world.note("job", f"request {number} answered", value if error is None else error)

    def holds(self) -> Sequence[tuple[int, int]]:
        return tuple(self._held)

    def beat(self, id: int, fencing_token: int) -> None:
        """No simulated job beats."""

    async def stop(self, grace_s: float) -> None:
        self._stopping = True
        over = self._time.monotonic() + grace_s
        while self._held and self._time.monotonic() < over:
            await self._sleep(0.05)
        for key in list(self._held):
            self._end(key, "bystander" if key in self._begun else "unstarted")

    async def _sleep(self, delay_s: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self._time.call_later(delay_s, future.set_result, None)
        try:
            await future
        finally:
            timer.cancel()
