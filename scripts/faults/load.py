"""One-off jobs at a steady rate, each asked for until somebody acknowledges it, by its own key."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from scripts.faults.asking import AskError, Caller
from scripts.faults.jobs import FILLED, MIX

_ASKERS: Final = 24
_BEHIND_S: Final = 2.0
"""An asker that is further behind than this does not make up for it."""
_AGAIN_S: Final = 0.1
_DONE: Final = frozenset({200, 201})
_LATER: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


class Load:
    """Asks whichever node answers."""

    def __init__(self, urls: Callable[[], Sequence[str]], *, token: str, rate: float) -> None:
        self.acknowledged: dict[str, str] = {}
        """Execution by key."""
        self.at: dict[str, float] = {}
        """When each key was acknowledged: seconds since 1970."""
        self.twice: list[str] = []
        """Keys that were answered by two executions."""
        self.refused: list[str] = []
        """Answers that were neither yes nor later; none is expected."""
        self._urls = urls
        self._token = token
        self._rate = rate
        self._number = 0
        self._base_s = 0.0
        self._over = asyncio.Event()

    async def run(self) -> None:
        """Ask until `stop`."""
        self._base_s = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(_ASKERS if self._rate else 0):
                group.create_task(self._ask_on(number))

    def stop(self) -> None:
        """Begin nothing new; what was asked is asked to its end."""
        self._over.set()

    async def fill(self, url: str, other: str, first: str, until: str) -> list[int]:
        """Have two ask at once for the same past instants of a job, and return their statuses."""
        body = {"from": first, "to": until}
        statuses: list[int] = []

        async def ask(at: str) -> None:
            caller = Caller(self._token)
            try:
                status, _ = await caller.post(at, f"/api/v1/jobs/{FILLED}/backfill", body)
                statuses.append(status)
            except AskError:
                statuses.append(0)
            finally:
                caller.close()

        async with asyncio.TaskGroup() as group:
            group.create_task(ask(url))
            group.create_task(ask(other))
        return statuses

    async def _ask_on(self, number: int) -> None:
        caller = Caller(self._token)
        try:
            while not self._over.is_set():
                mine, due_s = self._next()
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))
                if self._over.is_set():
                    return
                await self._ask(caller, mine, number)
        finally:
            caller.close()

    def _next(self) -> tuple[int, float]:
        mine, self._number = self._number, self._number + 1
        due_s = self._base_s + mine / self._rate
        behind_s = time.monotonic() - due_s
        if behind_s > _BEHIND_S:
            self._base_s += behind_s
        return mine, due_s

    async def _ask(self, caller: Caller, mine: int, turn: int) -> None:
        """Ask until it is acknowledged; the key makes a second asking the same as the first."""
        job, key = MIX[mine % len(MIX)], f"ask-{mine}"
        path = f"/api/v1/jobs/{job}/trigger"
        while True:
            urls = self._urls()
            turn += 1
            if urls:
                try:
                    status, answer = await caller.post(
                        urls[turn % len(urls)], path, {"input": {"key": key}}, key=key
                    )
                except AskError:
                    status, answer = 0, None
                if status in _DONE:
                    self._acknowledged(key, answer["execution_id"])
                    if mine % 50 == 0 and status == 201:  # a few are asked twice
                        continue
                    return
                if status and status not in _LATER:
                    self.refused.append(f"{key} of {job}: {status}: {answer}")
                    return
            await asyncio.sleep(_AGAIN_S)

    def _acknowledged(self, key: str, execution: str) -> None:
        known = self.acknowledged.setdefault(key, execution)
        self.at.setdefault(key, time.time())  # noqa: TID251 - beside the ledger's own wall clock
        if known != execution:
            self.twice.append(f"the key {key} was acknowledged as {known}, then as {execution}")
