"""Named calendars: kept per tenant, and written into the versions of the jobs that name them.

A version holds the calendars it names, resolved, so that what a timer evaluates and a backfill
enumerates years later is what was in force. A changed calendar is a new version of its jobs.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from difflib import get_close_matches
from typing import Final

import msgspec

from protocols.durations import shown
from protocols.errors import ConflictError, InvalidError, Problem
from protocols.jobs import JobSpec
from protocols.schedules import Calendar
from runtime.postgres.operations.session import Connection


class StoredCalendar(msgspec.Struct, frozen=True):
    """A calendar as it stands, and the source that it belongs to."""

    calendar: Calendar
    source: str


_READ: Final = "SELECT name, source, spec::text AS spec FROM calendars WHERE tenant = $1"
_WRITE: Final = """
INSERT INTO calendars (tenant, name, source, spec, updated_at)
SELECT $1, n.name, $2, n.spec::jsonb, $3 FROM unnest($4::text[], $5::text[]) AS n (name, spec)
ON CONFLICT (tenant, name) DO UPDATE SET
    source = excluded.source, spec = excluded.spec, updated_at = excluded.updated_at
"""
_DELETE: Final = "DELETE FROM calendars WHERE tenant = $1 AND name = ANY($2::text[])"

# The jobs of a tenant that name one of these; read only where a calendar has changed.
_JOBS_NAMING: Final = """
SELECT j.job_id, j.source, v.spec::text AS spec
FROM jobs j
JOIN job_versions v ON v.job_key = j.job_key AND v.version = j.version
WHERE j.tenant = $1 AND j.deleted_at IS NULL
    AND v.spec -> 'schedule' -> 'calendars' ?| $2::text[]
"""


async def read_calendars(conn: Connection, tenant: str) -> dict[str, StoredCalendar]:
    """Every calendar of a tenant, by name."""
    return {
        row["name"]: StoredCalendar(msgspec.json.decode(row["spec"], type=Calendar), row["source"])
        for row in await conn.fetch(_READ, tenant)
    }


def check_owner(
    stored: Mapping[str, StoredCalendar], given: Mapping[str, Calendar], *, source: str
) -> None:
    """Raise `ConflictError` where a calendar that is given belongs to another source."""
    for name in sorted(given):
        known = stored.get(name)
        if known is not None and known.source != source:
            raise ConflictError(
                f"the calendar {shown(name)} belongs to the source {shown(known.source)}: "
                "take it over with --adopt, or use another name"
            )


def changed_names(
    stored: Mapping[str, StoredCalendar], given: Mapping[str, Calendar], *, source: str
) -> list[str]:
    """Calendars that are new, read otherwise, or come from another source now."""
    return sorted(name for name in given if stored.get(name) != StoredCalendar(given[name], source))


def resolve(jobs: Sequence[JobSpec], calendars: Mapping[str, Calendar]) -> list[JobSpec]:
    """Write into each version the calendars that its schedule names.

    Raises:
        InvalidError: a name is unknown; a problem's path begins with `jobs` and its place here.
    """
    problems = []
    resolved = []
    for number, spec in enumerate(jobs):
        names = () if spec.schedule is None else spec.schedule.calendars
        for name in names:
            if name not in calendars:
                near = get_close_matches(name, list(calendars), n=1)
                hint = f": did you mean {shown(near[0])}?" if near else ""
                path = ("jobs", number, "schedule", "calendar")
                problems.append(Problem(path, f"there is no calendar {shown(name)}{hint}"))
        found = {name: calendars[name] for name in names if name in calendars}
        resolved.append(
            spec if spec.calendars == found else msgspec.structs.replace(spec, calendars=found)
        )
    if problems:
        raise InvalidError(tuple(problems))
    return resolved


async def jobs_naming(
    conn: Connection, tenant: str, names: Sequence[str], *, besides: AbstractSet[str]
) -> list[tuple[str, JobSpec]]:
    """(source, version in force) of every job that names one of these, but for those given."""
    if not names:
        return []
    return [
        (row["source"], msgspec.json.decode(row["spec"], type=JobSpec))
        for row in await conn.fetch(_JOBS_NAMING, tenant, names)
        if row["job_id"] not in besides
    ]


async def write_calendars(
    conn: Connection,
    calendars: Mapping[str, Calendar],
    *,
    tenant: str,
    source: str,
    now: datetime,
) -> None:
    """Insert or replace these calendars."""
    if calendars:
        texts = [msgspec.json.encode(calendar).decode() for calendar in calendars.values()]
        await conn.execute(_WRITE, tenant, source, now, list(calendars), texts)


async def delete_calendars(conn: Connection, tenant: str, names: Sequence[str]) -> None:
    """Remove these calendars; the caller has seen that no job names them."""
    if names:
        await conn.execute(_DELETE, tenant, names)
