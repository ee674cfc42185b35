"""Applies definitions to a tenant: all of them in one transaction, or none of them.

What is unchanged makes no version. What changes takes force at once, for instants from now on
(see `schedules`); executions that exist keep the version they were made by.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec

from protocols.dags import dag_of, is_hidden
from protocols.durations import shown
from protocols.errors import ConflictError, InvalidError, Problem
from protocols.jobs import JobSpec
from protocols.schedules import Calendar
from protocols.views import Applied, FieldChange, JobChange
from runtime.postgres.definitions.calendars import (
    StoredCalendar,
    changed_names,
    check_owner,
    delete_calendars,
    jobs_naming,
    read_calendars,
    resolve,
    write_calendars,
)
from runtime.postgres.definitions.dags import (
    check_dags,
    grown_dags,
    read_tasks,
    write_dags,
)
from runtime.postgres.definitions.delete import delete_jobs, refuse_needed
from runtime.postgres.definitions.dependencies import cycle_problem, find_cycle, unknown_names
from runtime.postgres.definitions.diff import differences
from runtime.postgres.definitions.schedules import move_schedules
from runtime.postgres.definitions.sources import keep_applied, last_applied
from runtime.postgres.definitions.stored import (
    StoredJob,
    lock_definitions,
    read_absent,
    read_ancestry,
    read_jobs,
    read_keys,
    some_ids,
    spec_text,
)
from runtime.postgres.definitions.write import Change, adopt_jobs, write_jobs, write_links
from runtime.postgres.operations.audit import counted, record
from runtime.postgres.operations.session import Connection

TOLD_MAX: Final = 1000
"""Of how many updated jobs an answer tells each field; nobody reads more."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What an apply will do, all checks passed."""

    changes: tuple[Change, ...]
    adopted: tuple[StoredJob, ...]
    """Jobs whose version stays, but that belong to another source from now on."""
    unchanged: tuple[str, ...]
    pruned: Mapping[str, int]
    """Jobs to delete: ids and keys."""
    named: Mapping[str, int]
    """Keys of jobs that exist and are named by those given."""
    calendars: Mapping[str, Calendar]
    """Calendars to write."""
    dropped_calendars: tuple[str, ...]

    def answer(self) -> Applied:
        """The plan as users read it."""
        seen = [change for change in self.changes if not is_hidden(change.spec.job_id)]
        tasks = _tasks_of(self.changes)
        changed = sorted(
            (change for change in seen if change.old is not None),
            key=lambda change: change.spec.job_id,
        )
        changes = [
            JobChange(change.spec.job_id, told)
            for change in changed[:TOLD_MAX]
            if (told := _differences(change, tasks.get(change.spec.job_id, ())))
        ]
        updated = [change.spec.job_id for change in changed]
        adopted = [job.job_id for job in self.adopted if not is_hidden(job.job_id)]
        return Applied(
            created=tuple(sorted(c.spec.job_id for c in seen if c.old is None)),
            updated=tuple(sorted(updated + adopted)),
            unchanged=tuple(sorted(self.unchanged)),
            deleted=tuple(sorted(self.pruned)),
            changes=tuple(changes),
            calendars=tuple(sorted({*self.calendars, *self.dropped_calendars})),
        )


async def apply(
    conn: Connection,
    *,
    tenant: str,
    source: str,
    jobs: Sequence[JobSpec],
    calendars: Mapping[str, Calendar],
    content_hash: bytes,
    now: datetime,
    who: str,
    adopt: bool = False,
    prune: bool = False,
    dry_run: bool = False,
) -> Applied:
    """Make these the definitions of a source.

    Args:
        conn: within a transaction of the tenant (see `transact`).
        tenant: whose definitions they are.
        source: what they belong to from now on.
        jobs: whole file sets at once, since they may name each other; tasks of DAGs, which are
            hidden jobs, are among them.
        calendars: by name.
        content_hash: of what they were read from; a start compares it.
        now: when the new versions take force.
        who: for the audit row.
        adopt: take jobs and calendars of other sources over.
        prune: delete this source's jobs and calendars that are not given.
        dry_run: say what would be done, and do nothing.

    Raises:
        InvalidError: an id is given twice, or a dependency or calendar is unknown, or jobs wait
            for each other in a circle. Paths begin with `jobs` and the place among those given.
        ConflictError: a job or calendar belongs to another source, or is pruned though needed.
    """
    await lock_definitions(conn, tenant)
    plan = await make_plan(
        conn,
        tenant=tenant,
        source=source,
        jobs=jobs,
        calendars=calendars,
        adopt=adopt,
        prune=prune,
    )
    answer = plan.answer()
    if dry_run:
        return answer
    await carry_out(conn, plan, tenant=tenant, source=source, now=now)
    await keep_applied(conn, tenant, source, content_hash, now=now)
    told = {
        kind: counted(getattr(answer, kind))
        for kind in ("created", "updated", "deleted", "calendars")
        if getattr(answer, kind)
    }
    await record(conn, tenant=tenant, who=who, action="apply", target=source, detail=told, now=now)
    return answer


