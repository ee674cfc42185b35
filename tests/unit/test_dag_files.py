"""DAGs in job files: every field read, every error at once with its place, whatever the size."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.dags import MAX_LOST, POOL, TIMEOUT_S, DagTask, DagTaskSpec, Map, SubDag, Wait
from protocols.jobs import JobSpec
from protocols.tasks import CommandTask, HttpTask, NoTask, PythonTask
from runtime.files.dags import read_dag
from runtime.files.load import FileSet, load_texts
from runtime.files.places import Document, InvalidFileError


def load(text: str) -> FileSet:
    return load_texts([("jobs.yaml", text.encode())], source="x")


def dag(text: str) -> tuple[JobSpec, DagTask, dict[str, JobSpec]]:
    root, *tasks = (located.spec for located in load(text).jobs)
    assert isinstance(root.task, DagTask)
    assert [task.job_id for task in tasks] == [
        f"{root.job_id}/{one.task_id}" for one in root.task.tasks
    ]
    return root, root.task, {task.job_id.partition("/")[2]: task for task in tasks}


def errors(text: str) -> list[str]:
    with pytest.raises(InvalidFileError) as caught:
        load(text)
    return str(caught.value).splitlines()


def said(tasks: str, more: str = "") -> list[str]:
    """What is said of a DAG with these tasks, places left out."""
    lines = errors(f"dags:\n  - dag_id: d\n{more}    tasks:\n{tasks}")
    return [line.split(": ", 1)[1].removeprefix("dags[0].") for line in lines]


def test_a_dag_is_a_job_and_its_tasks_are_hidden_ones():
    root, task, jobs = dag("""
dags:
  - dag_id: etl
    schedule: "0 2 * * *"
    on_failure: fail_fast
    timeout: 2h
    tags: [nightly]
    defaults: {max_retries: 2, pool: heavy, env: {A: 1.10}}
    finally_task: tidy
    inputs: {properties: {day: {type: string, default: today}}}
    tasks:
      - {task_id: tidy, command: ./tidy}
      - task_id: load
        dependencies: [extract, approve]
        trigger: all_done
        when: ${{ tasks.extract.result.rows > 0 }}
        python: "etl:load"
        args: ["${{ tasks.extract.result }}"]
        max_retries: 0
      - {task_id: extract, command: 'echo ${{ input.day }}', timeout: 5m}
      - {task_id: approve, wait: {signal: go, timeout: 1d}, dependencies: [extract]}
      - {task_id: sub, dag: {dag_id: other, input: {n: '${{ item }}'}}, map: '${{ input.list }}'}
""")
    assert (root.pool, root.timeout_s, root.retry.max_lost) == (POOL, 7200.0, MAX_LOST)
    assert (task.on_failure, root.tags) == ("fail_fast", ("nightly",))
    assert [one.task_id for one in task.tasks] == ["extract", "sub", "approve", "load", "tidy"]
    by_id = {one.task_id: one for one in task.tasks}
    assert by_id["tidy"].role == "finally"
    assert by_id["extract"].references == ("input.day",)
    assert by_id["extract"].task == CommandTask(shell='echo "$RUNTIME_REF_0"', env={"A": "1.10"})
    assert by_id["load"].when == "tasks.extract.result.rows > 0"
    assert by_id["load"].trigger == "all_done"
    assert by_id["approve"].wait == Wait(signal="go", timeout_s=86_400.0)
    assert by_id["sub"].dag == SubDag(dag_id="other", input={"n": "${{ item }}"})
    assert by_id["sub"].map == Map(over="input.list")
    assert (jobs["extract"].retry.max_retries, jobs["extract"].pool) == (2, "heavy")
    assert (jobs["extract"].timeout_s, jobs["extract"].overlap) == (300.0, "allow")
    assert jobs["load"].retry.max_retries == 0
    assert jobs["load"].task == PythonTask(target="etl:load", args=("${{ tasks.extract.result }}",))
    assert jobs["approve"].task == jobs["sub"].task == NoTask()
    again = msgspec.json.decode(msgspec.json.encode(root), type=JobSpec)
    assert again == root


def test_without_a_word_a_dag_has_a_years_time():
    root, task, _ = dag("dags: [{dag_id: d, tasks: [{task_id: a, command: x}]}]")
    assert root.timeout_s == TIMEOUT_S
    assert task == DagTask(tasks=(DagTaskSpec(task_id="a", task=CommandTask(shell="x")),))


def test_references_may_stand_in_every_part_of_a_task():
    _, task, _ = dag("""
dags:
  - dag_id: d
    tasks:
      - {task_id: a.b, command: x}
      - task_id: c
        dependencies: [a.b]
        http:
          url: https://h/${{ tasks['a.b'].result }}/x
          headers: {X-Run: '${{ run.id }}'}
          body: {deep: ['${{ run.scheduled_for }}']}
      - {task_id: d, dependencies: [c], command: [cat, '${{ tasks["a.b"].state }}']}
      - {task_id: e, wait: {until: '${{ input.at }}'}}
      - {task_id: f, wait: {until: 2026-12-01T09:00:00+01:00}}
