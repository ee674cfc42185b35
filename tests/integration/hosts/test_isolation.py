"""What one task does to itself, it does to nobody else: held loops, crashes, killed processes."""

import errno
import gc
import os
import resource
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest
import structlog.testing

from protocols.jobs import PythonTask
from protocols.ports.executor import Assignment
from runtime.hosts import guardian
from tests.integration.hosts.house import (
    House,
    eventually,
    lives,
    marked,
    open_house,
    process,
    shared,
    shell,
    text,
)

pytestmark = pytest.mark.asyncio

HOLDING = """
import asyncio, ctypes, os, signal, time
def spin():
    open("held", "w").write(str(os.getpid()))
    while True: pass
def c_call():
    open("held", "w").write(str(os.getpid()))
    ctypes.PyDLL(None).pause()  # keeps the interpreter lock
def block():
    open("held", "w").write(str(os.getpid()))
    time.sleep(600)
async def spin_async(): spin()
async def c_call_async(): c_call()
async def block_async(): block()
async def deaf_async():
    open("held", "w").write(str(os.getpid()))
    while True:
        try: await asyncio.sleep(600)
        except asyncio.CancelledError: pass
async def waits(ctx, name):
    open(name, "w").write(str(os.getpid()))
    while not os.path.exists(name + "-go"): await asyncio.sleep(0.02)
    return ctx.attempt
async def quick(): return os.getpid()
def quick_plain(): return 1
def crash(): os.kill(os.getpid(), signal.SIGSEGV)
async def crash_async(): open("held", "w").write("x"); crash()
def leave(): os._exit(7)
async def leave_async(): open("held", "w").write("x"); leave()
def patient(ctx):
    open("held", "w").write(str(os.getpid()))
    while not ctx.cancelled: time.sleep(0.01)
    return "cut short"
async def patient_async(ctx):
    open("held", "w").write(str(os.getpid()))
    try: await asyncio.sleep(600)
    finally: open("tidied", "w").write(str(ctx.cancelled))
async def held_for(ctx, seconds): time.sleep(seconds); return os.getpid()
async def many(ctx): await asyncio.sleep(1.0)
"""


def go(house: House, name: str) -> None:
    (house.folder / f"{name}-go").touch()


@pytest.mark.parametrize("name", ["spin", "c_call", "block"])
async def test_a_held_process_ends_at_its_timeout(house: House, name):
    house.module(HOLDING)
    outcome = await house.run(process(name), timeout_s=0.5)
    assert (outcome.state, outcome.error) == ("timed_out", "timed out after 0.5 s")
    assert not lives(int(await house.file("held")))


@pytest.mark.parametrize("name", ["spin_async", "c_call_async", "block_async", "deaf_async"])
async def test_a_held_host_ends_and_its_mates_start_again(house: House, name):
    house.module(HOLDING)
    mate = house.begin(shared("waits", "mate"))
    host = int(await house.file("mate"))
    guilty = house.begin(shared(name), timeout_s=0.7)
    await house.file("held")
    # What comes while the loop is held goes to another host, and need not wait for the kill.
    late = house.begin(shared("quick"))
    if name != "deaf_async":
        assert (await house.outcome_of(late)).state == "succeeded"
        assert house.outcome(guilty) is None
    outcome = await house.outcome_of(guilty)
    assert outcome.state == "timed_out"
    lost = await house.outcome_of(mate)
    assert (lost.state, lost.bystander) == ("lost", True)
    assert "did not end when asked to" in lost.error
    assert not lives(host)
    again = house.begin(shared("waits", "again"), attempt=2)
    await house.file("again")
    go(house, "again")
    assert (await house.outcome_of(again)).result == b"2"
    assert house.executor.statistics()["hosts_killed"] == 1


async def test_what_was_fed_but_had_not_begun_is_not_lost(house: House):
    """A job that may run at most once must not end for having stood in a socket."""
    house.module(HOLDING)
    await house.run(shared("quick"))
    guilty = house.assignment(shared("spin_async"), timeout_s=0.3)
    behind = [house.assignment(shared("quick")) for _ in range(50)]
    house.executor.start([guilty, *behind])
    for job in behind:
        assert (await house.outcome_of(job)).state == "succeeded"
    assert (await house.outcome_of(guilty)).state == "timed_out"


