"""Who changed what: written in the transaction of the change itself, so that none goes untold."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import asyncpg
import msgspec

from protocols.instants import iso
from protocols.views import AuditView, Page
from runtime.postgres.operations.cursors import cursor_of, number_of, page_size
from runtime.postgres.operations.session import Connection

IDS_MAX: Final = 100
"""How many ids of one kind an audit row spells out; beyond that it has their count."""

_INSERT: Final = """
INSERT INTO audit (at, tenant, who, action, target, detail)
VALUES ($1, $2, $3, $4, $5, $6::text::jsonb)
"""

# Index: audit_tenant.
_LIST: Final = """
SELECT number, at, tenant, who, action, target, detail::text AS detail
FROM audit
WHERE tenant = $1 AND number < $2
ORDER BY number DESC
LIMIT $3
"""


async def record(
    conn: Connection,
    *,
    tenant: str,
    who: str,
    action: str,
    target: str,
    detail: Mapping[str, Any] | None = None,
    now: datetime,
) -> None:
    """Append one audit row to the transaction under way; `detail` is made JSON."""
    text = msgspec.json.encode(detail or {}).decode()
    await conn.execute(_INSERT, now, tenant, who, action, target, text)


def counted(ids: tuple[str, ...]) -> dict[str, Any]:
    """Ids for an audit row's detail: their count, and the first hundred of them."""
    return {"count": len(ids), "ids": ids[:IDS_MAX]}


async def list_audit(
    conn: Connection, *, tenant: str, limit: int = 100, cursor: str | None = None
) -> Page[AuditView]:
    """What was changed in this tenant, newest first."""
    size = page_size(limit)
    before = number_of(cursor)
    rows = await conn.fetch(_LIST, tenant, before, size + 1)
    following = cursor_of(rows[size - 1]["number"]) if len(rows) > size else None
    return Page(tuple(_view(row) for row in rows[:size]), following)


def _view(row: asyncpg.Record) -> AuditView:
    return AuditView(
        number=row["number"],
        at=iso(row["at"]),
        tenant=row["tenant"],
        who=row["who"],
        action=row["action"],
        target=row["target"],
        detail=msgspec.json.decode(row["detail"]),
    )