""")
    http = next(one.task for one in task.tasks if one.task_id == "c")
    assert isinstance(http, HttpTask)
    assert http.url == "https://h/${{ tasks['a.b'].result }}/x"
    assert all(one.references == () for one in task.tasks)


def test_what_a_graph_cannot_be():
    assert said("      - {task_id: a, command: x, dependencies: [b]}\n"
                "      - {task_id: b, command: x, dependencies: [a, lod]}\n"
                "      - {task_id: load, command: x}\n"
                "      - {task_id: load, command: y}\n") == [
        "tasks[0].dependencies: the tasks wait for each other in a circle: a -> b -> a",
        'tasks[1].dependencies[1]: there is no task "lod" in this DAG; did you mean "load"?',
        'tasks[3].task_id: "load" is a task of this DAG already',
    ]  # fmt: skip
    assert said("      - {task_id: a, command: x, dependencies: [a]}\n") == [
        "tasks[0].dependencies: the tasks wait for each other in a circle: a -> a"
    ]
    assert said("      - {task_id: a, command: x}\n"
                "      - {task_id: b, command: x, dependencies: [a, c]}\n"
                "      - {task_id: c, command: x, trigger: always}\n",
                "    on_failure_task: c\n    finally_task: c\n    on_success_task: e\n") == [
        'finally_task: "c" handles another end already',
        'on_success_task: there is no task "e" in this DAG',
        'tasks[1].dependencies[1]: "c" handles the end of a run: nothing can wait for it',
        "tasks[2].trigger: a task that handles the end of a run has no trigger",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("command: 'echo ${{ tasks.b.result }}'", "need not have ended before"),
        ("command: 'echo ${{ tasks.a.result }}'", "cannot refer to itself"),
        ("command: 'echo ${{ tasks.bb.result }}'", 'no task "bb" in this DAG; did you mean "b"?'),
        ("command: 'echo ${{ tasks.b }}'", "tasks.b.result and tasks.b.state"),
        ("command: 'echo ${{ run.nothing }}'", "run.id and run.scheduled_for"),
        ("command: 'echo ${{ item }}'", "only a task with `map` has an item"),
        ("command: x, map: '${{ item }}'", "here is no item yet"),
        ("command: 'echo ${{ nope }}'", '"nope" is not one of'),
        ("command: 'echo ${{ 1 + }}'", "it ends"),
        ("command: 'echo ${{ 1'", "has no `}}`"),
        ("command: \"echo '${{ run.id }}'\"", "single quotes"),
        ("command: [sh, -c, 'echo ${{ run.id }}']", "read as a program"),
        ("command: ['${{ run.id }}']", "the program that is run"),
        ("command: x, cwd: '${{ run.id }}'", "cannot stand here"),
        ("command: x, when: 'input.a'", "is not one ${{ ... }}"),
        ("command: x, when: '${{ input.a }} b'", "is not one ${{ ... }}"),
        ("command: x, map: {over: '${{ input.a }}', limit: 0}", "from 1 to 10000"),
        ("command: x, map: {limit: 1}", "needs what it goes `over`"),
        ("wait: {}", "one of them"),
        ("wait: {signal: a, until: 2026-01-01T00:00:00Z}", "one of them"),
        ("wait: {until: 2026-01-01T00:00:00}", "needs its offset"),
        ("wait: {until: soon}", "is not an instant"),
        ("wait: {signal: a}, pool: p", "no worker runs a wait"),
        ("wait: {signal: a}, map: '${{ input }}'", "cannot be mapped"),
        ("wait: {signal: a}, command: x", "here is command and wait"),
        ("trigger: always", "here is none"),
        ("dag: {input: 1}", "needs its dag_id"),
        ("command: x, schedule: '@daily'", "begins with its DAG"),
        ("command: x, enabled: false", "give it a `when`"),
        ("command: x, trigger: all_success", 'did you mean "all_succeeded"?'),
        ("command: x, guarantee: at_most_once, max_retries: 1", "at most once has no retries"),
        ("command: x, tigger: always", 'did you mean "trigger"?'),
    ],
)
def test_what_a_task_cannot_be(task, words):
    (line,) = said(f"      - {{task_id: a, {task}}}\n      - {{task_id: b, command: x}}\n")
    assert words in line
    assert line.startswith("tasks[0]")


def test_what_a_dag_cannot_be():
    one = "      - {task_id: a, command: x}\n"
    assert said(one, "    max_retries: 3\n    defaults: {timeout: soon, task_id: b, tmeout: 1}\n"
                "    on_failure: explode\n    tsks: []\n") == [
        "max_retries: `max_retries` is of a task: put it there, or in `defaults`",
        said(one, "    defaults: {timeout: soon}\n")[0],
        "defaults.task_id: each task says this for itself",
        'defaults.tmeout: there is no field "tmeout"; did you mean "timeout"?',
        'on_failure: "explode" is not one of fail_fast, fail_downstream, continue',
        'tsks: there is no field "tsks"; did you mean "tasks"?',
    ]  # fmt: skip
    assert said(one, "    schedule: '@daily'\n    inputs: {required: [day], type: object}\n") == [
        (
            'inputs: the input needs "day", and a run by schedule or dependency has no input: '
            "give it a default"
        )
    ]
    assert said(one, "    inputs: {properties: {a: {pattern: x}}}\n")[0].startswith(
        'inputs.properties.a.pattern: there is no keyword "pattern"'
    )
    assert errors("dags: [{dag_id: d, tasks: []}, {tasks: 3}, 7]\ndagz: 1\n") == [
        "jobs.yaml:1:27: dags[0].tasks: a DAG needs a list of tasks",
        "jobs.yaml:1:32: dags[1]: a DAG needs its dag_id",
        "jobs.yaml:1:40: dags[1].tasks: a DAG needs a list of tasks",
        "jobs.yaml:1:44: dags[2]: 7 is not a DAG: a mapping of fields",
        "jobs.yaml:1:44: dags[2]: a DAG needs a list of tasks",
        'jobs.yaml:2:1: dagz: there is no field "dagz"; did you mean "dags"?',
    ]


def test_what_would_be_ignored_is_refused():
    text = """
