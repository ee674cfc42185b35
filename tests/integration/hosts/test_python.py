"""Python tasks: what `ctx` gives, how results and failures come back; shared and process alike."""

import json
import signal
import time

import pytest

from protocols.jobs import PythonTask
from protocols.ports.executor import Outcome, Request, Started
from tests.integration.hosts.house import House, eventually, lives, process, shared, text

pytestmark = pytest.mark.asyncio

FACTS = """
def facts(ctx):
    return {
        "execution_id": ctx.execution_id, "job_id": ctx.job_id, "tenant": ctx.tenant,
        "scheduled_for": ctx.scheduled_for.isoformat(), "attempt": ctx.attempt,
        "fencing_token": ctx.fencing_token, "input": ctx.input, "checkpoint": ctx.checkpoint,
        "cancelled": ctx.cancelled, "lock": hasattr(ctx, "lock"),
    }
async def facts_async(ctx):
    return facts(ctx)
"""

SAYING = """
import asyncio, logging, sys, threading
def say(ctx, n=1):
    print("printed", n); print("complained", file=sys.stderr); logging.info("logged")
    logging.getLogger("other").warning("warned"); ctx.log.info("to ctx"); sys.stdout.flush()
async def say_async(ctx, n=1):
    await asyncio.sleep(0.01)
    say(ctx, n)
    await asyncio.to_thread(print, "from a thread", n)
    sys.stdout.buffer.write(b"bytes\\n")
"""

ENDS = """
import asyncio, ctypes, os, sys, time
class Odd(Exception):
    def __str__(self): raise RuntimeError
def value(ctx, v): return v
async def value_async(ctx, v): return v
def opaque(): return object()
async def opaque_async(): return object()
def big(ctx, n): return "x" * n
async def big_async(ctx, n): return "x" * n
def fail(): raise ValueError("not today")
async def fail_async(): raise ValueError("not today")
def odd(): raise Odd
async def odd_async(): raise Odd
def leave(ctx, code): sys.exit(code)
async def leave_async(ctx, code): sys.exit(code)
def interrupted(): raise KeyboardInterrupt
async def interrupted_async(): raise KeyboardInterrupt
def deeper(n): return deeper(n + 1)
def deep(): return deeper(0)
async def deep_async(): return deep()
async def cancels_itself(): raise asyncio.CancelledError
async def nothing(): pass
"""


def both(function, *args, **kwargs):
    return [process(function, *args, **kwargs), shared(f"{function}_async", *args, **kwargs)]


@pytest.mark.parametrize("task", both("facts"))
async def test_a_context_tells_the_facts(house: House, task):
    house.module(FACTS)
    outcome = await house.run(
        task, input=b'{"day": 3}', checkpoint=b'["x"]', attempt=4, execution_id="0199-a",
        job_id="daily", fencing_token=7_000_000_007,
    )  # fmt: skip
    assert json.loads(outcome.result) == {
        "execution_id": "0199-a",
        "job_id": "daily",
        "tenant": "default",
        "scheduled_for": "2026-01-01T00:00:00.123456+00:00",
        "attempt": 4,
        "fencing_token": 7_000_000_007,
        "input": {"day": 3},
        "checkpoint": ["x"],
        "cancelled": False,
        "lock": True,
    }


@pytest.mark.parametrize("task", both("facts"))
async def test_nothing_given_is_none(house: House, task):
    house.module(FACTS)
    facts = json.loads((await house.run(task)).result)
    assert (facts["input"], facts["checkpoint"]) == (None, None)


@pytest.mark.parametrize("kind", [process, shared])
async def test_arguments_follow_the_context(house: House, kind):
    house.module("def f(ctx, a, b, *, c): return [a, b, c]\nasync def g(a): return a")
    outcome = await house.run(kind("f", 1, "two", c=[3]))
    assert (outcome.state, outcome.result) == ("succeeded", b'[1,"two",[3]]')


