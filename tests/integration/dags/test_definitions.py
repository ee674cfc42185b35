"""DAGs in the books: one version for all of one, and tasks that nobody sees among the jobs."""

from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from protocols.errors import ConflictError, NotFoundError
from runtime.apply import apply_files
from runtime.files.load import load_texts
from runtime.files.places import InvalidFileError
from runtime.postgres.definitions.jobs import change_job, delete_job
from runtime.postgres.migrate import migrate
from runtime.postgres.operations.jobs_view import list_jobs, show_job
from runtime.postgres.operations.session import transact
from runtime.postgres.pool import API_ROLE, NODE_ROLE, Pool
from tests.support.postgres import fresh_database

NOW = datetime(2026, 5, 1, tzinfo=UTC)
ETL = """
dags:
  - dag_id: etl
    schedule: "0 2 * * *"
    defaults: {max_retries: 2}
    tasks:
      - {task_id: load, command: ./load, dependencies: [left, right]}
      - {task_id: left, command: ./left, dependencies: [extract], timeout: 5m}
      - {task_id: right, command: ./right, dependencies: [extract]}
      - {task_id: extract, command: ./extract}
"""
_TASKS = """
SELECT t.number, t.task_id, t.parents, t.version, j.version AS job_version, j.job_id,
    v.spec -> 'retry' ->> 'max_retries' AS retries
FROM dags d
JOIN dag_version_tasks t ON t.job_key = d.job_key AND t.version = d.version
JOIN jobs j ON j.job_key = t.task_key
JOIN job_versions v ON v.job_key = t.task_key AND v.version = t.version
WHERE d.dag_id = $1 ORDER BY t.number
"""


async def migrated(settings) -> None:
    owner = await asyncpg.connect(**settings.arguments())
    try:
        await migrate(owner)
    finally:
        await owner.close()


class House:
    def __init__(self, api: Pool, node: Pool) -> None:
        self.api, self.node = api, node

    async def apply(self, text: str, *, source: str = "file", **how):
        files = load_texts([("jobs.yaml", text.encode())], source=source)
        done = await apply_files(self.api, files, cwd=Path.cwd(), now=NOW, who="test", **how)
        return done["default"]

    async def tasks(self, dag_id: str = "etl"):
        return [dict(row) for row in await self.node.fetch(_TASKS, dag_id)]

    async def edges(self, dag_id: str = "etl"):
        rows = await self.node.fetch(
            "SELECT e.parent, e.child FROM dags d JOIN task_dependencies e"
            " ON e.job_key = d.job_key AND e.version = d.version WHERE d.dag_id = $1",
            dag_id,
        )
        return {(row["parent"], row["child"]) for row in rows}

    async def do(self, what, **given):
        return await transact(self.api, "default", lambda conn: what(conn, **given))


@pytest_asyncio.fixture
async def house(postgres_server):
    async with (
        fresh_database(postgres_server, migrate=migrated) as settings,
        Pool(settings.arguments(), name="api", size=2, role=API_ROLE) as api,
        Pool(settings.arguments(), name="node", size=1, role=NODE_ROLE) as node,
    ):
        yield House(api, node)


@pytest.mark.asyncio
async def test_a_dag_is_written_with_its_tasks_in_order(house):
    done = await house.apply(ETL)
    assert done.created == ("etl",)
    tasks = await house.tasks()
    assert [(t["number"], t["task_id"], t["parents"]) for t in tasks] == [
        (0, "extract", 0),
        (1, "left", 1),
        (2, "right", 1),
        (3, "load", 2),
    ]
    assert {t["retries"] for t in tasks} == {"2"}
    assert await house.edges() == {(0, 1), (0, 2), (1, 3), (2, 3)}
    again = await house.apply(ETL)
    assert (again.unchanged, again.created, again.updated) == (("etl",), (), ())


@pytest.mark.asyncio
async def test_a_change_of_one_task_is_a_version_of_all(house):
    await house.apply(ETL)
    done = await house.apply(ETL.replace("timeout: 5m", "timeout: 6m"))
    assert done.updated == ("etl",)
    (change,) = done.changes
    assert [(c.path, c.old, c.new) for c in change.fields] == [
        ("tasks.left.timeout_s", 300.0, 360.0)
    ]
    assert {(t["version"], t["job_version"]) for t in await house.tasks()} == {(2, 2)}
    (row,) = await house.node.fetch("SELECT version, next_fire_at FROM schedules")
    assert row["version"] == 2


@pytest.mark.asyncio
async def test_a_task_that_was_gone_comes_back(house):
    less = ETL.replace("[left, right]", "[left]").replace(
        "      - {task_id: right, command: ./right, dependencies: [extract]}\n", ""
    )
    await house.apply(ETL)
    await house.apply(less)
    assert [t["task_id"] for t in await house.tasks()] == ["extract", "left", "load"]
    await house.apply(ETL)
    assert {(t["version"], t["job_version"]) for t in await house.tasks()} == {(3, 3)}
    assert len(await house.tasks()) == 4


@pytest.mark.asyncio
async def test_tasks_are_no_jobs_to_people(house):
    await house.apply(ETL + "jobs: [{job_id: plain, command: 'true'}]\n")
    page = await house.do(list_jobs, tenant="default")
    assert {job.job_id for job in page.items} == {"plain", "etl"}
    shown = await house.do(show_job, tenant="default", job_id="etl")
    assert shown.schedule == "0 2 * * *"
    with pytest.raises(NotFoundError, match="no job"):
        await house.do(show_job, tenant="default", job_id="etl/left")


