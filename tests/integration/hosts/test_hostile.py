"""What tasks say that no frame, text column or number holds: it harms nobody, and is told."""

import errno
import os
import signal

import anyio
import pytest

from protocols.jobs import CommandTask, PythonTask
from runtime.hosts import python_host
from tests.integration.hosts.house import House, eventually, lives, process, shared, shell

pytestmark = pytest.mark.asyncio

ODD = """
import os, signal, subprocess, sys, time
def half(): raise ValueError("half \\udcff of a pair")
async def half_async(): raise ValueError("half \\udcff of a pair")
def zero(): raise ValueError("a\\0b")
async def zero_async(): raise ValueError("a\\0b")
def leave(ctx, code): sys.exit(eval(code))
async def leave_async(ctx, code): sys.exit(eval(code))
class Odd:
    def __str__(self): raise RuntimeError
def save(ctx, n): ctx.save("x" * n)
async def save_async(ctx, n): await ctx.save("x" * n)
async def fine(): return 1
def empty(): next(iter([]))
def waits(ctx, name):
    open(name, "w").write("x")
    while not os.path.exists(name + "-go"): time.sleep(0.01)
def counts(ctx): return len(ctx.input)
async def counts_async(ctx): return len(ctx.input)
DEAF = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); "
DEAF += "time.sleep(600)"
def child():
    process = subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE)
    process.stdout.readline()
    open("child", "w").write(str(process.pid))
def leaves_a_child(): child(); return 1
def fails_beside_a_child(): child(); raise ValueError
def silent_beside_a_child(ctx):
    child()
    while not ctx.cancelled: time.sleep(0.01)
"""


def both(function: str, *args: object) -> list[PythonTask]:
    return [process(function, *args), shared(f"{function}_async", *args)]


@pytest.mark.parametrize(
    ("name", "error"),
    [("half", "ValueError: half ? of a pair"), ("zero", "ValueError: a?b")],
)
async def test_an_error_that_no_text_holds_harms_nobody(house: House, name, error):
    house.module(ODD)
    for task in both(name):
        assert (await house.run(task)).error == error
    assert (await house.run(shared("fine"))).state == "succeeded"
    assert house.executor.statistics()["hosts_killed"] == 0


async def test_a_last_line_with_a_zero_byte(house: House):
    outcome = await house.run(shell(r"printf 'a\0b'; exit 1"))
    assert outcome.error == "exit code 1: a?b"


@pytest.mark.parametrize(
    ("code", "exit_code", "error"),
    [
        ("2 ** 40", 255, f"exit code {2**40}"),
        ("10 ** 40", 255, f"exit code 1{'0' * 40}"),
        ("-1", 255, "exit code -1"),
        ("'a\\0b'", 1, "a?b"),
        ("Odd()", 1, "(its message cannot be shown)"),
    ],
)
async def test_an_exit_code_that_no_system_has(house: House, code, exit_code, error):
    house.module(ODD)
    for task in both("leave", code):
        outcome = await house.run(task)
        assert (outcome.state, outcome.exit_code, outcome.error) == ("failed", exit_code, error)


async def test_a_long_last_word_is_cut(house: House):
    house.module(ODD)
    for task in both("leave", "'x' * 70_000_000"):
        outcome = await house.run(task)
        assert outcome.state == "failed"
        assert len(outcome.error) < 3000


async def test_a_checkpoint_beyond_its_bound_is_refused_in_the_task(house: House):
    house.module(ODD)
    for task in both("save", 70 * 1024 * 1024):
        outcome = await house.run(task)
        assert outcome.state == "failed"
        assert "a checkpoint has at most 262144 bytes" in outcome.error
    for task in both("save", 262_142):
        assert (await house.run(task)).state == "succeeded"
    assert (await house.run(shared("fine"))).state == "succeeded"


async def test_a_batch_whose_inputs_fill_many_frames(house: House):
    house.module(ODD)
    given = b'"' + b"x" * (256 * 1024 - 2) + b'"'
    batch = [house.assignment(shared("counts_async"), input=given) for _ in range(300)]
    house.executor.start(batch)
    for one in batch:
        assert (await house.outcome_of(one)).result == b"262142"


async def test_a_plain_function_that_runs_out_of_items(house: House):
    house.module(ODD)
    outcome = await house.run(shared("empty"), timeout_s=5.0)
    assert outcome.state == "failed"
    assert "StopIteration" in outcome.error