@pytest.mark.parametrize("kind", [process, shared])
async def test_a_function_without_parameters_is_called_without(house: House, kind):
    house.module("def f(): return 1\nasync def g(): return 2")
    assert (await house.run(kind("f"))).result == b"1"
    assert (await house.run(kind("g"))).result == b"2"


@pytest.mark.parametrize("task", both("say", 7))
async def test_what_is_printed_and_logged_is_kept(house: House, task):
    house.module(SAYING)
    lines = text(await house.run(task)).splitlines()
    assert lines[:5] == [
        "printed 7",
        "complained",
        "INFO root: logged",
        "WARNING other: warned",
        "INFO task: to ctx",
    ]
    if task.isolation == "shared":
        assert lines[5:] == ["from a thread 7", "bytes"]


async def test_output_of_many_side_by_side_is_not_mixed_up(house: House):
    house.module(SAYING)
    jobs = [house.assignment(shared("say_async", n)) for n in range(200)]
    house.executor.start(jobs)
    for n, job in enumerate(jobs):
        lines = text(await house.outcome_of(job)).splitlines()
        assert [lines[0], lines[5]] == [f"printed {n}", f"from a thread {n}"]


async def test_a_process_keeps_what_its_children_print(house: House):
    house.module("import os\ndef f(): print('before'); os.system('echo child'); print('after')")
    assert text(await house.run(process("f"))) == "before\nchild\nafter\n"
    assert text(await house.run(process("f"))) == "before\nchild\nafter\n"


@pytest.mark.parametrize("kind", [process, shared])
async def test_a_flood_is_bounded(house: House, kind):
    house.module("def f():\n  for n in range(100_000): print('0123456789')")
    output = (await house.run(kind("f"))).output
    assert len(output.head) + len(output.tail) == 64 * 1024
    assert output.omitted_bytes == 1_100_000 - 64 * 1024


@pytest.mark.parametrize("task", both("opaque"))
async def test_a_value_that_is_not_json(house: House, task):
    house.module(ENDS)
    outcome = await house.run(task)
    assert outcome.state == "failed"
    assert outcome.error.startswith("the returned object is not JSON")


@pytest.mark.parametrize("task", both("big", 300_000))
async def test_a_value_that_is_too_large(house: House, task):
    house.module(ENDS)
    outcome = await house.run(task)
    assert outcome.state == "failed"
    assert outcome.error == "the returned value has 300002 bytes as JSON, over 262144"


@pytest.mark.parametrize("task", both("fail"))
async def test_a_failure_has_its_line_and_its_traceback(house: House, task):
    house.module(ENDS)
    outcome = await house.run(task)
    assert (outcome.state, outcome.error) == ("failed", "ValueError: not today")
    printed = text(outcome)
    assert "tasks_of_test.py" in printed
    assert "ValueError: not today" in printed
    assert "runtime/hosts" not in printed


@pytest.mark.parametrize("task", both("odd"))
async def test_an_error_that_cannot_be_shown(house: House, task):
    house.module(ENDS)
    outcome = await house.run(task)
    assert (outcome.state, outcome.error) == ("failed", "Odd: (its message cannot be shown)")


@pytest.mark.parametrize("task", both("deep"))
async def test_a_bottomless_recursion(house: House, task):
    house.module(ENDS)
    outcome = await house.run(task)
    assert outcome.state == "failed"
    assert outcome.error.startswith("RecursionError")
    assert len(text(outcome)) < 64 * 1024


@pytest.mark.parametrize(
    ("code", "state", "exit_code", "error"),
    [
        (None, "succeeded", 0, None),
        (0, "succeeded", 0, None),
        (3, "failed", 3, "exit code 3"),
        ("no way", "failed", 1, "no way"),
    ],
)
async def test_exit_means_what_it_means_in_a_program(house: House, code, state, exit_code, error):
    house.module(ENDS)
    for task in both("leave", code):
        outcome = await house.run(task)
        assert (outcome.state, outcome.exit_code, outcome.error) == (state, exit_code, error)


