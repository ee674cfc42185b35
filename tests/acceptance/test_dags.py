"""DAGs as users write and run them: failures, triggers, data, waits, and every way to steer."""

import json
import textwrap
from collections.abc import Iterator

import pytest

from tests.support.embedded import wait_until
from tests.support.folders import walkable_folder
from tests.support.node import NodeProcess

pytestmark = pytest.mark.postgres

FAILS = "exit 3"


@pytest.fixture(scope="module")
def node() -> Iterator[NodeProcess]:
    with walkable_folder() as folder, NodeProcess(folder / "data") as running:
        yield running


class Dag:
    """One DAG on the node, and its last run."""

    def __init__(self, node: NodeProcess, folder, text: str) -> None:
        self.node = node
        file = folder / "dag.yaml"
        file.write_text(textwrap.dedent(text))
        applied = node.run("apply", str(file), "--source", folder.name, "--json").ok().json()
        (self.dag_id,) = applied["created"]
        self.run_id = ""

    def begin(self, *options: str) -> None:
        """Ask for a run, and go on."""
        self.run_id = (
            self.node.run("trigger", self.dag_id, "--json", *options).ok().json()["run_id"]
        )

    def run(self, *options: str) -> dict[str, str]:
        """Run it to its end; each task's state, with its reason where it has one."""
        self.begin(*options)
        return self.ended()

    def ended(self) -> dict[str, str]:
        """Wait for the run's end; each task's state, with its reason where it has one."""
        wait_until(lambda: self.state() in {"succeeded", "failed", "cancelled"}, "the run ends")
        return self.tasks()

    def shown(self) -> dict:
        """The run as `dags runs show` has it."""
        return self.node.run("dags", "runs", "show", self.run_id, "--json").ok().json()

    def state(self) -> str:
        """Of the run."""
        return self.shown()["state"]

    def tasks(self) -> dict[str, str]:
        """Each task's state, with its reason where it has one."""
        return {
            task["task_id"]: f"{task['state']}: {task['reason']}"
            if task["state"] != "succeeded" and task["reason"]
            else task["state"]
            for task in self.shown()["tasks"]
        }

    def task(self, name: str) -> dict:
        """One task as it is shown."""
        return next(task for task in self.shown()["tasks"] if task["task_id"] == name)

    def until(self, name: str, state: str) -> None:
        """Wait until a task has come so far."""
        wait_until(lambda: self.task(name)["state"] == state, f"{name} is {state}")

    def printed(self, name: str) -> str:
        """What a task printed."""
        return self.node.run("executions", "logs", self.task(name)["execution_id"]).ok().out

    def steer(self, *words: str) -> None:
        """A command of `runtime dags`."""
        self.node.run("dags", *words).ok()


@pytest.fixture
def dag(node: NodeProcess, tmp_path):
    return lambda text: Dag(node, tmp_path, text)


def of(policy: str) -> str:
    return f"""
    dags:
      - dag_id: policy-{policy.replace("_", "-")}
        on_failure: {policy}
        tasks:
          - {{task_id: bad, command: "{FAILS}"}}
          - {{task_id: after, command: "true", dependencies: [bad]}}
          - {{task_id: last, command: "true", dependencies: [after]}}
          - {{task_id: slow, command: "sleep 2"}}
          - {{task_id: beside, command: "true", dependencies: [slow]}}
    """


def test_fail_downstream_skips_what_can_no_longer_run_and_names_the_cause(dag):
    one = dag(of("fail_downstream"))
    assert one.run() == {
        "bad": "failed: failed",
        "after": "skipped: upstream_failed",
        "last": "skipped: upstream_failed",
        "slow": "succeeded",
        "beside": "succeeded",
    }
    assert one.state() == "failed"
    assert (one.task("after")["cause"], one.task("last")["cause"]) == ("bad", "bad")


def test_fail_fast_cancels_what_runs(dag):
    one = dag(of("fail_fast"))
    states = one.run()
    assert (states["bad"], one.state()) == ("failed: failed", "failed")
    assert states["slow"].startswith(("cancelled", "skipped"))
    assert states["beside"].startswith("skipped")
    assert states["after"].startswith("skipped")


