"""A node's lives: begun, declared dead and begun anew, failed, left in whatever way, ended."""

import os
import signal
import socket
from pathlib import Path

import anyio
import asyncpg
import pytest

import runtime.node as node_module
from protocols.actor import Actor, Props
from protocols.errors import ConflictError
from protocols.ids import execution_id
from protocols.ports.store import TriggerRequest
from runtime.listening import PortInUseError
from runtime.node import NodeFailedError, open_node
from runtime.postgres import sole
from runtime.postgres.operations.executions import show_execution
from runtime.postgres.operations.session import transact
from tests.support.own_node import OwnNodes, until

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]

JOBS = """
jobs:
  - {job_id: long, command: "echo $$ >> pids; exec sleep 600", overlap: allow}
  - {job_id: brief, command: "sleep 1; echo done >> pids"}
"""


class House(OwnNodes):
    """A node with two jobs."""

    def __init__(self, database, folder: Path) -> None:
        super().__init__(database, folder)
        self.jobs = [folder / "jobs.yaml"]
        self.jobs[0].write_text(JOBS)

    async def pids(self, count: int) -> list[int]:
        """The processes of `long`, once there are so many."""
        file = self.folder / "pids"
        await until(lambda: file.exists() and len(file.read_text().split()) >= count)
        return [int(pid) for pid in file.read_text().split()]


