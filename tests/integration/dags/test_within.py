"""Runs within runs end, though more of the outer ones are held than a node may hold."""

import pytest

from actors.dag import actor

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]

DAGS = """
dags:
  - dag_id: outer
    tasks:
      - {task_id: each, map: {over: "${{ [1, 2, 3] }}", parallelism: 3}, dag: {dag_id: middle}}
      - {task_id: last, dependencies: [each], command: "true"}
  - dag_id: middle
    tasks: [{task_id: one, dag: {dag_id: inner}}]
  - dag_id: inner
    concurrency: {limit: 1}
    tasks: [{task_id: work, command: "true"}]
"""


async def test_runs_within_runs_have_room_of_their_own(house, monkeypatch):
    monkeypatch.setattr(actor, "HELD_MAX", 2)
    file = house.folder / "dags.yaml"
    file.write_text(DAGS)
    house.jobs = [file]
    async with house.node() as node:
        runs = [await house.run(node, "outer") for _ in range(5)]
        assert [await house.ended(run) for run in runs] == ["succeeded"] * 5
    (counted,) = await house.sql("SELECT count(*) AS n FROM dag_runs WHERE state = 'succeeded'")
    assert counted["n"] == 5 * (1 + 3 + 3)
