"""Holds the input that a run is asked for with to what its DAG takes."""

from typing import Any, Final

import msgspec

from protocols.errors import InvalidError, Problem
from protocols.input_schema import check_input
from runtime.postgres.operations.session import Connection

# Index: job_versions_pkey.
_SCHEMA: Final = """
SELECT (v.spec -> 'task' -> 'inputs')::text FROM job_versions v
WHERE v.tenant = $1 AND v.job_key = $2 AND v.version = $3
"""
_FILL: Final = "UPDATE executions SET input = $3 WHERE tenant = $1 AND id = $2"


async def check_run_input(
    conn: Connection, *, tenant: str, job_key: int, version: int, execution: int, given: Any
) -> None:
    """Check the input of a DAG's execution that was made in this transaction; fill its defaults.

    Raises:
        InvalidError: the DAG does not take it; the paths begin with `input`.
    """
    text = await conn.fetchval(_SCHEMA, tenant, job_key, version)
    if text is None:
        return
    try:
        filled = check_input(msgspec.json.decode(text), given)
    except InvalidError as error:
        raise InvalidError(
            tuple(Problem(("input", *p.path), p.message, p.of_key) for p in error.problems)
        ) from None
    if filled != given:
        await conn.execute(_FILL, tenant, execution, msgspec.json.encode(filled))
