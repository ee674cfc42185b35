"""The hints that actors pass: each may be lost, doubled or late, and a poll stands behind each."""

import msgspec

PROTOCOL_LEVEL = 1
"""What this build understands; a job version names the level it `needs`."""


class Hint(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The base of every hint."""


class Ready(Hint, frozen=True, tag=True, array_like=True):
    """A pool has something to claim."""

    pool: str


class FreeSlots(Hint, frozen=True, tag=True, array_like=True):
    """A node has so many slots of a pool free: what is ready there may come to it."""

    pool: str
    incarnation: int
    free: int


class SchedulesChanged(Hint, frozen=True, tag=True, array_like=True):
    """Schedules were applied, resumed or re-armed: read what falls due again."""


class CancelRequested(Hint, frozen=True, tag=True, array_like=True):
    """Somebody asked to cancel an execution that is running."""

    id: int
    fencing_token: int


class JobsFinished(Hint, frozen=True, tag=True, array_like=True):
    """These jobs' executions ended, and others may wait on that."""

    job_keys: tuple[int, ...]


class EventsAppended(Hint, frozen=True, tag=True, array_like=True):
    """The event log has grown by something that may trigger a job."""


class TasksEnded(Hint, frozen=True, tag=True, array_like=True):
    """Tasks of DAGs have ended, or somebody has changed a run: their runs may move on."""
