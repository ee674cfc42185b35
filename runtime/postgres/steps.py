"""One step of housekeeping: a statement, run again where another writer raced it.

A step looks at what is committed, so it may be repeated at will. It is not waited for until it
is on disk: whatever is built on it commits after it, and a crash that loses it loses only what
the next look finds again.
"""

from collections.abc import Sequence
from typing import Final

import asyncpg
import msgspec

from protocols.errors import UnavailableError
from runtime.postgres.pool import Pool

AT_ONCE: Final = 1_000
"""Executions that one statement of a step changes; where it did, there may be more."""
_TRIES: Final = 5


class Step(msgspec.Struct, frozen=True):
    """What one statement changed: executions, their jobs, and pools with more to claim."""

    done: int = 0
    job_keys: Sequence[int] = ()
    pools: Sequence[str] = ()


def changed(rows: str, *, job_keys: str = "job_key", pools: str = "pool") -> str:
    """Return the SELECT that ends a step: what became of the relation `rows`."""
    return (
        f"SELECT count(*) AS done, array_agg(DISTINCT {job_keys}) AS job_keys, "
        f"array_agg(DISTINCT {pools}) AS pools, set_config('synchronous_commit', 'off', true) "
        f"FROM {rows}"
    )


async def step(pool: Pool, statement: str, *arguments: object) -> Step:
    """Run a statement that ends in `changed`, again where a unique index refused its rows.

    The indexes of turns and of instants refuse what was decided by a snapshot that another
    writer has overtaken; the next snapshot knows better.
    """
    for left in range(_TRIES, 0, -1):
        try:
            (row,) = await pool.fetch(statement, *arguments)
        except asyncpg.UniqueViolationError as error:
            if left == 1:
                raise UnavailableError(f"others change the same rows: {error}") from error
            continue
        return Step(
            row["done"],
            tuple(key for key in row["job_keys"] or () if key is not None),
            tuple(name for name in row["pools"] or () if name is not None),
        )
    raise AssertionError
