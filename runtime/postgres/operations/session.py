"""One transaction for one request: its tenant is set in it, and a lost race is run again.

Everything that people ask for takes a connection inside such a transaction, so that several
steps, the audit row and the idempotency key's answer are durable together or not at all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import asyncpg

from protocols.errors import InvalidError, Problem
from runtime.postgres.pool import PINNED, Answer, Pool, Session

Connection = Session

# A plan that was kept since its tables were small is worse than planning anew: people ask seldom.
_BEGIN: Final = """
SELECT set_config('tickwright.tenant', $1, true),
    set_config('plan_cache_mode', 'force_custom_plan', true)
"""
# What programs ask all the time is planned once, by index probes alone, as on the hot path.
_BEGIN_KEPT: Final = "SELECT set_config('tickwright.tenant', $1, true), " + ", ".join(
    f"set_config('{name}', '{value}', true)" for name, value in PINNED.items()
)
_UNSTORABLE: Final = (
    asyncpg.CharacterNotInRepertoireError,
    asyncpg.UntranslatableCharacterError,
)


async def transact(
    pool: Pool,
    tenant: str,
    work: Callable[[Connection], Awaitable[Answer]],
    *,
    kept_plans: bool = False,
) -> Answer:
    """Run `work` in one transaction of this tenant, again where another writer was quicker.

    Args:
        pool: connections of the role `tickwright_api` (or of the node's, for all tenants).
        tenant: whose rows can be seen and written.
        work: may run several times; only its last run is durable.
        kept_plans: for statements of the hot path's kind, which need no plan of their own.

    Raises:
        UnavailableError: the database cannot be reached, or the answer to COMMIT was lost.
        InvalidError: a text holds what PostgreSQL cannot store (NUL, half of a surrogate pair).
    """

    async def begun(session: Session) -> Answer:
        await session.execute(_BEGIN_KEPT if kept_plans else _BEGIN, tenant)
        return await work(session)

    try:
        # A turn or an instant taken since we looked is found by looking again.
        return await pool.transact(begun, also=(asyncpg.UniqueViolationError,))
    except asyncpg.DataError as error:
        if isinstance(error, _UNSTORABLE) or "codec can't encode" in str(error):
            text = "the text holds a character that cannot be stored (NUL, or a lone surrogate)"
            raise InvalidError((Problem((), text),)) from error
        raise
