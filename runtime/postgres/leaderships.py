"""How many groups the shards fall into: held here, the same for all nodes."""

from typing import Final

from runtime.postgres.pool import Pool, Session

# The row is locked until the transaction ends, so that of two first nodes one chooses.
_CHOSEN: Final = "SELECT epoch > 0 FROM leaderships WHERE number = 0 FOR UPDATE"
_RESHARD: Final = "SELECT reshard($1)"
_TOTAL: Final = "SELECT count(*) FROM leaderships"


async def agree_on_shards(pool: Pool, wanted: int) -> int:
    """Take `timer.shards` from the settings if nobody has led yet; return what holds.

    Changing it later is `runtime reshard`.
    """

    async def work(session: Session) -> int:
        if not await session.fetchval(_CHOSEN):
            await session.execute(_RESHARD, wanted)
        agreed: int = await session.fetchval(_TOTAL)
        return agreed

    return await pool.transact(work)