async def test_a_keyboard_interrupt_is_a_failure_and_harms_nobody(house: House):
    house.module(ENDS)
    mate = house.begin(shared("value_async", 1))
    for task in both("interrupted"):
        assert (await house.run(task)).error == "KeyboardInterrupt"
    assert (await house.outcome_of(mate)).state == "succeeded"
    assert (await house.run(shared("value_async", 2))).result == b"2"


async def test_a_task_that_cancels_itself_failed(house: House):
    house.module(ENDS)
    outcome = await house.run(shared("cancels_itself"))
    assert (outcome.state, outcome.error) == ("failed", "CancelledError")


@pytest.mark.parametrize("isolation", ["process", "shared"])
@pytest.mark.parametrize(
    ("target", "error"),
    [
        ("no_such_module_here:f", "ModuleNotFoundError"),
        ("tasks_of_test:no_such", "AttributeError"),
        ("tasks_of_test:number", "is not a function"),
        ("broken_here:f", "SyntaxError"),
        ("leaving_here:f", "SystemExit"),
    ],
)
async def test_what_cannot_be_imported_is_handed_back(house: House, isolation, target, error):
    house.module("number = 3")
    house.module("def f(:", "broken_here")
    house.module("raise SystemExit(3)", "leaving_here")
    outcome = await house.run(PythonTask(target=target, isolation=isolation))
    assert (outcome.state, outcome.unimportable) == ("unstarted", True)
    assert error in outcome.error


async def test_the_tasks_folder_hides_no_module_of_ours(house: House):
    house.module("raise SystemExit('mine')", "runtime")
    house.module("raise SystemExit('mine')", "socket")
    house.module("import runtime.hosts, socket, os\ndef f(): return os.getcwd()")
    assert json.loads((await house.run(process("f"))).result) == str(house.folder)
    assert json.loads((await house.run(shared("f"))).result) == str(house.folder)


@pytest.mark.parametrize("isolation", ["process", "shared"])
async def test_asking_the_node(house: House, isolation):
    house.module("""
def ask(ctx):
    ctx.save({"at": 1}); ctx.heartbeat(); ctx.emit("done", [1])
    return [ctx.once("k", "1h"), ctx.once("k", 5)]
async def ask_async(ctx):
    await ctx.save({"at": 1}); await ctx.heartbeat(); await ctx.emit("done", [1])
    return [await ctx.once("k", "1h"), await ctx.once("k", 5)]
""")
    turns = iter(["first", False, "again", "first"])
    house.answers["once"] = lambda _: next(turns)
    for name in ("ask", "ask_async"):
        house.reports.clear()
        job = house.begin(PythonTask(target=f"tasks_of_test:{name}", isolation=isolation))
        outcome = await house.outcome_of(job)
        assert outcome.state == "succeeded", outcome
        asked = [(r.kind, r.value) for r in house.reports if isinstance(r, Request)]
        assert asked == [
            ("checkpoint", b'{"at":1}'),
            ("heartbeat", None),
            ("emit", b'{"event":"done","payload":[1]}'),
            ("once", b'{"key":"k","ttl_s":3600.0}'),
            ("once", b'{"key":"k","ttl_s":5.0}'),
        ]
        assert {r.fencing_token for r in house.reports} == {job.fencing_token}
    assert outcome.result == b'["again","first"]'


@pytest.mark.parametrize("isolation", ["process", "shared"])
async def test_a_refused_question_is_an_error_in_the_task(house: House, isolation):
    house.module("def f(ctx): ctx.save(1)\nasync def g(ctx): await ctx.save(1)")

    def refuse(_):
        raise ValueError("the attempt was given up for lost")

    house.answers["checkpoint"] = refuse
    for name in ("f", "g"):
        outcome = await house.run(PythonTask(target=f"tasks_of_test:{name}", isolation=isolation))
        assert outcome.error == "RuntimeError: the attempt was given up for lost"