def test_continue_runs_everything_and_the_run_has_failed_all_the_same(dag):
    one = dag(of("continue"))
    states = one.run()
    assert {name for name, state in states.items() if state == "succeeded"} == {
        *("after", "last", "slow", "beside")
    }
    assert one.state() == "failed"


@pytest.mark.parametrize(
    ("trigger", "good", "mixed", "bad"),
    [
        ("all_succeeded", True, False, False),
        ("all_done", True, True, True),
        ("one_succeeded", True, True, False),
        ("one_failed", False, True, True),
        ("none_failed", True, False, False),
        ("always", True, True, True),
    ],
)
def test_each_trigger_runs_its_task_when_it_says(dag, trigger, good, mixed, bad):
    one = dag(f"""
    dags:
      - dag_id: trigger-{trigger.replace("_", "-")}
        tasks:
          - {{task_id: yes-1, command: "true"}}
          - {{task_id: yes-2, command: "true"}}
          - {{task_id: no-1, command: "{FAILS}"}}
          - {{task_id: no-2, command: "{FAILS}"}}
          - {{task_id: good, command: "true", dependencies: [yes-1, yes-2], trigger: {trigger}}}
          - {{task_id: mixed, command: "true", dependencies: [yes-1, no-1], trigger: {trigger}}}
          - {{task_id: bad, command: "true", dependencies: [no-1, no-2], trigger: {trigger}}}
    """)
    states = one.run()
    ran = {name: states[name] == "succeeded" for name in ("good", "mixed", "bad")}
    assert ran == {"good": good, "mixed": mixed, "bad": bad}, states


def test_handlers_run_at_the_end_by_how_it_went(dag):
    one = dag("""
    dags:
      - dag_id: handled
        on_success_task: cheer
        on_failure_task: mourn
        finally_task: tidy
        inputs: {type: object, properties: {code: {type: integer, default: 0}}}
        tasks:
          - {task_id: work, command: 'exit ${{ input.code }}'}
          - {task_id: cheer, command: "true"}
          - {task_id: mourn, command: "true"}
          - {task_id: tidy, command: "true"}
    """)
    well = one.run("--input", '{"code": 0}')
    assert (well["cheer"], well["tidy"], one.state()) == ("succeeded", "succeeded", "succeeded")
    assert well["mourn"].startswith("skipped")
    badly = one.run("--input", '{"code": 4}')
    assert (badly["mourn"], badly["tidy"], one.state()) == ("succeeded", "succeeded", "failed")
    assert badly["cheer"].startswith("skipped")


def test_results_are_data_and_never_what_a_shell_reads(dag, tmp_path):
    trap = tmp_path / "trap"
    value = f"$(touch {trap}) `touch {trap}` ; touch {trap} \" ' *"
    one = dag("""
    dags:
      - dag_id: data
        tasks:
          - task_id: make
            command: ["printf", "%s", '${{ tojson(input.made) }}']
          - task_id: say
            dependencies: [make]
            command: >-
              printf "<%s> %s" ${{ tasks.make.result.word }} "in ${{ tasks.make.result.n }}"
          - task_id: env
            dependencies: [make]
            command: 'printf "%s" "$WORD"'
            env: {WORD: '${{ tasks.make.result.word }}'}
    """)
    made = json.dumps({"made": {"word": value, "n": 7}})
    assert set(one.run("--input", made).values()) == {"succeeded"}, one.shown()
    assert one.printed("say").strip() == f"<{value}> in 7"
    assert one.printed("env").strip() == value
    assert not trap.exists()


def test_a_condition_that_is_false_skips(dag):
    one = dag("""
    dags:
      - dag_id: conditional
        tasks:
          - {task_id: big, command: "true", when: '${{ input.size > 10 }}'}
          - {task_id: small, command: "true", when: '${{ input.size <= 10 }}'}
    """)
    states = one.run("--input", '{"size": 11}')
    assert (states["big"], states["small"]) == ("succeeded", "skipped: condition")
    assert one.state() == "succeeded"


