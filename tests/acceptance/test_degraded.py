"""Degraded, not down: each service away, in turn and all at once, at the start and at the end."""

from __future__ import annotations

import os
import re
from functools import partial

import anyio
import httpx
import pytest

from tests.support.cluster import TOKEN, TTL_S, ClusterHouse, cluster
from tests.support.node import NodeProcess
from tests.support.services import Server

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]

WITHIN_S = 60.0
GRACE_S = 2
AWAY_S = float(os.environ.get("TICKWRIGHT_TEST_AWAY", "15"))
"""How long etcd is away where schedules are to be missed; two minutes by hand."""
MISSED_AFTER_S = 6
TRIGGERS = 200
JOBS = """
jobs:
  - {job_id: often, schedule: "* * * * * *", command: "true", overlap: allow}
  - {job_id: quick, command: "true", overlap: allow}
  - {job_id: long, command: "sleep 5", overlap: allow}
"""
MISSING = """
jobs:
  - job_id: latest
    schedule: {cron: "* * * * * *", misfire: {policy: execute_once, grace: 6s}}
  - job_id: all
    schedule: {cron: "* * * * * *", misfire: {policy: catch_up, grace: 6s, limit: 500}}
  - job_id: none
    schedule: {cron: "* * * * * *", misfire: {policy: skip, grace: 6s}}
  - {job_id: quick}
  - {job_id: long, command: "sleep 5"}
defaults: {command: "true", overlap: allow}
"""
LATER = """
jobs:
  - {job_id: newcomer, command: "true"}
"""
COVERED = """
WITH rows AS (
    SELECT job_id, scheduled_for, instants, state || coalesce(': ' || reason, '') AS became
    FROM execution_history WHERE origin = 0
    UNION ALL
    SELECT job_id, scheduled_for, 1, state FROM executions WHERE origin = 0
)
SELECT job_id, count(*) FILTER (WHERE became NOT IN
    ('succeeded', 'running', 'scheduled', 'skipped: misfire')) AS odd,
    coalesce(sum(instants) FILTER (WHERE became = 'skipped: misfire'), 0) AS missed,
    sum(instants) AS instants,
    extract(epoch FROM max(scheduled_for) - min(scheduled_for))::int + 1 AS due
FROM rows GROUP BY job_id
"""
INSTANTS = """
WITH rows AS (
    SELECT scheduled_for, instants, state FROM execution_history WHERE job_id = 'often'
    UNION ALL
    SELECT scheduled_for, 1, state FROM executions WHERE job_id = 'often' AND origin = 0
)
SELECT count(*) AS rows, sum(instants) AS instants,
    extract(epoch FROM max(scheduled_for) - min(scheduled_for))::int + 1 AS due,
    count(*) FILTER (WHERE state NOT IN ('succeeded', 'running', 'scheduled')) AS odd
FROM rows
"""


async def until(node: NodeProcess, condition, what: str) -> None:
    """Wait for something that only the node can bring about."""
    with anyio.move_on_after(WITHIN_S):
        while not await condition():  # noqa: ASYNC110 - another process, which can tell nobody
            await anyio.sleep(0.05)
        return
    pytest.fail(f"waited {WITHIN_S:.0f} s in vain until {what}\n{node.story()}")


async def health(node: NodeProcess) -> tuple[bool, dict[str, dict[str, str]]]:
    """Whether it is ready, and its troubles by part."""
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.get(f"{node.url}/health/ready")
    view = answer.json()
    assert view["ready"] is (answer.status_code == 200)
    return view["ready"], {trouble["part"]: trouble for trouble in view["troubles"]}


