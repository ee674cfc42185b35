"""`@dag` and `@task`: what a body draws is what a job file would say."""

import pytest

from protocols.dags import DagTask
from protocols.errors import InvalidError
from protocols.tasks import PythonTask
from runtime import dag, item, sub_dag, task, wait


@task(max_retries=2)
def extract(ctx):
    return {"rows": [1, 2]}


@task
async def load(ctx, rows, *, mode="full"):
    return (rows, mode)


@task(isolation="process")
def report(ctx, every):
    return every


@dag("etl", schedule="0 2 * * *", on_failure="continue", defaults={"timeout": "5m"})
def etl(given):
    """Every night."""
    found = extract()
    ready = wait("approve", signal="go", timeout="1d").after(found)
    each = load.options(map=found["rows"], when=found["any's"])(item, mode=given["mode"])
    ready >> each
    load([found["rows"][0], {"k": found.state}])
    sub_dag("other", "second", input={"n": each}).after(ready)
    report(each)


def drawn(one):
    specs, called = one.parts("default")
    assert isinstance(specs[0].task, DagTask)
    return specs, {t.task_id: t for t in specs[0].task.tasks}, called


def test_a_body_draws_tasks_that_wait_for_the_results_they_use():
    specs, tasks, called = drawn(etl)
    assert [spec.job_id for spec in specs] == ["etl", *(f"etl/{name}" for name in tasks)]
    assert {name: one.dependencies for name, one in tasks.items()} == {
        "extract": (),
        "approve": ("extract",),
        "load": ("extract", "approve"),
        "load-2": ("extract",),
        "other": ("load", "approve"),
        "report": ("load",),
    }
    mapped = tasks["load"]
    assert mapped.map is not None
    assert mapped.map.over == "tasks['extract'].result['rows']"
    assert mapped.when == "tasks['extract'].result['any\\'s']"
    assert mapped.task == PythonTask(
        target="tests.unit.test_python_dags:load",
        args=("${{ item }}",),
        kwargs={"mode": "${{ input['mode'] }}"},
        isolation="inline",
    )
    again = tasks["load-2"].task
    assert isinstance(again, PythonTask)
    assert again.args == (
        ["${{ tasks['extract'].result['rows'][0] }}", {"k": "${{ tasks['extract'].state }}"}],
    )
    assert tasks["other"].dag is not None
    assert tasks["other"].dag.input == {"n": "${{ tasks['load'].result }}"}
    out = tasks["report"].task
    assert isinstance(out, PythonTask)
    assert out.isolation == "process"
    hidden = {spec.job_id: spec for spec in specs}
    assert hidden["etl/load"].task == mapped.task
    assert hidden["etl/extract"].retry.max_retries == 2
    assert hidden["etl/extract"].timeout_s == 300.0
    assert {(specs[one.number].job_id, one.inline) for one in called} == {
        ("etl/extract", True),
        ("etl/load", True),
        ("etl/load-2", True),
        ("etl/report", False),
    }
    assert specs == etl.parts("default")[0]


def test_outside_of_a_body_a_task_is_its_function():
    assert extract(None) == {"rows": [1, 2]}
    with pytest.raises(TypeError, match="body of a @dag"):
        wait("w", signal="s")


def test_what_a_run_will_have_is_not_known_while_it_is_drawn():
    @dag("d")
    def looks():
        if extract():
            load(1)

    @dag("d")
    def goes():
        for row in extract():
            load(row)

    with pytest.raises(TypeError, match="compared here: use `when=`"):
        assert item == 3
    with pytest.raises(TypeError, match="use `when=`"):
        looks.parts("default")
    with pytest.raises(TypeError, match="use `map=`"):
        goes.parts("default")


def test_what_is_wrong_is_told_as_of_a_file():
    @dag("d", on_failure="never")
    def wrong():
        extract.options(task_id="a", timeout="soon")()

    with pytest.raises(InvalidError) as caught:
        wrong.parts("default")
    assert [problem.path for problem in caught.value.problems] == [
        ("on_failure",),
        ("tasks", 0, "timeout"),
    ]

    @dag("d")
    def twice():
        extract.options(task_id="a")()
        extract.options(task_id="a")()

    with pytest.raises(InvalidError, match="is a task of this DAG already"):
        twice.parts("default")
