"""One transaction for one request: its tenant is set in it, and a lost race is run again.

Everything that people ask for takes a connection inside such a transaction, so that several
steps, the audit row and the idempotency key's answer are durable together or not at all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import asyncpg

from protocols.errors import InvalidError, Problem, UnavailableError
from runtime.postgres.pool import Pool, Session

Connection = Session
Answer = TypeVar("Answer")

_TRIES: Final = 5
# A plan that was kept since its tables were small is worse than planning anew: people ask seldom.
_BEGIN: Final = """
SELECT set_config('tickwright.tenant', $1, true),
    set_config('plan_cache_mode', 'force_custom_plan', true)
"""
# Another writer was quicker: a deadlock's victim, or a turn or instant taken since we looked.
_RACES: Final = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.UniqueViolationError,
)
_UNSTORABLE: Final = (
    asyncpg.CharacterNotInRepertoireError,
    asyncpg.UntranslatableCharacterError,
)


async def transact(
    pool: Pool, tenant: str, work: Callable[[Connection], Awaitable[Answer]]
) -> Answer:
    """Run `work` in one transaction of this tenant, again where another writer was quicker.

    Args:
        pool: connections of the role `tickwright_api` (or of the node's, for all tenants).
        tenant: whose rows can be seen and written.
        work: may run several times; only its last run is durable.

    Raises:
        UnavailableError: the database cannot be reached, or the answer to COMMIT was lost.
        InvalidError: a text holds what PostgreSQL cannot store (NUL, half of a surrogate pair).
    """
    for left in reversed(range(_TRIES)):
        try:
            async with pool.transaction() as session:
                await session.execute(_BEGIN, tenant)
                return await work(session)
        except _RACES as race:
            if not left:
                raise UnavailableError(
                    "others change the same rows all the time: try again"
                ) from race
        except asyncpg.DataError as error:
            if isinstance(error, _UNSTORABLE) or "codec can't encode" in str(error):
                text = "the text holds a character that cannot be stored (NUL, or a lone surrogate)"
                raise InvalidError((Problem((), text),)) from error
            raise
    raise AssertionError