async def test_a_held_loop_is_named_with_its_stack(tmp_path: Path):
    with structlog.testing.capture_logs() as logs:
        async with open_house(tmp_path, held_s=0.2) as house:
            house.module(HOLDING)
            job = house.begin(shared("spin_async"), timeout_s=1.5, job_id="the_spinner")
            await house.outcome_of(job)
            assert house.executor.statistics()["held_loops"] == 1
    (line,) = [entry for entry in logs if entry["event"] == "host.loop_held"]
    assert line["job_id"] == "the_spinner"
    assert line["execution_id"] == job.execution_id
    assert "in spin\n" in line["stack"]
    assert line["for_s"] >= 0.2


@pytest.mark.parametrize("kind", ["patient", "patient_async"])
@pytest.mark.parametrize("isolation", ["process", "shared"])
async def test_a_timeout_tells_the_task_first(house: House, kind, isolation):
    house.module(HOLDING)
    task = PythonTask(target=f"tasks_of_test:{kind}", isolation=isolation)
    outcome = await house.run(task, timeout_s=0.3)
    assert (outcome.state, outcome.result) == ("timed_out", None)
    if kind == "patient_async":
        assert await house.file("tidied") == "True"
    assert house.executor.statistics()["hosts_killed"] == 0


@pytest.mark.parametrize("task", [process("patient"), shared("patient_async"), shared("patient")])
async def test_a_cancel_tells_the_task_first(house: House, task):
    house.module(HOLDING)
    job = house.begin(task)
    await house.file("held")
    house.executor.cancel(job.id, job.fencing_token)
    house.executor.cancel(job.id, job.fencing_token)
    assert (await house.outcome_of(job)).state == "cancelled"
    assert house.executor.statistics()["hosts_killed"] == 0


@pytest.mark.parametrize("task", [process("patient"), shared("waits", "x"), process("quick")])
async def test_a_cancel_before_the_start(house: House, task):
    house.module(HOLDING)
    job = house.begin(task)
    house.executor.cancel(job.id, job.fencing_token)
    assert (await house.outcome_of(job)).state == "cancelled"
    assert not (house.folder / "held").exists()
    assert not (house.folder / "x").exists()


@pytest.mark.parametrize(
    ("name", "why", "code"), [("crash", "SIGSEGV", -11), ("leave", "exit code 7", 7)]
)
async def test_a_process_that_crashes_failed(house: House, name, why, code):
    house.module(HOLDING)
    outcome = await house.run(process(name))
    assert (outcome.state, outcome.exit_code) == ("failed", code)
    assert why in outcome.error
    if name == "crash":
        assert "Segmentation fault" in text(outcome)
    assert (await house.run(process("quick_plain"))).state == "succeeded"


@pytest.mark.parametrize("name", ["crash_async", "leave_async"])
async def test_a_shared_host_that_crashes(house: House, name):
    house.module(HOLDING)
    # Alone in its host, it did this itself; in company nobody knows who did.
    assert (await house.run(shared(name))).state == "failed"
    mate = house.begin(shared("waits", "mate"))
    await house.file("mate")
    job = house.begin(shared(name))
    for one in (job, mate):
        outcome = await house.outcome_of(one)
        assert (outcome.state, outcome.bystander) == ("lost", False)
    assert (await house.run(shared("quick"))).state == "succeeded"


async def test_a_task_that_writes_to_the_nodes_socket_ends_its_host_only(house: House):
    house.module("""
import os, socket
async def hostile():
    for fd in range(3, 64):
        try: os.write(fd, b"\\x00\\x00\\x00\\x05hello" * 100)
        except OSError: pass
    while True: pass
async def closing():
    os.closerange(3, 64)
    import asyncio
    await asyncio.sleep(600)
async def fine(): return 1
""")
    for name in ("hostile", "closing"):
        outcome = await house.run(shared(name), timeout_s=20.0)
        assert outcome.state in {"failed", "lost", "timed_out"}
        assert (await house.run(shared("fine"))).state == "succeeded"


