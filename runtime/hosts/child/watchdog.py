"""Names the attempt that holds a shared host's loop, with its stack."""

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping

from runtime.hosts.child.attempt import Attempt
from runtime.hosts.output import plain
from runtime.hosts.wire import Held, Said

STACK_CHARS_MAX = 4000


class Watchdog(threading.Thread):
    """A thread that asks the loop for a sign of life, as long as there are attempts.

    A C call that keeps the interpreter lock stops this thread too: the node, which has its own
    deadlines, ends that one without a stack.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        attempts: Mapping[int, Attempt],
        held_s: float,
        say: Callable[[Said], None],
    ) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._loop = loop
        self._attempts = attempts
        self._held_s = held_s
        self._say = say
        self._work = threading.Event()
        self._alive = threading.Event()

    def wake(self) -> None:
        """There are attempts; cheap enough to be called for every batch."""
        if not self._work.is_set():
            self._work.set()

    def run(self) -> None:
        """Watch for as long as the process lives."""
        loop_thread = threading.main_thread().ident
        assert loop_thread is not None
        while True:
            self._work.wait()
            asked = time.monotonic()
            self._alive.clear()
            self._loop.call_soon_threadsafe(self._alive.set)
            if not self._alive.wait(self._held_s):
                self._tell(loop_thread, time.monotonic() - asked)
                self._alive.wait()
            elif not self._attempts:
                self._work.clear()
                # Attempts that came between the question and the clearing still get a watch.
                if self._attempts:
                    self._work.set()
            else:
                # The loop is fine: look again after half the time that would be worth a line.
                time.sleep(self._held_s / 2)

    def _tell(self, loop_thread: int, for_s: float) -> None:
        frame = sys._current_frames().get(loop_thread)  # noqa: SLF001 - documented, for debuggers
        stack = "".join(traceback.format_stack(frame)[-20:])[-STACK_CHARS_MAX:]
        task = asyncio.current_task(self._loop)
        token = 0
        for attempt in list(self._attempts.values()):
            if attempt.task is task:
                token = attempt.run.token
        self._say(Said(held=[Held(token, for_s, plain(stack, STACK_CHARS_MAX))]))