async def apply_if_new(
    conn: Connection,
    *,
    tenant: str,
    source: str,
    jobs: Sequence[JobSpec],
    calendars: Mapping[str, Calendar],
    content_hash: bytes,
    now: datetime,
    who: str,
) -> Applied | None:
    """Apply what a node starts with, unless it was the last applied for its source; no pruning.

    Returns None where there was nothing to do. Raises what `apply` raises.
    """
    await lock_definitions(conn, tenant)
    if await last_applied(conn, tenant, source) == content_hash:
        return None
    return await apply(
        conn,
        tenant=tenant,
        source=source,
        jobs=jobs,
        calendars=calendars,
        content_hash=content_hash,
        now=now,
        who=who,
    )


async def make_plan(
    conn: Connection,
    *,
    tenant: str,
    source: str,
    jobs: Sequence[JobSpec],
    calendars: Mapping[str, Calendar],
    adopt: bool,
    prune: bool,
) -> Plan:
    """Hold what is given against what is stored; definitions of the tenant are locked."""
    _refuse_doubles(jobs, tenant)
    stored_calendars = await read_calendars(conn, tenant)
    if not adopt:
        check_owner(stored_calendars, calendars, source=source)
    changed = changed_names(stored_calendars, calendars, source=source)
    dropped = _dropped(stored_calendars, calendars, source) if prune else ()
    standing = {
        name: known.calendar for name, known in stored_calendars.items() if name not in dropped
    }
    resolved = resolve(jobs, {**standing, **calendars})
    ours = {spec.job_id for spec in jobs}
    pruned = await read_absent(conn, tenant, source, ours) if prune else {}
    touched = await jobs_naming(conn, tenant, [*changed, *dropped], besides=ours | pruned.keys())
    _refuse_dropped(dropped, touched)
    others = resolve([spec for _, spec in touched], {**standing, **calendars})
    owners = [owner for owner, _ in touched]
    for owner, task in await read_tasks(conn, tenant, others):
        owners.append(owner)
        others.append(task)

    specs = [*resolved, *others]
    sources = [source] * len(resolved) + owners
    texts = [spec_text(spec, ("jobs", number)) for number, spec in enumerate(specs)]
    stored = await read_jobs(
        conn, tenant, [(spec.job_id, text) for spec, text in zip(specs, texts, strict=True)]
    )
    foreign = [job for job in stored.values() if job.job_id in ours and job.source != source]
    theirs = [job for job in foreign if not is_hidden(job.job_id)]
    if theirs and not adopt:
        _refuse_foreign(theirs)
    named = await _check_links(conn, tenant, resolved, stored, pruned)
    await check_dags(conn, tenant, resolved, dropped=pruned)
    await refuse_needed(conn, list(pruned.values()), rewritten=ours)
    changes = _changes(specs, texts, sources, stored)
    changed_ids = {change.spec.job_id for change in changes}
    alike = [
        spec.job_id
        for spec, owner in zip(specs, sources, strict=True)
        if spec.job_id not in changed_ids and stored[spec.job_id].source == owner
    ]
    return Plan(
        changes=tuple(changes),
        adopted=tuple(job for job in foreign if job.job_id not in changed_ids),
        unchanged=tuple(job_id for job_id in alike if not is_hidden(job_id)),
        pruned=pruned,
        named=named,
        calendars={name: calendars[name] for name in changed},
        dropped_calendars=dropped,
    )


async def carry_out(
    conn: Connection, plan: Plan, *, tenant: str, source: str, now: datetime
) -> None:
    """Do what a plan says."""
    await write_calendars(conn, plan.calendars, tenant=tenant, source=source, now=now)
    keys = await write_jobs(conn, plan.changes, tenant=tenant, now=now)
    await adopt_jobs(conn, [job.job_key for job in plan.adopted], source=source, now=now)
    every = {**plan.named, **keys}
    seen = [change for change in plan.changes if not is_hidden(change.spec.job_id)]
    await write_links(conn, seen, tenant=tenant, keys=every)
    await move_schedules(conn, seen, tenant=tenant, keys=every, now=now)
    await write_dags(conn, seen, tenant=tenant, keys=every, now=now)
    await delete_jobs(conn, list(plan.pruned.values()), now=now)
    await delete_calendars(conn, tenant, plan.dropped_calendars)