@pytest.mark.parametrize("kind", [process, shared])
async def test_silence_of_a_python_task_is_a_loss(house: House, kind):
    house.module(HOLDING)
    job = house.begin(kind("spin"), heartbeat_s=0.1)
    outcome = await house.outcome_of(job)
    assert (outcome.state, outcome.bystander) == ("lost", False)
    assert not lives(int(await house.file("held")))


async def test_beats_keep_a_python_task_alive(house: House):
    house.module("""
import asyncio
async def beats(ctx):
    for _ in range(40): await asyncio.sleep(0.02); await ctx.heartbeat()
""")
    assert (await house.run(shared("beats"), heartbeat_s=0.2)).state == "succeeded"


async def test_thousands_sleep_side_by_side(house: House):
    house.module(HOLDING)
    jobs = [house.assignment(shared("many"), job_id="many") for _ in range(5_000)]
    house.executor.start(jobs)
    await eventually(lambda: not house.executor.holds())
    assert house.executor.statistics()["finished_succeeded"] == 5_000


async def test_a_killed_guardian_loses_what_it_ran_and_leaves_nothing(house: House):
    house.module(HOLDING)
    jobs = [
        house.begin(shell("echo $$ > command; exec sleep 600")),
        house.begin(shell("echo x > detached; setsid sleep 600 & wait")),
        house.begin(process("spin")),
        house.begin(shared("waits", "mate")),
    ]
    for name in ("command", "detached", "held", "mate"):
        await house.file(name)
    before = house.processes()
    assert len(before) >= 5
    guardian = house.guardian.pid
    os.kill(guardian, signal.SIGKILL)
    for job in jobs:
        outcome = await house.outcome_of(job)
        assert (outcome.state, outcome.bystander) == ("lost", True)
    assert not before & house.processes()
    assert (await house.run(shell("true"))).state == "succeeded"
    assert (await house.run(shared("quick"))).state == "succeeded"
    assert house.guardian.pid != guardian


async def test_a_control_group_holds_what_hides_from_everything_else(house: House):
    if house.guardian._group is None:
        pytest.skip("no control group (cgroup v2) may be made here")
    folder = Path(house.guardian._group)
    house.begin(shell("env -i setsid sh -c 'echo $$ > hidden; exec sleep 600' & wait"))
    hidden = int(await house.file("hidden"))
    assert hidden not in house.processes()
    guardian = house.guardian.pid
    os.kill(guardian, signal.SIGKILL)
    await eventually(lambda: not lives(hidden))
    await eventually(lambda: not folder.exists())


async def test_a_guardian_that_cannot_be_started_is_tried_again(house: House, monkeypatch):
    popen, refusals = guardian.subprocess.Popen, iter(range(2))

    def scarce(*args, **kwargs):
        if next(refusals, None) is not None:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return popen(*args, **kwargs)

    monkeypatch.setattr(guardian.subprocess, "Popen", scarce)
    os.kill(house.guardian.pid, signal.SIGKILL)
    assert (await house.run(shell("true"))).state in {"succeeded", "lost"}
    assert (await house.run(shell("true"))).state == "succeeded"
    assert next(refusals, None) is None


async def test_the_limit_on_files_is_the_nodes_own(house: House):
    """The guardian needs many; a program that uses select() must not be given them."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert text(await house.run(shell("sleep 0.05; ulimit -S -n"))) == f"{soft}\n"


async def test_a_stop_gives_back_python_tasks(tmp_path: Path):
    async with open_house(tmp_path) as house:
        house.module(HOLDING)
        slow = house.begin(shared("waits", "slow"))
        await house.file("slow")
        held = house.begin(process("spin"))
        await house.file("held")
        await house.executor.stop(0.1)
        for job in (slow, held):
            assert house.outcome(job).state == "lost"
            assert house.outcome(job).bystander


NODE = """
import sys
from pathlib import Path
import anyio
from tests.integration.hosts.house import open_house, shared, process, shell
async def main():
    async with open_house(Path(sys.argv[1])) as house:
        print(house.owner, flush=True)
        house.begin(shell("trap '' TERM; echo x > command; sleep 600"))
        house.begin(shell("echo x > detached; setsid env -i sleep 600.125 & wait"))
        house.begin(process("spin"))
        house.begin(shared("waits", "mate"))
        await anyio.sleep_forever()