def test_a_task_is_mapped_over_a_list_with_a_limit_on_how_many_at_once(dag):
    one = dag("""
    dags:
      - dag_id: mapped
        tasks:
          - task_id: list
            command: ["printf", "%s", '[1, 2, 3, 4, 5]']
          - task_id: each
            dependencies: [list]
            map: {over: '${{ tasks.list.result }}', parallelism: 2}
            command: 'echo ${{ item }}'
          - task_id: after
            dependencies: [each]
            command: 'printf "%s" ${{ length(tasks.each.result) }}'
    """)
    assert set(one.run().values()) == {"succeeded"}, one.shown()
    each = one.task("each")
    assert each["item_states"] == {"succeeded": 5}
    spans = sorted((item["started_at"], item["finished_at"]) for item in each["items"])
    for at, _ in spans:
        assert sum(begun <= at < ended for begun, ended in spans) <= 2
    assert one.printed("after").strip() == "5"


def test_a_run_waits_for_a_signal_without_a_slot_and_goes_on_with_its_payload(dag):
    one = dag("""
    dags:
      - dag_id: approval
        tasks:
          - {task_id: approve, wait: {signal: approved, timeout: 1h}}
          - task_id: ship
            dependencies: [approve]
            command: 'printf "%s" ${{ tasks.approve.result.by }}'
    """)
    one.begin()
    one.until("approve", "waiting")
    running = one.node.run("executions", "--state", "running", "--json").ok().json()
    assert [row for row in running if row["task_id"] is not None] == []
    one.steer("signal", one.run_id, "approved", "--payload", '{"by": "ann"}')
    assert set(one.ended().values()) == {"succeeded"}
    assert one.printed("ship").strip() == "ann"


def test_a_signal_that_does_not_come_fails_its_task(dag):
    one = dag("""
    dags:
      - dag_id: impatient
        tasks:
          - {task_id: approve, wait: {signal: approved, timeout: 1s}}
          - {task_id: ship, command: "true", dependencies: [approve]}
    """)
    states = one.run()
    assert states == {"approve": "failed: timeout", "ship": "skipped: upstream_failed"}


def test_a_dag_has_a_timeout_of_its_own(dag):
    one = dag("""
    dags:
      - dag_id: bounded
        timeout: 2s
        tasks:
          - {task_id: long, command: "sleep 60"}
          - {task_id: never, command: "true", dependencies: [long]}
    """)
    states = one.run()
    assert one.state() == "failed"
    assert states["long"].startswith("cancelled")
    assert states["never"].startswith("skipped")


def test_a_run_is_cancelled(dag):
    one = dag("""
    dags:
      - dag_id: cancelled
        tasks:
          - {task_id: long, command: "sleep 60"}
          - {task_id: never, command: "true", dependencies: [long]}
    """)
    one.begin()
    one.until("long", "running")
    one.steer("runs", "cancel", one.run_id)
    states = one.ended()
    assert one.state() == "cancelled"
    assert states["long"].startswith("cancelled")
    assert not states["never"].startswith("succeeded")


def test_a_paused_run_begins_nothing_until_it_is_resumed(dag, tmp_path):
    gate = tmp_path / "gate"
    one = dag(f"""
    dags:
      - dag_id: paused
        tasks:
          - {{task_id: first, command: "while [ ! -e {gate} ]; do sleep 0.05; done"}}
          - {{task_id: second, command: "true", dependencies: [first]}}
    """)
    one.begin()
    one.until("first", "running")
    one.steer("runs", "pause", one.run_id)
    gate.touch()
    one.until("first", "succeeded")
    assert one.state() == "paused"
    assert one.task("second")["execution_id"] is None
    one.steer("runs", "resume", one.run_id)
    assert set(one.ended().values()) == {"succeeded"}


def test_what_failed_is_retried_and_what_succeeded_is_not_run_again(dag, tmp_path):
    mended, count = tmp_path / "mended", tmp_path / "count"
    one = dag(f"""
    dags:
      - dag_id: mended
        tasks:
          - {{task_id: first, command: "echo x >> {count}"}}
          - {{task_id: broken, command: "test -e {mended}", dependencies: [first]}}
          - {{task_id: after, command: "true", dependencies: [broken]}}
    """)
    assert one.run() == {
        "first": "succeeded",
        "broken": "failed: failed",
        "after": "skipped: upstream_failed",
    }
    one.steer("retry", one.run_id, "--task", "first", "--downstream")
    wait_until(lambda: count.read_text() == "x\nx\n", "the first task runs again")
    assert one.ended()["broken"] == "failed: failed"
    mended.touch()
    one.steer("retry", one.run_id, "--failed")
    assert set(one.ended().values()) == {"succeeded"}
    assert (one.state(), count.read_text()) == ("succeeded", "x\nx\n")