@pytest.mark.asyncio
async def test_a_dag_goes_with_its_tasks_and_its_name_is_free(house):
    await house.apply(ETL)
    done = await house.apply("jobs: [{job_id: plain, command: 'true'}]\n", prune=True)
    assert done.deleted == ("etl",)
    assert await house.tasks() == []
    left = await house.node.fetch("SELECT job_id FROM jobs WHERE deleted_at IS NULL")
    assert [row["job_id"] for row in left] == ["plain"]
    assert (await house.apply(ETL)).created == ("etl",)
    assert {(t["version"], t["job_version"]) for t in await house.tasks()} == {(1, 1)}


@pytest.mark.asyncio
async def test_a_job_becomes_a_dag_and_a_dag_a_job(house):
    await house.apply("jobs: [{job_id: etl, command: 'true'}]\n")
    assert (await house.apply(ETL)).updated == ("etl",)
    assert {t["version"] for t in await house.tasks()} == {2}
    assert (await house.apply("jobs: [{job_id: etl, command: 'true'}]\n")).updated == ("etl",)
    assert await house.tasks() == []
    await house.apply(ETL)
    assert {(t["version"], t["job_version"]) for t in await house.tasks()} == {(4, 4)}


@pytest.mark.asyncio
async def test_a_calendar_that_changes_takes_a_whole_dag_with_it(house):
    dated = ETL.replace('schedule: "0 2 * * *"', 'schedule: {cron: "0 2 * * *", calendar: [c]}')
    await house.apply("calendars: {c: {exclude: ['2026-12-25']}}\n", source="days")
    await house.apply(dated)
    await house.apply("calendars: {c: {exclude: ['2026-12-26']}}\n", source="days")
    tasks = await house.tasks()
    assert len(tasks) == 4
    assert {(t["version"], t["job_version"], t["retries"]) for t in tasks} == {(2, 2, "2")}


@pytest.mark.asyncio
async def test_a_dag_of_another_source_is_adopted_whole(house):
    await house.apply(ETL, source="one")
    with pytest.raises(ConflictError, match=r'"etl" belongs'):
        await house.apply(ETL, source="two")
    assert (await house.apply(ETL, source="two", adopt=True)).updated == ("etl",)
    owners = await house.node.fetch("SELECT DISTINCT source FROM jobs")
    assert [row["source"] for row in owners] == ["two"]


@pytest.mark.asyncio
async def test_a_dag_is_not_changed_in_part_but_may_be_deleted(house):
    await house.apply(ETL)
    with pytest.raises(ConflictError, match="is a DAG"):
        await house.do(
            change_job, tenant="default", job_id="etl", change=lambda s: s, who="me", now=NOW
        )
    await house.do(delete_job, tenant="default", job_id="etl", who="me", now=NOW)
    assert await house.tasks() == []


@pytest.mark.asyncio
async def test_ten_thousand_tasks_are_written(house):
    wide = [f"w{i}" for i in range(9_998)]
    lines = ["dags:", "  - dag_id: big", "    tasks:", "      - {task_id: first, command: a}"]
    lines += [f"      - {{task_id: {w}, command: a, dependencies: [first]}}" for w in wide]
    lines.append(f"      - {{task_id: last, command: a, dependencies: [{', '.join(wide)}]}}")
    done = await house.apply("\n".join(lines))
    assert done.created == ("big",)
    tasks = await house.tasks("big")
    assert (len(tasks), tasks[-1]["task_id"], tasks[-1]["parents"]) == (10_000, "last", 9_998)
    assert len(await house.edges("big")) == 2 * 9_998


def runs(dag_id: str, other: str) -> str:
    return (
        f"dags:\n  - dag_id: {dag_id}\n    tasks:\n"
        f"      - {{task_id: own, command: a}}\n      - {{task_id: sub, dag: {other}}}\n"
    )


@pytest.mark.asyncio
async def test_a_sub_dag_is_there_stays_there_and_does_not_run_itself(house):
    refused = r"^jobs\.yaml:5:29: dags\[0\]\.tasks\[1\]\.dag: "
    with pytest.raises(InvalidFileError, match=refused + 'there is no DAG "elt"'):
        await house.apply(runs("a", "elt"))
    with pytest.raises(InvalidFileError, match=refused + ".* in a circle: a -> a"):
        await house.apply(runs("a", "a"))
    await house.apply(ETL, source="etl")
    await house.apply(runs("a", "etl"), source="a")
    with pytest.raises(InvalidFileError, match='no DAG "etk": did you mean "etl"'):
        await house.apply(runs("a", "etk"), source="a")
    with pytest.raises(InvalidFileError, match=refused + ".* in a circle: (a -> etl -> a|etl -> )"):
        await house.apply(runs("etl", "a"), source="etl")
    with pytest.raises(ConflictError, match=r'"etl" cannot be deleted, since "a" names it'):
        await house.do(delete_job, tenant="default", job_id="etl", who="me", now=NOW)
    with pytest.raises(InvalidFileError, match='there is no DAG "plain"'):
        await house.apply(runs("b", "plain") + "jobs: [{job_id: plain, command: x}]\n")
