"""What tasks of DAGs see: references as variables that no shell reads, items, runs and results."""

import json

import pytest

from runtime.apply import apply_files
from runtime.files.load import load_texts
from tests.support.own_node import until

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]

HOSTILE = """
dags:
  - dag_id: given
    tasks:
      - task_id: extract
        command: "cat value.json"
      - task_id: load
        dependencies: [extract]
        command: >-
          printf '%s' ${{ tasks.extract.result.path }} > plain;
          printf '%s' "in: ${{ tasks.extract.result.path }}" > quoted;
          echo "{\\"run\\": \\"$RUNTIME_DAG_RUN_ID\\", \\"task\\": \\"$RUNTIME_TASK_ID\\",
          \\"input\\": $RUNTIME_INPUT}" | tr -d '\\n'
      - task_id: list
        dependencies: [load]
        command: [printf, "%s", "[1, \\"${{ tasks.extract.result.n }}\\"]"]
      - task_id: each
        dependencies: [list]
        map: ${{ tasks.list.result }}
        command: [printf, "%s", '{"item": ${{ tojson(item) }}}']
      - task_id: python
        dependencies: [each, extract]
        python: "given_tasks:combine"
        args: ["${{ tasks.each.result }}", "n is ${{ tasks.extract.result.n }}"]
"""
TASKS = """
def combine(ctx, items, text):
    return [items, text, ctx.dag_run_id, ctx.task_id, ctx.input]
"""


async def apply(node, text: str, house) -> None:
    files = load_texts([("jobs.yaml", text.encode())], source="test")
    await apply_files(node.database.api, files, cwd=house.folder, now=node.clock.now(), who="test")


async def result(house, run: int, task: str):
    (row,) = await house.sql(
        "SELECT result FROM dag_tasks WHERE run = $1 AND task_id = $2 AND item = -1", run, task
    )
    return json.loads(row["result"])


async def test_what_a_result_holds_is_data_to_every_task_that_refers_to_it(house):
    path = "$(touch hacked) `touch hacked`; touch hacked '\" \\"
    (house.folder / "value.json").write_text(json.dumps({"path": path, "n": 7}))
    (house.folder / "given_tasks.py").write_text(TASKS)
    async with house.node() as node:
        await apply(node, HOSTILE, house)
        run = await house.run(node, "given", b'{"day": 3}')
        ended = await house.ended(run)
        assert ended == "succeeded", await house.states(run)
        name = (await house.sql("SELECT execution_id FROM all_executions WHERE id = $1", run))[0][0]

    assert not (house.folder / "hacked").exists()
    assert (house.folder / "plain").read_text() == path
    assert (house.folder / "quoted").read_text() == f"in: {path}"
    load = await result(house, run, "load")
    assert load == {"run": str(name), "task": "load", "input": {"day": 3}}
    items = [{"item": 1}, {"item": "7"}]
    assert await result(house, run, "each") == items
    assert await result(house, run, "python") == [
        items,
        "n is 7",
        str(name),
        "python",
        {"day": 3},
    ]


async def test_a_run_goes_on_in_the_next_life_of_its_node(house):
    """The node stops in the middle of a run; the next one takes the run up where it stood."""
    text = """
dags:
  - dag_id: chain
    tasks:
      - {task_id: a, command: "echo a >> order"}
      - task_id: b
        dependencies: [a]
        command: "echo b >> order; until [ -e go ]; do sleep 0.05; done"
      - {task_id: c, dependencies: [b], command: "echo c >> order"}
"""
    order = house.folder / "order"
    async with house.node(**{"shutdown.grace_s": 0.1}) as node:
        await apply(node, text, house)
        run = await house.run(node, "chain")
        await until(lambda: order.exists() and "b" in order.read_text())
    (house.folder / "go").touch()
    async with house.node():
        assert await house.ended(run) == "succeeded"
    assert order.read_text().split() == ["a", "b", "b", "c"]
