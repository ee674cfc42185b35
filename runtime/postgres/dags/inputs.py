"""Holds what began a run to what its DAG takes: a run with another input fails, and runs nothing.

Who asks over HTTP is told at once. Where an event, a record, a program or another DAG has asked,
the run is there, `failed: input`, and its execution's error says what is wrong.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import asyncpg
import msgspec

from actors.dag import rules
from protocols.errors import InvalidError
from protocols.input_schema import check_input
from runtime.postgres.pool import Session

_ERROR_CHARS_MAX: Final = 1000

_FILL: Final = """
UPDATE dag_runs r SET input = f.input
FROM unnest($1::bigint[], $2::bytea[]) AS f(run, input) WHERE r.run = ANY(ARRAY[f.run])
"""
_REFUSE: Final = """
UPDATE dag_runs r SET state = 'failed', reason = $3, open = 0, handlers = 'done', finished_at = $2
FROM unnest($1::bigint[]) AS f(run) WHERE r.run = ANY(ARRAY[f.run])
"""
# dag_tasks_pkey.
_SKIP: Final = """
UPDATE dag_tasks t SET state = 'skipped', reason = $3, finished_at = $2
FROM unnest($1::bigint[]) AS f(run) WHERE t.run = ANY(ARRAY[f.run])
"""
# dag_runs_pkey, job_versions_pkey.
_READ: Final = """
SELECT r.input, (
    SELECT (v.spec -> 'task' -> 'inputs')::text FROM job_versions v
    WHERE v.job_key = r.job_key AND v.version = r.version LIMIT 1
) AS takes
FROM dag_runs r WHERE r.run = $1 LIMIT 1
"""


async def hold_to_inputs(
    session: Session, made: Sequence[asyncpg.Record], *, now: datetime
) -> None:
    """Fill in the defaults of runs that were made now, and end those whose input is wrong.

    Args:
        session: of the transaction in which they and their tasks were made.
        made: rows with `run`, `input`, and as `takes` the schema of the DAG's version.
        now: when.
    """
    filled: dict[int, bytes] = {}
    refused = []
    for row in made:
        if row["takes"] is None:
            continue
        given = _decoded(row["input"])
        try:
            whole = check_input(msgspec.json.decode(row["takes"]), given)
        except InvalidError:
            refused.append(row["run"])
            continue
        if whole != given:
            filled[row["run"]] = msgspec.json.encode(whole)
    if filled:
        await session.execute(_FILL, list(filled), list(filled.values()))
    if refused:
        await session.execute(_REFUSE, refused, now, rules.INPUT)
        await session.execute(_SKIP, refused, now, rules.INPUT)


async def why_refused(session: Session, run: int) -> str:
    """What is wrong with the input of a run that has failed for it."""
    (row,) = await session.fetch(_READ, run)
    told = "the input is not what the DAG takes"
    try:
        check_input(msgspec.json.decode(row["takes"]), _decoded(row["input"]))
    except InvalidError as error:
        said = [f"{'.'.join(['input', *map(str, p.path)])}: {p.message}" for p in error.problems]
        told = f"{told}: {'; '.join(said)}"[:_ERROR_CHARS_MAX]
    return "".join(c if c.isprintable() else " " for c in told)


def _decoded(given: bytes | None) -> object:
    return None if given is None else msgspec.json.decode(given)
