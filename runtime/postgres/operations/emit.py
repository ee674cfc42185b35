"""Appends a user's event to the log, by which `on: {event: ...}` jobs are triggered."""

from datetime import datetime
from typing import Any, Final

import asyncpg
import msgspec

from protocols.errors import InvalidError, Problem
from runtime.postgres.operations.audit import record
from runtime.postgres.operations.session import Connection

_EMIT: Final = """
INSERT INTO events (at, kind, tenant, name, payload)
VALUES ($1, 'emitted', $2, $3, $4::text::jsonb)
"""


async def emit_event(
    conn: Connection, *, tenant: str, event: str, payload: Any, who: str, now: datetime
) -> None:
    """Append it, within a transaction of the tenant; `payload` is made JSON.

    Raises:
        InvalidError: the payload holds what PostgreSQL cannot keep in JSON.
    """
    text = None if payload is None else msgspec.json.encode(payload).decode()
    try:
        await conn.execute(_EMIT, now, tenant, event, text)
    except (asyncpg.InvalidTextRepresentationError, asyncpg.UntranslatableCharacterError) as error:
        said = "is not JSON that can be kept (a NUL character?)"
        raise InvalidError((Problem(("payload",), said),)) from error
    await record(conn, tenant=tenant, who=who, action="emit", target=event, now=now)