async def metric(node: NodeProcess, name: str) -> float:
    async with httpx.AsyncClient(trust_env=False) as http:
        text = (await http.get(f"{node.url}/metrics")).text
    (value,) = re.findall(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(value)


def trigger(node: NodeProcess, job: str) -> str:
    return node.run("trigger", job, "--json", RUNTIME_TOKEN=TOKEN).ok().json()["execution_id"]


async def fired(house: ClusterHouse) -> int:
    return await house.value("SELECT count(*) FROM execution_history WHERE job_id = 'often'")


async def fires_on(house: ClusterHouse, node: NodeProcess, more: int = 2) -> None:
    before = await fired(house)

    async def went_on() -> bool:
        return await fired(house) >= before + more

    await until(node, went_on, "it fires")


async def well(node: NodeProcess) -> None:
    async def mended() -> bool:
        ready, troubles = await health(node)
        return ready and troubles.keys() <= {"clock"}  # a machine under load samples it roughly

    await until(node, mended, "it is well again")


async def nothing_was_lost(house: ClusterHouse) -> None:
    (row,) = await house.rows(INSTANTS)
    assert row["rows"] == row["instants"] == row["due"], dict(row)
    assert row["odd"] == 0, dict(row)
    assert await house.value("SELECT count(*) FROM attempts WHERE state = 'lost'") == 0
    assert await house.value("SELECT count(*) FROM nodes") == 1, "the node took itself for dead"


async def succeeded(house: ClusterHouse, node: NodeProcess, job: str, count: int) -> None:
    async def all_have() -> bool:
        query = "SELECT count(*) FROM execution_history WHERE job_id = $1 AND state = 'succeeded'"
        return await house.value(query, job) == count

    await until(node, all_have, f"{count} of {job} succeeded")


async def test_the_order_in_which_things_start_does_not_matter(land, servers):
    async with cluster(land, servers) as house:
        for server in servers:
            server.kill()
        node = house.node("a")
        try:
            node.launch()

            async def waits(node: NodeProcess = node) -> bool:
                return "waiting for the database" in node.story()

            await until(node, waits, "it says what it waits for")
            hasty = house.node("b", shutdown__grace_s=str(GRACE_S))
            hasty.launch()
            await until(hasty, partial(waits, hasty), "it waits as well")
            assert hasty.stop() == 0
            assert hasty.log[-1] == "ended before it had started", hasty.story()
            servers.database.restart()

            async def lives(node: NodeProcess = node) -> bool:
                return bool(node.url) and (await health(node))[1].keys() >= {"etcd", "kafka"}

            await until(node, lives, "it runs without etcd and Kafka")
            assert (await health(node))[0], "a node that leads nothing is ready"
            house.apply(node, JOBS)
            trigger(node, "quick")
            await succeeded(house, node, "quick", 1)
            hasty.launch()
            await until(hasty, partial(lives, hasty), "another does as well")
            assert_ends_well(hasty)
            assert await house.value("SELECT max(epoch) FROM leaderships") == 0, (
                "it led without etcd"
            )
        finally:
            for server in reversed(servers):
                server.restart()
        await well(node)
        await fires_on(house, node)
        assert node.stop() == 0


@pytest.mark.parametrize("part", ["etcd", "kafka"])
async def test_without_etcd_or_kafka_work_goes_on(land, servers, part: str):
    server: Server = getattr(servers, part)
    async with cluster(land, servers, shutdown__grace_s=str(GRACE_S)) as house:
        (node,) = house.up("a")
        house.apply(node, JOBS)
        await fires_on(house, node)
        trigger(node, "long")
        server.kill()
        try:

            async def told() -> bool:
                return part in (await health(node))[1]

            await until(node, told, f"it shows that {part} is away")
            ready, troubles = await health(node)
            assert ready, "it is degraded, not down"
            assert part in degraded_by_doctor(node, house)
            since = troubles[part]["since"]
            trigger(node, "quick")
            await succeeded(house, node, "quick", 1)
            if part == "etcd":

                async def stands_down() -> bool:
                    return await metric(node, "tickwright_leaderships_led_count") == 0

                await until(node, stands_down, "it leads nothing without etcd")
                trigger(node, "quick")  # behind what it may have been firing just then
                await succeeded(house, node, "quick", 2)
                (before,) = await house.rows(INSTANTS)
                await succeeded(house, node, "long", 1)
                (after,) = await house.rows(INSTANTS)
                assert after["rows"] == before["rows"], "it fired without a leadership"
            else:
                await fires_on(house, node, more=int(TTL_S) + 1)
                await succeeded(house, node, "long", 1)
            assert (await health(node))[1][part]["since"] == since
            assert await metric(node, f'tickwright_degraded_seconds{{part="{part}"}}') > 0
        finally:
            server.restart()
        await well(node)
        await fires_on(house, node)
        await nothing_was_lost(house)
        assert_ends_well(node)


async def test_what_is_missed_without_etcd_follows_its_policy_and_all_else_goes_on(land, servers):
    async with cluster(land, servers, shutdown__grace_s=str(GRACE_S)) as house:
        (node,) = house.up("a")
        house.apply(node, MISSING)
        trigger(node, "long")

        async def fired_all() -> bool:
            return len(await house.rows(COVERED)) == len(("latest", "all", "none"))

        await until(node, fired_all, "each schedule has fired")
        servers.etcd.kill()
        try:
            away = anyio.current_time() + AWAY_S
            house.apply(node, LATER)
            trigger(node, "newcomer")
            asked = {"url": f"{node.url}/api/v1/jobs/quick/trigger", "json": {}}
            async with httpx.AsyncClient(
                trust_env=False, headers={"Authorization": f"Bearer {TOKEN}"}
            ) as http:
                for _ in range(TRIGGERS):
                    (await http.post(**asked)).raise_for_status()
            await succeeded(house, node, "newcomer", 1)
            await succeeded(house, node, "quick", TRIGGERS)
            await succeeded(house, node, "long", 1)
            await anyio.sleep_until(away)
        finally:
            servers.etcd.restart()
        await well(node)

        async def recorded() -> bool:
            rows = {row["job_id"]: row["missed"] for row in await house.rows(COVERED)}
            return rows["none"] > 0 and rows["latest"] > 0

        await until(node, recorded, "what was missed is recorded")
        rows = {row["job_id"]: row for row in await house.rows(COVERED)}
        for row in rows.values():
            assert row["instants"] == row["due"] >= AWAY_S, dict(row)
            assert row["odd"] == 0, dict(row)
        least = AWAY_S - TTL_S - MISSED_AFTER_S
        assert rows["none"]["missed"] >= least, dict(rows["none"])
        assert rows["latest"]["missed"] >= least - 1, dict(rows["latest"])
        assert rows["all"]["missed"] == 0, dict(rows["all"])
        assert_ends_well(node)


async def test_without_its_database_a_node_promises_nothing_and_loses_nothing(land, servers):
    server = servers.database
    async with cluster(land, servers, shutdown__grace_s=str(GRACE_S)) as house:
        (node,) = house.up("a")
        house.apply(node, JOBS)
        await fires_on(house, node)
        trigger(node, "long")

        async def told() -> bool:
            return await health_of(node) == (False, True)

        async def running() -> bool:
            query = "SELECT count(*) FROM executions WHERE job_id = 'long' AND state = 'running'"
            return await house.value(query) == 1

        await until(node, running, "it runs")
        server.kill()
        try:
            await until(node, told, "it shows that the database is away")
            refused = node.run("trigger", "quick", RUNTIME_TOKEN=TOKEN)
            assert refused.code != 0
            doctor = node.run("doctor", "--json", **house.env).json()
            assert doctor["state"] == "wrong"

            async def long_away() -> bool:
                return await metric(node, 'tickwright_degraded_seconds{part="database"}') > TTL_S

            await until(node, long_away, "it has been away for longer than a TTL")
        finally:
            server.restart()
        await well(node)
        await fires_on(house, node)
        await succeeded(house, node, "long", 1)
        await nothing_was_lost(house)
        assert node.run("doctor", "--json", **house.env).ok().json()["state"] in {"ok", "warning"}
        server.kill()
        try:
            await until(node, told, "it shows that the database is away")
            assert_ends_well(node)
        finally:
            server.restart()


async def health_of(node: NodeProcess) -> tuple[bool, bool]:
    ready, troubles = await health(node)
    return ready, "database" in troubles


def degraded_by_doctor(node: NodeProcess, house: ClusterHouse) -> set[str]:
    """What the doctor finds degraded, and not only because the node says so."""
    done = node.run("doctor", "--json", RUNTIME_URL="http://127.0.0.1:1", **house.env)
    assert done.code == 1, done
    return {one["name"] for one in done.json()["checks"] if one["state"] == "degraded"}


def assert_ends_well(node: NodeProcess) -> None:
    """SIGTERM is enough, whatever is away; nothing that a user cannot read is said."""
    assert node.stop() == 0, node.story()
    assert "Traceback" not in node.story()
    assert node.log[-1] == "ended", node.story()
