"""Who has much to start keeps no other tenant waiting."""

from runtime.postgres.dags.rows import TaskRow
from runtime.postgres.dags.starting import by_turns


def tasks(*runs: int) -> list[TaskRow]:
    return [TaskRow(run=run, number=number, item=-1) for number, run in enumerate(runs)]


def tenant(task: TaskRow) -> str:
    return {1: "busy", 2: "busy", 3: "quiet"}[task.run]


def test_each_tenant_has_its_turn_and_its_own_order():
    found = by_turns(tasks(1, 2, 1, 2, 1, 3, 3), tenant)
    assert {tenant(one) for one in found[:2]} == {tenant(one) for one in found[2:4]}
    assert [one.number for one in found if tenant(one) == "busy"] == [0, 1, 2, 3, 4]
    assert [one.number for one in found if tenant(one) == "quiet"] == [5, 6]


def test_no_tenant_is_always_first():
    first = {tenant(by_turns(tasks(1, 3), tenant)[0]) for _ in range(200)}
    assert first == {"busy", "quiet"}
