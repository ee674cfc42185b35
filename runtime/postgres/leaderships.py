"""How many groups the shards fall into: held here, the same for all nodes."""

from typing import Final

from runtime.postgres.pool import Pool

# While nobody has ever led, the number is the first node's to choose.
_AGREE: Final = """
WITH virgin AS (
    SELECT count(*) FILTER (WHERE epoch > 0) = 0 AS yes FROM leaderships
), added AS (
    INSERT INTO leaderships (number)
    SELECT n FROM generate_series(0, $1::integer - 1) AS n, virgin WHERE yes
    ON CONFLICT DO NOTHING
    RETURNING number
)
SELECT (SELECT count(*) FROM leaderships) + (SELECT count(*) FROM added) AS agreed
"""


async def agree_on_shards(pool: Pool, wanted: int) -> int:
    """Take `timer.shards` from the settings if nobody has led yet; return what holds.

    Changing it later raises every epoch, and is a command of its own.
    """
    rows = await pool.fetch(_AGREE, wanted)
    agreed: int = rows[0]["agreed"]
    return agreed