def _changes(
    specs: Sequence[JobSpec],
    texts: Sequence[str],
    sources: Sequence[str],
    stored: Mapping[str, StoredJob],
) -> list[Change]:
    """What is new or differs; of a DAG, all of it where any of it does."""
    grown = grown_dags(specs, stored)
    changes = []
    for spec, text, source in zip(specs, texts, sources, strict=True):
        old = stored.get(spec.job_id)
        version = grown.get(dag_of(spec.job_id))
        if version is None and is_hidden(spec.job_id):
            continue
        if version is None:
            if old is not None and old.spec is None:
                continue
            version = 1 if old is None else old.version + 1
        if old is not None and old.spec is None:
            old = msgspec.structs.replace(old, spec=spec)  # a task of it differs, and not it
        changes.append(Change(spec=spec, text=text, source=source, version=version, old=old))
    return changes


def _tasks_of(changes: Sequence[Change]) -> dict[str, list[Change]]:
    found: dict[str, list[Change]] = {}
    for change in changes:
        if is_hidden(change.spec.job_id):
            found.setdefault(dag_of(change.spec.job_id), []).append(change)
    return found


def _differences(change: Change, tasks: Sequence[Change]) -> tuple[FieldChange, ...]:
    """What differs in a job; of a DAG, in its tasks too."""
    if change.old is None or change.old.spec is None:
        return ()
    pairs = [(c.old.spec, c.spec) for c in tasks if c.old is not None and c.old.spec is not None]
    return differences(change.old.spec, change.spec, tasks=pairs)


async def _check_links(
    conn: Connection,
    tenant: str,
    jobs: Sequence[JobSpec],
    stored: Mapping[str, StoredJob],
    pruned: Mapping[str, int],
) -> dict[str, int]:
    """Keys of the stored jobs that these name; raises where one is unknown or there is a cycle."""
    given = {spec.job_id for spec in jobs}
    named = {parent for spec in jobs for parent in spec.dependencies}
    named |= {on.job for spec in jobs for on in spec.on if on.job is not None}
    keys = {job.job_id: job.job_key for job in stored.values()}
    outside = await read_keys(conn, tenant, named - given) if named - given else {}
    outside = {name: key for name, key in outside.items() if name not in pruned}
    if not named <= given | outside.keys():
        candidates = [*given, *(await some_ids(conn, tenant))]
        problems = unknown_names(jobs, given | outside.keys(), candidates)
        raise InvalidError(tuple(problems))
    parents: dict[str, set[str]] = {}
    if outside:
        ancestry = await read_ancestry(conn, outside.values())
        parents = {child: found for child, found in ancestry.items() if child not in given}
    parents.update((spec.job_id, set(spec.dependencies)) for spec in jobs if spec.dependencies)
    cycle = find_cycle(parents)
    if cycle is not None:
        raise InvalidError((cycle_problem(jobs, cycle),))
    return {**keys, **outside}


def _refuse_doubles(jobs: Sequence[JobSpec], tenant: str) -> None:
    seen: set[str] = set()
    problems = []
    for number, spec in enumerate(jobs):
        path = ("jobs", number, "job_id")
        if spec.job_id in seen:
            problems.append(Problem(path, f"{shown(spec.job_id)} is given twice"))
        if spec.tenant != tenant:
            text = f"{shown(spec.job_id)} is of the tenant {shown(spec.tenant)}, not {tenant}"
            problems.append(Problem(path, text))
        seen.add(spec.job_id)
    if problems:
        raise InvalidError(tuple(problems))


def _refuse_foreign(jobs: Sequence[StoredJob]) -> None:
    first = min(jobs, key=lambda job: job.job_id)
    more = f" (and {len(jobs) - 1} more)" if len(jobs) > 1 else ""
    raise ConflictError(
        f"the job {shown(first.job_id)}{more} belongs to the source {shown(first.source)}: "
        "take it over with --adopt, or use another id"
    )


def _dropped(
    stored: Mapping[str, StoredCalendar], given: Mapping[str, Calendar], source: str
) -> tuple[str, ...]:
    return tuple(
        sorted(name for name, c in stored.items() if c.source == source and name not in given)
    )


def _refuse_dropped(dropped: Sequence[str], touched: Sequence[tuple[str, JobSpec]]) -> None:
    for name in dropped:
        for owner, spec in touched:
            if spec.schedule is not None and name in spec.schedule.calendars:
                raise ConflictError(
                    f"the calendar {shown(name)} cannot be deleted, since the job "
                    f"{shown(spec.job_id)} of the source {shown(owner)} names it"
                )