async def test_who_waits_for_a_thread_and_is_cancelled_costs_nobody_their_host(house: House):
    house.module(ODD)
    threads = [house.begin(shared("waits", f"t{n}")) for n in range(64)]
    for n in range(64):
        await house.file(f"t{n}")
    behind = house.begin(shared("waits", "behind"))
    await eventually(lambda: house.started(behind))
    house.executor.cancel(behind.id, behind.fencing_token)
    assert (await house.outcome_of(behind)).state == "cancelled"
    for n in range(64):
        (house.folder / f"t{n}-go").touch()
    for one in threads:
        assert (await house.outcome_of(one)).state == "succeeded"
    assert not (house.folder / "behind").exists()
    assert house.executor.statistics()["hosts_killed"] == 0


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("leaves_a_child", "succeeded"),
        ("fails_beside_a_child", "failed"),
        ("silent_beside_a_child", "lost"),
    ],
)
async def test_nothing_of_a_process_lives_when_its_end_is_told(house: House, name, state):
    house.module(ODD)
    outcome = await house.run(process(name), heartbeat_s=0.2 if state == "lost" else None)
    assert outcome.state == state
    assert not lives(int((house.folder / "child").read_text()))


async def test_what_had_ended_is_not_lost_with_the_guardian(house: House):
    house.module(ODD)
    job = house.begin(process("waits", "one"))
    await house.file("one")
    first = house.guardian.pid
    os.kill(first, signal.SIGSTOP)
    (house.folder / "one-go").touch()
    await eventually(lambda: house.executor._process._done)
    os.kill(first, signal.SIGKILL)
    assert (await house.outcome_of(job)).state == "succeeded"


async def test_a_cancelled_command_is_cancelled_though_the_guardian_dies(house: House):
    job = house.begin(CommandTask(argv=("sleep", "600")))
    await eventually(lambda: house.started(job))
    os.kill(house.guardian.pid, signal.SIGSTOP)
    house.executor.cancel(job.id, job.fencing_token)
    os.kill(house.guardian.pid, signal.SIGKILL)
    assert (await house.outcome_of(job)).state == "cancelled"


async def test_what_could_not_be_started_for_want_of_descriptors_starts_later(house, monkeypatch):
    house.module(ODD)
    pair, refusals = python_host.pair, iter(range(4))

    def scarce():
        if next(refusals, None) is not None:
            raise OSError(errno.EMFILE, "Too many open files")
        return pair()

    monkeypatch.setattr(python_host, "pair", scarce)
    given_back = await house.run(process("counts"), input=b"[1]")
    assert (given_back.state, given_back.unimportable) == ("unstarted", False)
    assert (await house.run(shared("counts_async"), input=b"[1]")).result == b"1"


async def test_what_waits_for_its_host_can_be_cancelled(house: House, monkeypatch):
    def none():
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(python_host, "pair", none)
    for task in both("counts"):
        job = house.begin(task)
        house.executor.cancel(job.id, job.fencing_token)
        assert (await house.outcome_of(job)).state == "cancelled"


async def test_callables_are_forgotten_and_told_anew_without_being_mixed_up(house, monkeypatch):
    monkeypatch.setattr(python_host, "SPECS_MAX", 3)
    house.module("async def f(ctx, n): return n")
    batches = [[house.assignment(shared("f", n)) for n in range(at, at + 2)] for at in range(40)]
    for batch in batches:
        house.executor.start(batch)
    for at, batch in enumerate(batches):
        for n, job in enumerate(batch, start=at):
            assert (await house.outcome_of(job)).result == str(n).encode()


async def test_what_has_ended_is_held_until_it_is_told(house: House):
    """A worker that starts anew in between would run it again."""
    job = house.assignment(shell("true"))
    ends = []

    def watch(work, *args, **kwargs):
        finish(work, *args, **kwargs)
        ends.append((house.outcome(job), list(house.executor.holds())))

    finish, house.executor.finish = house.executor.finish, watch
    house.executor.start([job])
    await house.outcome_of(job)
    assert ends == [(None, [(job.id, job.fencing_token)])]
    assert not house.executor.holds()


async def test_all_who_wait_for_the_end_hear_of_it(house: House):
    house.module(ODD)
    house.begin(process("waits", "one"))
    await house.file("one")
    async with anyio.create_task_group() as group:
        group.start_soon(house.executor.wait_empty)
        group.start_soon(house.executor.wait_empty)
        await anyio.wait_all_tasks_blocked()
        (house.folder / "one-go").touch()
