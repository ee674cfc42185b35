"""Several nodes as users run them: elected, told, drained, regrouped, killed, and talked to."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from protocols import Actor, Context
from protocols.actor import ActorDead, Terminated
from runtime import Runtime
from tests.support.cluster import TOKEN, TTL_S, ClusterHouse, cluster, evenly

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]

SECONDS = """
jobs:
  - {job_id: s0, schedule: "* * * * * *", command: "true", overlap: allow}
  - {job_id: s1, schedule: "* * * * * *", command: "true", overlap: allow}
  - {job_id: s2, schedule: "* * * * * *", command: "true", overlap: allow}
  - {job_id: s3, schedule: "* * * * * *", command: "true", overlap: allow}
  - {job_id: s4, schedule: "* * * * * *", command: "true", overlap: allow}
"""
COUNTED = """
WITH rows AS (
    SELECT job_id, scheduled_for, instants FROM execution_history WHERE origin = 0
    UNION ALL SELECT job_id, scheduled_for, 1 FROM executions WHERE origin = 0
)
SELECT job_id, count(*) AS rows, sum(instants) AS instants,
    extract(epoch FROM max(scheduled_for) - min(scheduled_for))::int + 1 AS due
FROM rows GROUP BY job_id ORDER BY job_id
"""
ECHO = """
import msgspec
from protocols import Actor

class Echo(Actor):
    async def receive(self, message, ctx):
        if message == "never":
            ctx.defer_reply()
            return None
        return {"heard": message}
"""


async def whole(house: ClusterHouse) -> None:
    """Every due instant between a job's first and last has exactly one row."""
    rows = await house.rows(COUNTED)
    assert len(rows) == 5
    for row in rows:
        assert row["rows"] == row["instants"] == row["due"], dict(row)


def ran(house: ClusterHouse, at_least: int):
    async def condition() -> bool:
        query = "SELECT count(*) FROM execution_history WHERE state = 'succeeded'"
        return await house.value(query) >= at_least

    return condition


async def test_a_cluster_waits_for_its_schema_and_its_leaderships_are_spread(land, servers):
    async with cluster(land, servers, timer__shards="5") as house:
        house.up("a", "b", "c")

        async def spread() -> bool:
            return evenly(await house.leaders(), "abc", 5)

        await house.until(spread, "five leaderships are spread over three nodes")
        house.apply(house.nodes["a"], SECONDS)
        await house.until(ran(house, 20), "jobs of every leadership ran")
        epochs = await house.rows("SELECT number, epoch FROM leaderships")

        led = await house.leaders()
        house.nodes["b"].kill()

        async def taken_over() -> bool:
            return evenly(await house.leaders(), "ac", 5)

        await house.until(taken_over, "the survivors lead what the dead one led")
        now = await house.leaders()
        assert {n: who for n, who in led.items() if who != "b"}.items() <= now.items()
        before = {row["number"]: row["epoch"] for row in epochs}
        after = {
            row["number"]: row["epoch"]
            for row in await house.rows("SELECT number, epoch FROM leaderships")
        }
        moved = {number for number, who in led.items() if who == "b"}
        assert {n for n in after if after[n] > before[n]} == moved, (led, now, before, after)
        count = await house.value("SELECT count(*) FROM execution_history")
        await house.until(ran(house, count + 20), "firing went on")
        await whole(house)


async def test_a_name_is_held_until_its_node_has_ended(land, servers):
    async with cluster(land, servers) as house:
        (first,) = house.up("a")
        second = house.node("a")
        second.data_dir = land / "second"
        second.launch()
        assert second.wait() == 1
        incarnation = await house.value("SELECT incarnation FROM nodes WHERE state = 'up'")
        assert f"pid {first.pid} on" in second.story()
        assert f"incarnation {incarnation}" in second.story()

        first.kill()
        third = house.node("a")
        third.start()
        assert await house.value("SELECT count(*) FROM nodes WHERE state = 'up'") == 1
        assert await house.value("SELECT max(incarnation) FROM nodes") > incarnation
        assert "waiting for the node of this name to end" in third.story()