def test_a_replayed_dead_letter_is_the_run_and_no_task_beside_it(dag, tmp_path):
    mended, count = tmp_path / "mended", tmp_path / "count"
    one = dag(f"""
    dags:
      - dag_id: replayed
        tasks:
          - {{task_id: broken, command: "echo x >> {count}; test -e {mended}"}}
    """)
    assert one.run() == {"broken": "failed: failed"}
    task = one.task("broken")["execution_id"]
    refused = one.node.run("executions", "retry", task)
    assert (refused.code, "a task of a DAG's run" in refused.err) == (1, True)
    mended.touch()
    one.node.run("dead-letters", "replay", "--all").ok()
    wait_until(lambda: one.state() == "succeeded", "the run succeeds")
    assert count.read_text() == "x\nx\n"


def test_a_run_that_nobody_asked_for_by_hand_has_its_defaults_too(dag):
    one = dag("""
    dags:
      - dag_id: defaulted
        schedule: "@every 1s"
        inputs: {type: object, properties: {word: {type: string, default: hello}}}
        tasks:
          - {task_id: say, command: 'printf "%s" ${{ input.word }}'}
    """)

    def runs():
        return one.node.run("dags", "runs", "list", "defaulted", "--json").ok().json()

    wait_until(lambda: any(run["state"] == "succeeded" for run in runs()), "one ran by itself")
    one.run_id = next(run["run_id"] for run in runs() if run["state"] == "succeeded")
    assert one.printed("say").strip() == "hello"
    one.node.run("jobs", "pause", "defaulted").ok()


def test_a_task_is_marked_by_hand_and_the_audit_says_who_and_why(dag):
    one = dag("""
    dags:
      - dag_id: marked
        tasks:
          - {task_id: broken, command: "exit 3"}
          - {task_id: after, command: "true", dependencies: [broken]}
    """)
    one.run()
    one.steer("mark", one.run_id, "broken", "succeeded", "--reason", "done by hand")
    assert one.ended() == {"broken": "succeeded", "after": "succeeded"}
    assert one.task("broken")["marked_by"]


def test_a_dag_is_a_task_of_another(dag):
    inner = dag("""
    dags:
      - dag_id: inner
        tasks:
          - {task_id: say, command: 'printf "%s" ${{ input.word }}'}
    """)
    outer = Dag(
        inner.node,
        inner_folder(inner),
        """
    dags:
      - dag_id: outer
        tasks:
          - {task_id: call, dag: {dag_id: inner, input: {word: hi}}}
          - {task_id: after, command: "true", dependencies: [call]}
    """,
    )
    assert set(outer.run().values()) == {"succeeded"}
    runs = inner.node.run("dags", "runs", "list", "inner", "--json").ok().json()
    assert [run["parent_run_id"] for run in runs] == [outer.run_id]


def inner_folder(one: Dag):
    """A folder beside, so that the second file is a source of its own."""
    folder = one.node.data_dir.parent / "outer"
    folder.mkdir()
    return folder


def test_days_are_backfilled_a_few_at_a_time(dag):
    one = dag("""
    dags:
      - dag_id: daily
        schedule: "0 3 * * *"
        tasks:
          - {task_id: work, command: 'printf "%s" ${{ run.scheduled_for }}'}
    """)
    one.node.run(
        *("backfill", "daily", "--from", "2026-01-01T00:00:00Z", "--to", "2026-01-05T00:00:00Z"),
        *("--parallel", "2"),
    ).ok()

    def runs():
        return one.node.run("dags", "runs", "list", "daily", "--json").ok().json()

    wait_until(lambda: [run["state"] for run in runs()] == ["succeeded"] * 4, "four days ran")
    assert sorted(run["scheduled_for"][:10] for run in runs()) == [
        *("2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04")
    ]
    spans = sorted((run["started_at"], run["finished_at"]) for run in runs())
    for at, _ in spans:
        assert sum(begun <= at < ended for begun, ended in spans) <= 2