anyio.run(main)
"""


async def test_a_killed_node_leaves_nothing_running(tmp_path: Path):
    (tmp_path / "tasks_of_test.py").write_text(HOLDING)
    root = Path(__file__).parents[3]
    node = psutil.Popen(
        [sys.executable, "-c", NODE, str(tmp_path)], cwd=root, stdout=-1, start_new_session=True
    )
    with node:
        owner = node.stdout.readline().decode().strip()
        for name in ("command", "detached", "held", "mate"):
            await eventually((tmp_path / name).exists)
        below = await eventually(lambda: [p.pid for p in node.children(recursive=True)])
        assert len(below) >= 6
        node.send_signal(signal.SIGKILL)
        node.wait()
    await eventually(lambda: not any(lives(pid) for pid in below))
    await eventually(lambda: not marked(f"RUNTIME_GUARDIAN={owner}/"))


async def test_what_node_and_guardian_left_together_is_swept_at_the_next_start(tmp_path: Path):
    async with open_house(tmp_path) as house:
        # A node of that name that is gone, and whose guardian was killed in the same moment.
        mark = f"{house.owner}/{2**22 + 1}-1"
        left = psutil.Popen(["sleep", "600"], env={"RUNTIME_GUARDIAN": mark})
        other = psutil.Popen(["sleep", "600"], env={"RUNTIME_GUARDIAN": f"x{mark}"})
        living = psutil.Popen(
            ["sleep", "600"], env={"RUNTIME_GUARDIAN": f"{house.owner}/{incarnation()}"}
        )
        os.kill(house.guardian.pid, signal.SIGKILL)
        await eventually(lambda: left.poll() is not None)
        assert other.poll() is None
        for one in (other, living):
            one.kill()
            one.wait()


def incarnation() -> str:
    from runtime.hosts.guarding import incarnation_of

    return incarnation_of(os.getppid())


async def test_a_deadline_counts_from_the_start(house: House):
    house.module(HOLDING)
    job: Assignment = house.begin(process("patient"), timeout_s=0.5)
    outcome = await house.outcome_of(job)
    assert outcome.finished_ns - outcome.started_ns >= 0.5e9
    assert outcome.finished_ns <= time.time_ns()


async def test_what_a_held_host_was_fed_and_is_cancelled_never_begins(house: House):
    house.module(HOLDING)
    await house.run(shared("quick"))
    holder = house.assignment(shared("held_for", 2.0), timeout_s=30.0)
    behind = house.assignment(shared("waits", "never"))
    house.executor.start([holder, behind])
    house.executor.cancel(behind.id, behind.fencing_token)
    assert (await house.outcome_of(behind)).state == "cancelled"
    assert (await house.outcome_of(holder)).state == "succeeded"
    assert not (house.folder / "never").exists()
    assert house.executor.statistics()["hosts_killed"] == 0


async def test_a_host_that_was_held_for_a_while_keeps_what_it_began(house: House):
    house.module(HOLDING)
    mate = house.begin(shared("waits", "mate"))
    await house.file("mate")
    holder = house.assignment(shared("held_for", 1.0))
    behind = [house.assignment(shared("quick")) for _ in range(20)]
    house.executor.start([holder, *behind])
    pids = {(await house.outcome_of(job)).result for job in behind}
    held_pid = (await house.outcome_of(holder)).result
    assert held_pid not in pids
    go(house, "mate")
    assert (await house.outcome_of(mate)).state == "succeeded"
    await eventually(lambda: not lives(int(held_pid)))


def deleted_files_held() -> int:
    """How many descriptors this process has of files that have no name any more."""
    count = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            count += "(deleted)" in str(descriptor.readlink())
        except FileNotFoundError:
            continue  # the one that lists them
    return count


async def test_a_host_that_has_ended_holds_no_descriptor(tmp_path):
    async with open_house(tmp_path) as house:
        house.module(HOLDING)
        gc.disable()
        try:
            await house.run(process("leave"))
            before = deleted_files_held()
            for _ in range(3):
                await house.run(process("leave"))
            assert deleted_files_held() <= before
        finally:
            gc.enable()
