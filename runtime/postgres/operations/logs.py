"""Reads what attempts printed: the parts that were kept, whole or the lines that hold a text."""

from typing import Final

from protocols.errors import NotFoundError
from protocols.views import LogView
from runtime.postgres.operations.executions import find_execution
from runtime.postgres.operations.session import Connection

# Index: outputs_key; the instant leaves one partition.
_OUTPUTS: Final = """
SELECT attempt, head, tail, omitted_bytes
FROM outputs
WHERE tenant = $1 AND id = $2 AND scheduled_for = $3 AND ($4::integer IS NULL OR attempt = $4)
ORDER BY attempt
"""


async def read_logs(
    conn: Connection,
    *,
    tenant: str,
    execution: str,
    attempt: int | None = None,
    grep: str | None = None,
) -> tuple[LogView, ...]:
    """What the attempts of an execution printed, first attempt first.

    Args:
        conn: within a transaction of the tenant.
        tenant: whose execution it is.
        execution: its public id.
        attempt: only this attempt's.
        grep: only lines that hold this text, and attempts with such a line.

    Raises:
        NotFoundError: there is no such execution, or it has had no such attempt.
    """
    row = await find_execution(conn, tenant, execution)
    if attempt is not None and not 1 <= attempt <= row["attempt"]:
        raise NotFoundError(f"the execution has no attempt {attempt}: it has had {row['attempt']}")
    found = await conn.fetch(_OUTPUTS, tenant, row["id"], row["scheduled_for"], attempt)
    views = [
        LogView(
            attempt=output["attempt"],
            head=_text(output["head"]),
            omitted_bytes=output["omitted_bytes"],
            tail=_text(output["tail"]),
        )
        for output in found
    ]
    if grep is None:
        return tuple(views)
    picked = [
        LogView(
            attempt=view.attempt,
            head=_lines_with(grep, view.head),
            omitted_bytes=view.omitted_bytes,
            tail=_lines_with(grep, view.tail),
        )
        for view in views
    ]
    return tuple(view for view in picked if view.head or view.tail)


def _text(kept: bytes) -> str:
    """What a program printed, readable whatever bytes it printed."""
    return kept.decode(errors="replace")


def _lines_with(text: str, output: str) -> str:
    return "".join(line for line in output.splitlines(keepends=True) if text in line)