async def test_what_a_dead_node_ran_runs_elsewhere_unless_once_was_the_most(land, servers):
    async with cluster(land, servers) as house:
        house.up("a")
        gate = land / "gate"
        waits = f"while [ ! -e {gate} ]; do sleep 0.05; done"
        house.apply(
            house.nodes["a"],
            "jobs:\n"
            f"  - {{job_id: again, command: '{waits}'}}\n"
            f"  - {{job_id: once, command: '{waits}', guarantee: at_most_once}}\n",
        )
        for job in ("again", "once"):
            house.nodes["a"].run("trigger", job, RUNTIME_TOKEN=TOKEN).ok()

        async def running() -> bool:
            return await house.value("SELECT count(*) FROM executions WHERE state = 'running'") == 2

        await house.until(running, "both run on a")
        house.up("b")
        house.nodes["a"].kill()
        gate.touch()

        async def ended() -> bool:
            return await house.value("SELECT count(*) FROM execution_history") == 2

        await house.until(ended, "both have ended")
        rows = await house.rows(
            "SELECT h.job_id, h.state, h.reason, h.losses, n.name FROM execution_history h"
            " JOIN nodes n USING (incarnation) ORDER BY h.job_id"
        )
        assert [tuple(row) for row in rows] == [
            ("again", "succeeded", None, 1, "b"),
            ("once", "dead", "lost", 1, "a"),
        ]


async def test_a_drained_node_leaves_when_its_work_has_ended(land, servers):
    async with cluster(land, servers, timer__shards="2") as house:
        a, b = house.up("a", "b")

        async def spread() -> bool:
            return evenly(await house.leaders(), "ab", 2)

        await house.until(spread, "both lead")
        gate = land / "gate"
        os.mkfifo(gate)
        house.apply(a, f"jobs:\n  - {{job_id: held, command: 'cat {gate}', overlap: allow}}\n")
        for _ in range(4):
            b.run("trigger", "held", RUNTIME_TOKEN=TOKEN).ok()

        async def at_b() -> bool:
            return await house.value("SELECT count(*) FROM executions WHERE state = 'running'") == 4

        await house.until(at_b, "all run")
        a.run("nodes", "drain", "b", RUNTIME_TOKEN=TOKEN).ok()

        async def handed_over() -> bool:
            return set((await house.leaders()).values()) == {"a"}

        await house.until(handed_over, "a leads everything")
        assert b.code is None, "it left before what it runs had ended"
        writers = [os.open(gate, os.O_WRONLY) for _ in range(1)]
        for writer in writers:
            os.close(writer)
        assert b.wait() == 0
        assert await house.value("SELECT state FROM nodes WHERE name = 'b'") == "stopped"
        assert await house.value("SELECT count(*) FROM attempts WHERE state = 'lost'") == 0


async def test_who_waits_for_a_drain_is_told_whether_it_left_or_died(land, servers):
    async with cluster(land, servers) as house:
        a, b = house.up("a", "b")
        drain = ("nodes", "drain", "b", "--wait")
        assert "b has left" in a.run(*drain, RUNTIME_TOKEN=TOKEN).ok().out
        assert b.wait() == 0

        (b,) = house.up("b", pools__held__slots="1")
        gate = land / "gate"
        os.mkfifo(gate)
        house.apply(a, f"jobs:\n  - {{job_id: held, command: 'cat {gate}', pool: held}}\n")
        a.run("trigger", "held", RUNTIME_TOKEN=TOKEN).ok()

        async def at_b() -> bool:
            return await house.value("SELECT count(*) FROM executions WHERE state = 'running'") == 1

        await house.until(at_b, "b runs what ends only when it is let")
        late = a.run(*drain, "--timeout", "0.1s", RUNTIME_TOKEN=TOKEN)
        assert late.code == 1
        assert "b has not left within 100ms" in late.err

        async def asked() -> bool:
            return await house.value("SELECT count(*) FROM audit WHERE action = 'drain'") == 3

        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(a.run, *drain, RUNTIME_TOKEN=TOKEN)
            await house.until(asked, "who waits has asked")
            b.kill()
        assert waiting.result().code == 1
        assert "b was declared dead" in waiting.result().err


