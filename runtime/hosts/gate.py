"""Begins nothing while this node may be held for dead: what it was given may run elsewhere by now.

A node that stood still, or that cannot reach the database, does not know what was decided of it.
What runs goes on, since nobody can take it back; what has not begun waits for the next beat's
answer, which says that the node lives, or ends it.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from runtime.hosts.work import Runner, Work

LOOK_S: Final = 0.05


class Gate:
    """Lets works through to their runner while `sure`.

    Args:
        sure: whether nobody can have declared this node dead.
        withdraw: ends a work that was told to end before it could begin.
    """

    def __init__(self, *, sure: Callable[[], bool], withdraw: Callable[[Work], None]) -> None:
        self._sure = sure
        self._withdraw = withdraw
        self._kept: dict[int, Work] = {}
        self._loop = asyncio.get_running_loop()

    def pass_on(self, runner: Runner, works: list[Work]) -> None:
        """Begin these, or keep them until they may."""
        if self._sure():
            runner.start(works)
            return
        if not self._kept:
            self._loop.call_later(LOOK_S, self._look)
        self._kept.update((work.token, work) for work in works)

    def keeps(self, work: Work) -> bool:
        """Whether it has not been let through; it is looked at soon."""
        return work.token in self._kept

    def _look(self) -> None:
        kept, self._kept = self._kept, {}
        batches: dict[Runner, list[Work]] = {}
        for work in kept.values():
            if work.reason is not None:
                self._withdraw(work)
            else:
                batches.setdefault(work.runner, []).append(work)
        for runner, works in batches.items():
            self.pass_on(runner, works)
