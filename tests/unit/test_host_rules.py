"""The rules under the hosts that need no process: frames, bounds, environment, deadlines."""

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.jobs import CommandTask
from protocols.ports.executor import Assignment, Given
from runtime.hosts import processes
from runtime.hosts.command import last_line, printed_result
from runtime.hosts.deadlines import Deadlines
from runtime.hosts.environment import (
    TASK_VARIABLES,
    VARIABLE_BYTES_MAX,
    base_environment,
    task_values,
)
from runtime.hosts.frames import FRAME_BYTES_MAX, HEADER, FrameBuffer, FrameError, frame
from runtime.hosts.output import BoundedOutput
from runtime.hosts.work import Work


@given(st.lists(st.binary(max_size=50)), st.lists(st.integers(1, 40), min_size=1))
def test_frames_come_out_as_they_went_in_however_the_stream_is_cut(bodies, sizes):
    stream = b"".join(frame(body) for body in bodies)
    buffer, found, at, turn = FrameBuffer(), [], 0, 0
    while at < len(stream):
        size = sizes[turn % len(sizes)]
        found += buffer.feed(stream[at : at + size])
        at, turn = at + size, turn + 1
    assert found == bodies


def test_a_length_that_no_peer_sends_is_refused():
    with pytest.raises(FrameError):
        FrameBuffer().feed(HEADER.pack(FRAME_BYTES_MAX + 1))