def lives(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


async def trigger(node, job_id: str) -> str:
    request = TriggerRequest(tenant="default", job_id=job_id)
    (answer,) = await node.store.trigger([request], now=node.clock.now())
    return execution_id(answer.id, answer.created_at)


async def running(node, execution: str) -> None:
    async def runs():
        return (await show(node, execution)).state == "running"

    await until(runs)


async def show(node, execution: str):
    async def work(conn):
        return await show_execution(
            conn, tenant="default", execution=execution, now=node.clock.now()
        )

    return await transact(node.api, "default", work)


@pytest.fixture
def house(empty_database, tmp_path) -> House:
    return House(empty_database, tmp_path)


async def test_a_node_that_was_declared_dead_ends_what_it_runs_and_begins_anew(house):
    async with house.node(**{"shutdown.grace_s": 300}) as node:
        execution = await trigger(node, "long")
        (first,) = await house.pids(1)
        was = await show(node, execution)
        before = node.incarnation
        await house.sql("UPDATE nodes SET state = 'dead' WHERE incarnation = $1", before)
        _, second = await house.pids(2)
        assert node.incarnation > before
        assert not lives(first)
        assert lives(second)
        now = await show(node, execution)
        assert now.state == "running"
        assert now.fencing_token > was.fencing_token
        assert now.attempts[0].state == "lost"
        assert node.health.view().ready
        os.kill(second, signal.SIGKILL)  # leaving would let it run for the whole grace


async def test_a_node_that_was_declared_dead_while_it_was_drained_ends(house):
    """Its operator wants it gone: a new life would take work again, and nobody would drain that."""
    async with house.node(**{"shutdown.grace_s": 1}) as node:
        await trigger(node, "long")
        (first,) = await house.pids(1)
        before = node.incarnation
        await house.sql("UPDATE nodes SET state = 'draining' WHERE incarnation = $1", before)

        async def drains():
            return not node.health.view().ready

        await until(drains)
        await house.sql("UPDATE nodes SET state = 'dead' WHERE incarnation = $1", before)
        with anyio.fail_after(30):
            await node.wait_ended()
        assert not lives(first)
        assert node.incarnation == before


async def states(house) -> dict[int, str]:
    rows = await house.sql("SELECT incarnation, state FROM nodes")
    return {row["incarnation"]: row["state"] for row in rows}


async def test_leaving_lets_what_runs_finish_and_says_that_the_node_ended(house):
    async with house.node() as node:
        await running(node, await trigger(node, "brief"))
        incarnation = node.incarnation
    assert (house.folder / "pids").read_text() == "done\n"
    assert await states(house) == {incarnation: "stopped"}
    (row,) = await house.sql("SELECT state FROM execution_history")
    assert row["state"] == "succeeded"


async def test_an_exception_leaves_as_itself_and_ends_the_node_in_good_order(house):
    pids = []

    async def leave():
        async with house.node(**{"shutdown.grace_s": 0}) as node:
            await trigger(node, "long")
            pids.extend(await house.pids(1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await leave()
    assert not lives(pids[0])
    assert list((await states(house)).values()) == ["stopped"]


async def test_a_cancelled_block_gives_what_runs_its_grace(house):
    with anyio.CancelScope() as scope:
        async with house.node() as node:
            await running(node, await trigger(node, "brief"))
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert (house.folder / "pids").read_text() == "done\n"
    assert await states(house) == {node.incarnation: "stopped"}


class Crashing(Actor):
    async def on_start(self, ctx):
        raise ArithmeticError("it cannot be")

    async def receive(self, message, ctx):
        raise AssertionError(message)


async def test_a_node_whose_supervisor_gives_up_ends_with_one_error(house):
    async def fail():
        async with house.node() as node:
            node.system.spawn(Props(factory=Crashing, name="crashing"))
            await anyio.sleep_forever()

    with pytest.raises(NodeFailedError, match=r"a part of it kept failing: .*crashing"):
        await fail()
    assert list((await states(house)).values()) == ["stopped"]


async def test_an_actor_of_the_users_that_gives_up_does_not_end_the_node(house, monkeypatch):
    (house.folder / "own_actors.py").write_text(
        "from protocols import Actor\n"
        "class Bad(Actor):\n"
        "    async def on_start(self, ctx):\n"
        "        ctx.register('bad')\n"
        "        with open('starts', 'a') as file: file.write('.')\n"
        "        raise ArithmeticError('never')\n"
        "    async def receive(self, message, ctx): pass\n"
        "class Good(Actor):\n"
        "    def __init__(self, word): self.word = word\n"
        "    async def on_start(self, ctx): ctx.register('good')\n"
        "    async def receive(self, message, ctx): return self.word\n"
    )
    monkeypatch.chdir(house.folder)
    actors = [
        {"name": "bad", "class": "own_actors:Bad"},
        {"name": "good", "class": "own_actors:Good", "args": {"word": "hello"}, "mailbox": 3},
    ]
    async with house.node(actors=actors) as node:
        assert await node.system.lookup("good").ask("?", deadline=5.0) == "hello"
        await until(lambda: (house.folder / "starts").read_text() == "......")
        await until(lambda: node.system.lookup("/actors/bad") is None)
        assert node.health.view().ready


async def test_a_second_node_is_told_who_holds_the_database(house, tmp_path, monkeypatch):
    monkeypatch.setattr(sole, "_WAIT_S", 0.1)
    async with house.node():
        with pytest.raises(ConflictError, match="holds this database"):
            async with open_node(house.settings(data_dir=str(tmp_path / "other"))):
                raise AssertionError("two nodes on one database")


async def test_a_node_that_lost_its_database_to_another_ends(house, monkeypatch):
    monkeypatch.setattr(sole, "_LOOK_S", 0.05)
    monkeypatch.setattr(sole, "_AGAIN_S", 0.1)
    taken = anyio.Event()
    connect, first = sole.SoleNode.__init__, []

    def slow_to_return(self, how):
        async def connected():
            if first:
                await taken.wait()
            first.append(self)
            return await how()

        connect(self, connected)

    monkeypatch.setattr(sole.SoleNode, "__init__", slow_to_return)
    pids = []

    async def lose():
        async with house.node(**{"shutdown.grace_s": 0}) as node:
            await trigger(node, "long")
            pids.extend(await house.pids(1))
            other = await asyncpg.connect(**house.database.arguments())
            try:
                await other.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE application_name LIKE '%holder' AND datname = current_database()"
                )
                await until(lambda: other.fetchval("SELECT pg_try_advisory_lock($1)", sole._KEY))
                taken.set()
                await anyio.sleep_forever()
            finally:
                other.terminate()

    with pytest.raises(ConflictError, match="holds this database"):
        await lose()
    assert not lives(pids[0])


HOLDERS = """
SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


async def test_a_holder_that_was_cut_off_takes_the_database_again(house, monkeypatch):
    monkeypatch.setattr(sole, "_LOOK_S", 0.05)
    async with house.node():
        (before,) = await house.sql(HOLDERS)
        await house.sql("SELECT pg_terminate_backend($1)", before["pid"])

        async def again():
            now = await house.sql(HOLDERS)
            return now and now[0]["pid"] != before["pid"]

        await until(again)


async def test_two_that_bind_one_port_are_told_apart_when_they_listen(house, monkeypatch):
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]

        def token(*given):
            other.listen()
            return "a-token-of-the-tests-only"

        monkeypatch.setattr(node_module, "load_or_make_token", token)
        with pytest.raises(PortInUseError, match=f"cannot listen on .*{port}"):
            async with house.node(**{"api.port": port}):
                raise AssertionError("two on one port")