async def test_a_start_is_told_while_it_runs(house: House):
    house.module("import asyncio\nasync def f(): await asyncio.sleep(600)")
    job = house.begin(shared("f"))
    started = await eventually(
        lambda: [r for r in house.reports if isinstance(r, Started)]
    )  # fmt: skip
    assert started[0].fencing_token == job.fencing_token
    assert abs(started[0].at_ns - time.time_ns()) < 60e9


async def test_no_ops_are_fed_and_told_in_batches(house: House):
    house.module(ENDS)
    await house.run(shared("nothing"))
    house.reports.clear()
    house.batches = 0
    jobs = [house.assignment(shared("nothing"), job_id="one") for _ in range(5_000)]
    house.executor.start(jobs)
    await eventually(lambda: not house.executor.holds())
    await eventually(lambda: len(house.reports) >= 5_000)
    assert all(isinstance(r, Outcome) and r.state == "succeeded" for r in house.reports)
    assert house.batches < 500


async def test_a_clean_process_is_used_again_and_dressed_anew(house: House):
    house.module("""
import os
def f(): pid = os.getpid(); os.environ["LEFT"] = "1"; os.chdir("/"); return pid
def g(): return [os.getpid(), "LEFT" in os.environ, os.getcwd(), os.environ["RUNTIME_EXECUTION_ID"]]
""")
    pid = json.loads((await house.run(process("f"))).result)
    outcome = await house.run(process("g"), execution_id="0199-b")
    assert json.loads(outcome.result) == [pid, False, str(house.folder), "0199-b"]


async def test_a_process_that_leaves_something_behind_is_not(house: House):
    house.module("""
import os, subprocess, threading, time
def thread():
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    return os.getpid()
def child(): subprocess.Popen(["sleep", "600"]); return os.getpid()
def fail(): print(os.getpid()); raise ValueError
def pid(): return os.getpid()
""")
    used = []
    for name in ("thread", "child", "fail"):
        outcome = await house.run(process(name))
        used.append(int(outcome.result or text(outcome).split()[0]))
    assert json.loads((await house.run(process("pid"))).result) not in used
    await eventually(lambda: not any(lives(pid) for pid in used))


async def test_a_python_task_sees_no_environment_of_the_node(house: House, monkeypatch):
    monkeypatch.setenv("RUNTIME_TOKEN", "secret")
    monkeypatch.setenv("PYTHONPATH", "/secret")
    house.module("import os\ndef f(): return sorted(os.environ)\nasync def g(): return f()")
    allowed = {"PATH", "HOME", "LANG", "TZ", "TMPDIR", "LC_CTYPE"}
    for task in (process("f"), shared("g")):
        names = set(json.loads((await house.run(task)).result)) - allowed
        assert all(name.startswith("RUNTIME_") for name in names), names
        assert "RUNTIME_TOKEN" not in names


async def test_a_child_of_a_task_is_no_deaf_one(house: House):
    """What the hosts do about signals is not inherited by what tasks start."""
    house.module("""
import subprocess
def f():
    child = subprocess.Popen(["sleep", "600"]); child.terminate(); return child.wait()
""")
    assert (await house.run(process("f"))).result == str(-signal.SIGTERM.value).encode()
    assert (await house.run(shared("f"))).result == str(-signal.SIGTERM.value).encode()


async def test_a_process_that_is_read_again_and_again_never_waits_in_a_print(house: House):
    house.module("def f():\n  for n in range(2_000): print('x' * 50)")
    pids = set()
    for _ in range(30):
        outcome = await house.run(process("f"))
        assert outcome.state == "succeeded"
        output = outcome.output
        assert len(output.head) + len(output.tail) + output.omitted_bytes == 2_000 * 51
        pids.add(outcome.started_ns)
    assert len(pids) == 30
