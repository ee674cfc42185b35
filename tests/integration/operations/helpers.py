"""Rows as the hot path would have made them, in the states that people meet."""

from protocols.ids import execution_id
from tests.integration.operations.conftest import NOW, at


async def job_of(world, job_id):
    return await world.one(
        "SELECT v.* FROM jobs j JOIN job_versions v USING (job_key, version)"
        " WHERE j.job_id = $1 AND j.deleted_at IS NULL AND j.tenant = $2",
        job_id,
        world.tenant,
    )


async def hot(world, job_id, seconds, state="scheduled", **columns):
    """A row of `executions` for the instant so many seconds after NOW; returns its public id."""
    of = await job_of(world, job_id)
    holds = state != "blocked" and of["overlap"] != "allow"
    values = {
        "created_at": NOW,
        "tenant": of["tenant"],
        "job_id": job_id,
        "job_key": of["job_key"],
        "version": of["version"],
        "scheduled_for": at(seconds),
        "run_at": at(seconds),
        "pool": of["pool"],
        "priority": of["priority"],
        "state": state,
        "reason": "overlap" if state == "blocked" else None,
        "overlap": of["overlap"],
        "holds_turn": holds,
        **({"attempt": 1, "fencing_token": 7, "incarnation": 1} if state == "running" else {}),
        **({"started_at": at(seconds)} if state == "running" else {}),
        **columns,
    }
    return await _insert(world, "executions", values)


async def over(world, job_id, seconds, state="succeeded", **columns):
    """A row of `execution_history`; returns its public id."""
    of = await job_of(world, job_id)
    ran = state in ("succeeded", "dead")
    values = {
        "id": (await world.one("SELECT nextval('execution_ids') AS id"))["id"],
        "created_at": NOW,
        "tenant": of["tenant"],
        "job_id": job_id,
        "job_key": of["job_key"],
        "version": of["version"],
        "scheduled_for": at(seconds),
        "pool": of["pool"],
        "priority": of["priority"],
        "state": state,
        "attempt": 1 if ran else 0,
        "started_at": at(seconds) if ran else None,
        "finished_at": at(seconds + 1.5),
        **columns,
    }
    return await _insert(world, "execution_history", values)


async def _insert(world, table, values):
    names = ", ".join(values)
    places = ", ".join(f"${n}" for n in range(1, len(values) + 1))
    row = await world.one(
        f"INSERT INTO {table} ({names}) VALUES ({places}) RETURNING id, created_at",
        *values.values(),
    )
    return execution_id(row["id"], row["created_at"])


async def state_of(world, public_id):
    return await world.one(
        "SELECT state, reason, run, attempt FROM all_executions"
        " WHERE execution_id = $1::text::uuid",
        public_id,
    )
