"""The SQL by which hot rows become history, so that every writer moves the same columns."""

from typing import Final

from protocols.executions import State, sources_of

_CARRIED: Final = (
    "id, created_at, tenant, job_id, job_key, version, needs, origin, scheduled_for, run, pool, "
    "priority, attempt, failures, losses, fencing_token, incarnation, started_at, input"
)
"""Columns that a row keeps when it becomes final."""


def into_history(rows: str, *, state: str, reason: str, finished_at: str) -> str:
    """Return the INSERT that files `rows`, a relation of deleted rows of `executions`.

    `state`, `reason` and `finished_at` are SQL expressions over that relation.
    """
    return (
        f"INSERT INTO execution_history ({_CARRIED}, state, reason, finished_at) "
        f"SELECT {_CARRIED}, {state}, {reason}, {finished_at} FROM {rows}"
    )


def logged(rows: str, *, kind: str, at: str, states: str) -> str:
    """Return the INSERT that tells of `rows` (id, job_key) in the event log, if there are any.

    `kind`, `at` and `states` are SQL expressions, `states` one over a row of `rows`.
    """
    return (
        "INSERT INTO events (at, kind, ids, job_keys, states) "
        f"SELECT {at}, {kind}, array_agg(id ORDER BY id), array_agg(job_key ORDER BY id), "
        f"array_agg(({states})::text ORDER BY id) FROM {rows} HAVING count(*) > 0"
    )


def guard(target: State) -> str:
    """Return the SQL list of stored states from which a row may become `target`."""
    return "(" + ", ".join(f"'{state}'" for state in sources_of(target)) + ")"