dags:
  - dag_id: runs
    tasks: [{task_id: a, command: x}]
  - dag_id: d
    inputs: {type: object, default: {a: 1}}
    tasks:
      - task_id: a
        http:
          url: http://x
          body: {list: [{"${{ run.id }}": 1}]}
          expect: {body_contains: "${{ run.id }}"}
      - {task_id: b, dag: {dag_id: e, input: {"${{ run.id }}": 1}}}
      - {task_id: c, python: "a:b", args: [{"${{ run.id }}": 1}]}
"""
    said = [line.split(": ", 2)[1:] for line in errors(text)]
    assert [place for place, _ in said] == [
        "dags[0].dag_id",
        "dags[1].inputs.default",
        "dags[1].tasks[0].http.body.list[0].${{ run.id }}",
        "dags[1].tasks[0].http.expect.body_contains",
        "dags[1].tasks[1].dag.input.${{ run.id }}",
        "dags[1].tasks[2].args[0].${{ run.id }}",
    ]


def test_jobs_and_dags_share_their_names():
    text = "jobs: [{job_id: a, command: x}]\ndags: [{dag_id: a, tasks: [{task_id: t, command: x}]}]"
    (line,) = errors(text)
    assert 'jobs[0].job_id: "a" stands at jobs.yaml:2:17 already' in line


def many(count: int, task) -> str:
    return "dags:\n  - dag_id: d\n    tasks:\n" + "".join(
        f"      - {{task_id: t{i}, {task(i)}}}\n" for i in range(count)
    )


def test_ten_thousand_tasks_deep_and_wide():
    deep = many(
        10_000,
        lambda i: (
            f"command: 'echo ${{{{ tasks.t0.state }}}}', dependencies: [t{i - 1}]"
            if i
            else "command: x"
        ),
    )
    assert len(load(deep).jobs) == 10_001
    (line,) = errors(deep.replace("t0, command: x", "t0, command: x, dependencies: [t9999]"))
    assert "t0 -> t9999 -> t9998" in line
    assert "(9,981 more)" in line
    assert len(errors(deep.replace("dependencies: [t", "dependencies: [q"))) == 19_998
    wide = many(
        10_000,
        lambda i: (
            "command: x"
            + (f", dependencies: [{', '.join(f't{n}' for n in range(i))}]" if i == 9_999 else "")
        ),
    )
    assert len(load(wide).jobs) == 10_001


def test_dependencies_are_bounded_in_all():
    ends = ", ".join(f"t{n}" for n in range(500))
    layers = [f"{{task_id: t{n}, command: x}}" for n in range(500)]
    layers += [f"{{task_id: a, command: x, dependencies: &all [{ends}]}}"]
    layers += [f"{{task_id: b{n}, command: x, dependencies: *all}}" for n in range(400)]
    (line,) = errors(f"dags: [{{dag_id: d, tasks: [{', '.join(layers)}]}}]")
    assert "at most 200,000 dependencies; here are 200,500" in line
    assert load(f"dags: [{{dag_id: d, tasks: [{', '.join(layers[:-1])}]}}]").jobs


RAW = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.sampled_from(["a", "b", "${{ tasks.a.result }}", "${{", "", "x y", "@daily"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ["task_id", "command", "python", "http", "url", "wait", "signal", "until", "dag",
                 "dag_id", "input", "map", "over", "when", "trigger", "dependencies", "timeout",
                 "env", "tasks", "defaults", "inputs", "properties", "finally_task", "zzz"]
            ),
            inner,
            max_size=5,
        ),
    ),
    max_leaves=20,
)  # fmt: skip


@given(RAW)
def test_a_dag_is_read_or_refused_whatever_it_is(raw):
    problems = []
    found = read_dag(raw, ("dags", 0), problems, tenant="t", calendars={})
    assert bool(found) != bool(problems)
    assert all(str(Document("f", None, {}).locate(problem)) for problem in problems)
