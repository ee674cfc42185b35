"""Turns what was claimed and its job's definition into what an executor needs to run it."""

from contextlib import suppress
from functools import lru_cache
from typing import Final

import msgspec

from actors.dag.given import given_to
from protocols.dags import is_hidden
from protocols.ids import execution_id
from protocols.instants import to_epoch_ns
from protocols.jobs import DagTask, JobSpec, NoTask
from protocols.ports.executor import Assignment
from protocols.ports.store import Claimed

# A batch shares most of its instants: one lookup each instead of arithmetic on datetimes.
_epoch_ns: Final = lru_cache(maxsize=1024)(to_epoch_ns)


def assignment_of(row: Claimed, spec: JobSpec, checkpoint: bytes | None) -> Assignment:
    """The attempt that `row` begins, resuming from `checkpoint` where there is one."""
    task = spec.task
    assert not isinstance(task, DagTask | NoTask), "no worker is given what it cannot run"
    given, dag = row.input, None
    if given is not None and is_hidden(row.job_id):
        with suppress(msgspec.MsgspecError):  # what somebody else gave it stays as it is
            task, given, dag = given_to(task, given)
    return Assignment(
        id=row.id,
        execution_id=execution_id(row.id, row.created_at),
        tenant=row.tenant,
        job_id=row.job_id,
        version=row.version,
        attempt=row.attempt,
        fencing_token=row.fencing_token,
        scheduled_for_ns=_epoch_ns(row.scheduled_for),
        task=task,
        timeout_s=spec.timeout_s,
        heartbeat_s=spec.heartbeat_s,
        input=given,
        checkpoint=checkpoint,
        dag=dag,
    )
