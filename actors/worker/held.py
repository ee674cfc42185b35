"""What a worker holds: it outlives the WorkerActor, so that its restart ends no execution.

Every attempt is in one place: assigned (waiting for its definition), running in the executor, or
ended and waiting for its end to be durable.
"""

from collections import deque
from collections.abc import Sequence
from itertools import islice

from protocols.jobs import JobSpec
from protocols.ports.executor import Outcome, Report, Request
from protocols.ports.store import Claimed, Finish, GiveBack

Key = tuple[int, int]
"""An execution's row and the fencing token of the attempt."""

_DISOWNED_KEPT = 10_000


class Held:
    """The attempts of one pool on one node."""

    __slots__ = (
        "_assigned",
        "_disowned",
        "_received",
        "closing",
        "ended",
        "given",
        "inbox",
        "requests",
        "running",
        "slots",
        "specs",
    )

    def __init__(self, *, slots: int) -> None:
        self.slots = slots
        self.specs: dict[tuple[int, int], JobSpec] = {}
        """Definitions by (job_key, version); immutable, so kept."""
        self._assigned: dict[Key, Claimed] = {}
        self.running: dict[Key, Claimed] = {}
        self.ended: dict[Key, Finish] = {}
        self.given: dict[Key, GiveBack] = {}
        self.inbox: deque[Report] = deque()
        """What the executor reported and the worker has not yet looked at."""
        self.requests: dict[int, Request] = {}
        """What attempts asked for and was not answered yet."""
        self.closing = False
        """The node is ending: what runs is to end, and all is to be written or handed back."""
        self._received = (0, 0)
        self._disowned: dict[Key, None] = {}

    @property
    def free(self) -> int:
        """Slots that nothing runs in, less what is ended and not yet durable beyond a batch."""
        backlog = max(0, len(self.ended) + len(self.given) - max(self.slots, 1000))
        return max(0, self.slots - len(self._assigned) - len(self.running) - backlog)

    @property
    def busy(self) -> bool:
        """Whether anything is in hand."""
        return bool(self._assigned or self.running or self.ended or self.given or self.inbox)

    @property
    def received(self) -> tuple[int, int]:
        """The dispatcher's session, and how much of what it sent has arrived."""
        return self._received

    def receive(self, claimed: Sequence[Claimed], *, session: int, sent: int) -> bool:
        """Take on what a dispatcher sent; False for a message that came twice, or was overtaken.

        What a doubled one holds may have run and ended long ago. What an overtaken one holds is
        nobody's, and the books know it.
        """
        if (session, sent) <= self._received:
            return False
        self._received = (session, sent)
        self.assign(claimed)
        return True

    def assign(self, claimed: Sequence[Claimed]) -> None:
        """Take these on, but for what is held already or was given up for lost on its way."""
        for row in claimed:
            key = (row.id, row.fencing_token)
            if key not in self and key not in self._disowned:
                self._assigned[key] = row

    def disown(self, key: Key) -> None:
        """Hand back what was claimed and never came; should it come yet, it is not run."""
        self.given[key] = GiveBack(*key)
        self._disowned[key] = None
        if len(self._disowned) > _DISOWNED_KEPT:
            del self._disowned[next(iter(self._disowned))]

    def unknown(self) -> list[tuple[int, int]]:
        """The definitions that assigned work still lacks."""
        wanted = {(row.job_key, row.version) for row in self._assigned.values()}
        return [key for key in wanted if key not in self.specs]

    def startable(self) -> list[Claimed]:
        """Take out what has its definition and a slot, to be started now: it counts as running."""
        room = self.slots - len(self.running)
        known = (r for r in self._assigned.values() if (r.job_key, r.version) in self.specs)
        rows = list(islice(known, max(0, room)))
        for row in rows:
            key = (row.id, row.fencing_token)
            del self._assigned[key]
            self.running[key] = row
        return rows

    def reassign_unstarted(self, started: Sequence[Key]) -> None:
        """What a former worker took out and the executor never got is assigned again."""
        inbox = {(r.id, r.fencing_token) for r in self.inbox if isinstance(r, Outcome)}
        told = inbox.union(started)
        for key in [k for k in self.running if k not in told]:
            self._assigned[key] = self.running.pop(key)

    def drop_assigned(self) -> list[Claimed]:
        """Take out all that has not started, to be handed back."""
        rows = list(self._assigned.values())
        self._assigned.clear()
        return rows

    def __contains__(self, key: Key) -> bool:
        return (
            key in self._assigned or key in self.running or key in self.ended or key in self.given
        )