async def test_a_rolling_restart_misses_and_repeats_nothing(land, servers):
    async with cluster(land, servers, timer__shards="3") as house:
        house.up("a", "b", "c")
        house.apply(house.nodes["a"], SECONDS)
        await house.until(ran(house, 10), "it runs")
        for name in "abc":
            node = house.nodes[name]
            assert node.stop() == 0, node.story()
            node.start()
        count = await house.value("SELECT count(*) FROM execution_history")
        await house.until(ran(house, count + 20), "it runs on")
        await whole(house)
        attempts = await house.value("SELECT count(*) FROM attempts WHERE state <> 'succeeded'")
        assert attempts == 0
        late = await house.value(
            "SELECT max(started_at - scheduled_for) FROM execution_history WHERE origin = 0"
        )
        assert late.total_seconds() < TTL_S, "a leadership was not handed over but ran out"


async def test_leaderships_are_regrouped_while_all_goes_on(land, servers):
    async with cluster(land, servers) as house:
        house.up("a", "b")
        house.apply(house.nodes["a"], SECONDS)
        await house.until(ran(house, 10), "it runs")
        for shards in ("4", "2"):
            house.nodes["b"].run("reshard", shards, RUNTIME_TOKEN=TOKEN).ok()

            async def spread(shards=shards) -> bool:
                return evenly(await house.leaders(), "ab", int(shards))

            await house.until(spread, f"{shards} leaderships are spread")
            count = await house.value("SELECT count(*) FROM execution_history")
            await house.until(ran(house, count + 20), "it runs on")
        await whole(house)


async def test_work_that_finds_no_slot_here_is_told_of_there_by_kafka(land, servers):
    async with cluster(land, servers) as house:
        a, b = house.up("a", "b", pools__default__slots="1")
        gate = land / "gate"
        os.mkfifo(gate)
        house.apply(
            a,
            f"jobs:\n  - {{job_id: held, command: 'cat {gate}', overlap: allow}}\n"
            "  - {job_id: quick, command: 'true'}\n",
        )
        a.run("trigger", "held", RUNTIME_TOKEN=TOKEN).ok()

        async def held_by() -> str | None:
            return await house.value(
                "SELECT n.name FROM executions e JOIN nodes n USING (incarnation)"
                " WHERE e.state = 'running'"
            )

        await house.until(held_by, "the only slot of one node is taken")
        full, free = (a, b) if await held_by() == "a" else (b, a)
        done = full.run("trigger", "quick", "--wait", "--json", RUNTIME_TOKEN=TOKEN).ok().json()
        assert done["node"] == ("b" if free is b else "a")
        received = full.run("actors", "--json").ok().json()
        assert received["children"]
        os.close(os.open(gate, os.O_WRONLY))


class Asker(Actor):
    """Asks, watches and waits; what it learns it keeps."""

    def __init__(self) -> None:
        self.ended: list[Terminated] = []

    async def receive(self, message, ctx: Context):
        match message:
            case Terminated():
                self.ended.append(message)
            case ("watch", ref):
                ctx.watch(ref)
            case "ended":
                return [end.reason for end in self.ended]
        return None


async def test_an_actor_of_another_node_answers_and_its_death_is_told(land, servers, monkeypatch):
    (land / "echoing.py").write_text(ECHO)
    config = land / "b.yaml"
    config.write_text("actors:\n  - {name: echo, class: 'echoing:Echo'}\n")
    async with cluster(land, servers) as house:
        b = house.node("b", tasks__cwd=str(land))
        b._options = [*b._options, "--config", str(config)]
        b.start()
        for name, value in house.env.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("RUNTIME_NODE__NAME", "a")
        monkeypatch.setenv("RUNTIME_API__PORT", "0")
        monkeypatch.setenv("RUNTIME_DATA_DIR", str(land / "a"))
        empty = land / "a.yaml"
        empty.write_text("")
        async with Runtime.from_config(empty) as rt:
            await house.until(_finds(rt, "actors/echo/echo@b"), "b is known to a")
            echo = rt.lookup("actors/echo/echo@b")
            assert await echo.ask("hello", deadline=5.0) == {"heard": "hello"}
            asker = rt.spawn(Asker)
            asker.tell(("watch", echo))
            pending = echo.ask("never", deadline=60.0)
            b.signal(signal.SIGKILL)
            with pytest.raises(ActorDead):
                await pending

            async def told() -> bool:
                return await asker.ask("ended", deadline=1.0) == ["killed"]

            await house.until(told, "the watcher is told")


def _finds(rt: Runtime, name: str):
    async def condition() -> bool:
        return rt.lookup(name) is not None

    return condition