@given(st.lists(st.binary(max_size=60), max_size=60), st.integers(2, 64))
def test_output_keeps_both_ends_and_counts_the_rest(pieces, most):
    output = BoundedOutput(most)
    for piece in pieces:
        output.write(piece)
    whole = b"".join(pieces)
    head, tail, omitted = output.parts()
    assert len(output) == len(whole) == len(head) + len(tail) + omitted
    assert whole.startswith(head)
    assert whole.endswith(tail)
    assert len(head) <= most // 2
    assert len(tail) <= most // 2
    assert omitted == max(0, len(whole) - 2 * (most // 2))


def test_many_small_prints_cost_no_more_than_their_bound():
    output = BoundedOutput(1024)
    for _ in range(100_000):
        output.write(b"x")
    assert len(output._tail) <= 1025
    assert output.parts() == (b"x" * 512, b"x" * 512, 100_000 - 1024)


def test_only_the_allow_list_is_taken_and_the_interpreter_comes_first(monkeypatch):
    monkeypatch.setattr("sys.executable", "/venv/bin/python")
    seen = base_environment({"PATH": "/bin:/venv/bin", "HOME": "/root", "SECRET": "x"})
    assert seen == {"PATH": "/venv/bin:/bin", "HOME": "/root"}
    assert base_environment({})["PATH"].startswith("/venv/bin:")


def values(**fields):
    given = {
        "execution_id": "e", "token": 1, "tenant": "t", "job_id": "j", "attempt": 1,
        "scheduled_for_ns": 0, "url": "u", "given": None, "checkpoint": None,
    }  # fmt: skip
    return task_values(**{**given, **fields})


def test_what_is_too_large_for_a_variable_goes_into_a_file():
    edge, over = b"1" * VARIABLE_BYTES_MAX, b"1" * (VARIABLE_BYTES_MAX + 1)
    variables, files = values(given=edge, checkpoint=over)
    assert variables["RUNTIME_INPUT"] == edge.decode()
    assert files == {"RUNTIME_CHECKPOINT_FILE": over}
    assert "RUNTIME_CHECKPOINT" not in variables


def test_a_task_of_a_dag_finds_its_run_and_what_it_refers_to():
    dag = Given(run_id="r", task_id="t", item=b"[1]", number=0, refs=("$(rm -rf x)", "2"))
    variables, _ = values(dag=dag)
    assert variables["RUNTIME_REF_0"] == "$(rm -rf x)"
    assert variables["RUNTIME_REF_1"] == "2"
    assert (variables["RUNTIME_DAG_RUN_ID"], variables["RUNTIME_TASK_ID"]) == ("r", "t")
    assert variables["RUNTIME_ITEM"] == "[1]"


@pytest.mark.parametrize("value", ["a\0b", "1" * (VARIABLE_BYTES_MAX + 1)])
def test_what_no_variable_can_hold_is_said(value):
    with pytest.raises(ValueError, match="a value that its command refers to"):
        values(dag=Given(run_id="r", task_id="t", refs=(value,)))


@pytest.mark.parametrize(
    ("head", "tail", "omitted", "result"),
    [
        (b"so\n[1, 2]\n", b"", 0, b"[1, 2]"),
        (b"so\n[1,", b" 2]\n\n", 0, b"[1, 2]"),
        (b"so\nnot json\n", b"", 0, None),
        (b"", b"", 0, None),
        (b"x" * 9, b"\n7", 100, b"7"),
        (b"x" * 9, b"345", 100, None),
        (b'"\xff"', b"", 0, None),
    ],
)
def test_a_commands_result_is_its_last_line_where_that_is_json(head, tail, omitted, result):
    assert printed_result(head, tail, omitted) == result


def test_every_variable_of_a_task_is_known_to_be_one():
    variables, files = values(given=b"1" * 200_000, checkpoint=b"1" * 200_000)
    more, _ = values(given=b"1", checkpoint=b"2")
    assert variables.keys() | files.keys() | more.keys() <= TASK_VARIABLES


@pytest.mark.parametrize(
    ("printed", "line"),
    [
        (b"", ""),
        (b"\n\n", ""),
        (b"one\ntwo\n\n", "two"),
        (b"one\r\ntwo\xff", "two\ufffd"),
        (b"x" * 9000, "x" * 300),
    ],
)
def test_the_last_line_that_says_anything(printed, line):
    assert last_line(printed) == line


def test_a_process_knows_itself_by_more_than_its_number():
    import os

    assert processes.started(os.getpid())
    assert processes.started(2**22 + 1) == ""
    assert os.getpid() in {row.pid for row in processes.table()}
    assert os.getpid() not in processes.family(os.getpid(), None)


def work(token: int, timeout_s: float) -> Work:
    assignment = Assignment(
        id=token, execution_id="e", tenant="t", job_id="j", version=1, attempt=1,
        fencing_token=token, scheduled_for_ns=0, task=CommandTask(shell=":"), timeout_s=timeout_s,
    )  # fmt: skip
    return Work(assignment, None)


@pytest.mark.asyncio
async def test_deadlines_come_in_order_and_only_for_what_is_left():
    loop = asyncio.get_running_loop()
    due, over = [], asyncio.Event()

    def on_due(one: Work, now: float) -> None:
        due.append(one.token)
        if one.token == 4:
            over.set()

    deadlines = Deadlines(on_due)
    works = [work(token, timeout_s) for token, timeout_s in enumerate([0.03, 0.01, 0.01, 0.02])]
    now = loop.time()
    for one in works:
        deadlines.add(one, one.assignment.timeout_s, now)
    deadlines.discard(works[2])
    last = work(4, 0.04)
    deadlines.add(last, 0.04, now)
    await over.wait()
    assert due == [1, 3, 0, 4]
    assert loop.time() >= now + 0.04
    deadlines.close()


@pytest.mark.asyncio
async def test_deadlines_of_very_many_cost_little_and_are_forgotten():
    deadlines = Deadlines(lambda *_: None)
    begin = time.process_time()
    for token in range(50_000):
        one = work(token, 3600.0)
        deadlines.add(one, 3600.0, 0.0)
        deadlines.discard(one)
    assert time.process_time() - begin < 30
    assert sum(len(lane) for lane in deadlines._lanes.values()) == 0
    deadlines.close()


def test_the_contexts_are_what_users_annotate():
    import inspect

    from protocols import task_context
    from runtime.hosts.child import contexts

    for promised, built in (
        (task_context.TaskContext, contexts.TaskContext),
        (task_context.SyncTaskContext, contexts.SyncContext),
    ):
        names = {name for name in dir(promised) if not name.startswith("_")}
        assert names == {name for name in dir(built) if not name.startswith("_")}
        for name in ("save", "heartbeat", "emit", "once"):
            ours, theirs = getattr(built, name), getattr(promised, name)
            assert inspect.signature(ours) == inspect.signature(theirs)
            assert inspect.iscoroutinefunction(ours) == inspect.iscoroutinefunction(theirs)


def test_a_pipe_with_nothing_in_it_has_not_ended():
    import os

    from runtime.hosts.units import Unit
    from runtime.hosts.wire import StartUnit

    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    unit = Unit(StartUnit(1, ("x",), {}, "/", {}, 1024), 2**22 + 1, reader, ())
    assert unit.read() is None
    os.write(writer, b"abc")
    assert unit.read() == 3
    unit.drain()
    assert unit.read() is None
    os.close(writer)
    assert unit.read() == 0
    unit.release()
    assert unit.output.parts() == (b"abc", b"", 0)


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("runtime.hosts.guarding", {"asyncio", "anyio", "psutil", "asyncpg", "httpx", "litestar"}),
        ("runtime.hosts.child.main", {"anyio", "psutil", "asyncpg", "httpx", "structlog", "click"}),
    ],
)
def test_children_import_little(module, heavy):
    """A warm process costs what it imports, a hundred times over."""
    import json
    import subprocess
    import sys

    line = f"import sys, json, {module}; print(json.dumps(sorted(sys.modules)))"
    printed = subprocess.run([sys.executable, "-c", line], check=True, capture_output=True).stdout
    assert not heavy & set(json.loads(printed))
