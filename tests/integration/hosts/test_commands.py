"""Commands: what they see, how they end, and that nothing of them is left."""

import json
import os
import sys
from pathlib import Path

import pytest

from protocols.jobs import CommandTask
from tests.integration.hosts.house import House, eventually, lives, open_house, shell, text

pytestmark = pytest.mark.asyncio

DOUBLE_FORK = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        open(sys.argv[1], "w").write(str(os.getpid()))
        time.sleep(600)
    os._exit(0)
os.wait()
time.sleep(float(sys.argv[2]))
"""


async def test_a_command_that_succeeds(house: House):
    outcome = await house.run(shell("echo out; echo err >&2; echo again"))
    assert (outcome.state, outcome.exit_code, outcome.error) == ("succeeded", 0, None)
    assert text(outcome) == "out\nerr\nagain\n"
    assert outcome.started_ns <= outcome.finished_ns
    assert outcome.result is None


async def test_a_list_is_run_as_it_stands(house: House):
    outcome = await house.run(CommandTask(argv=("printf", "%s|", "a b", "$HOME", "*")))
    assert text(outcome) == "a b|$HOME|*|"


async def test_an_exit_code_that_is_no_success(house: House):
    outcome = await house.run(shell("echo first; echo the complaint >&2; exit 3"))
    assert (outcome.state, outcome.exit_code) == ("failed", 3)
    assert outcome.error == "exit code 3: the complaint"


async def test_an_exit_code_that_the_job_calls_a_success(house: House):
    outcome = await house.run(shell("exit 3", success_exit_codes=(0, 3)))
    assert (outcome.state, outcome.exit_code) == ("succeeded", 3)


async def test_a_signal_is_named(house: House):
    outcome = await house.run(shell("kill -KILL $$"))
    assert (outcome.state, outcome.exit_code, outcome.error) == ("failed", -9, "killed by SIGKILL")


@pytest.mark.parametrize(
    ("task", "error"),
    [
        (CommandTask(argv=("no-such-program-here",)), "no program 'no-such-program-here' on the"),
        (CommandTask(argv=("true",), cwd="no/such/folder"), "no/such/folder' to run in does not"),
        (CommandTask(argv=("/etc/passwd",)), "may not be run"),
        (CommandTask(argv=("echo", "a\0b")), "null byte"),
        (CommandTask(argv=("true",), env={"A": "a\0b"}), "null byte"),
        (CommandTask(argv=("true",), env={"A=B": "c"}), "cannot be run"),
        (CommandTask(argv=("true", "x" * 3_000_000)), "too long"),
    ],
)
async def test_what_cannot_be_started_fails_and_says_why(house: House, task, error):
    outcome = await house.run(task)
    assert outcome.state == "failed"
    assert error in outcome.error


async def test_the_environment_is_an_allow_list(house: House, monkeypatch):
    monkeypatch.setenv("RUNTIME_DATABASE__URL", "postgresql://secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("PYTHONPATH", "/secret")
    monkeypatch.setenv("LANG", "C.UTF-8")
    outcome = await house.run(
        CommandTask(
            argv=(sys.executable, "-c", "import os, json; print(json.dumps(dict(os.environ)))"),
            env={"MINE": "yes", "RUNTIME_ATTEMPT": "99"},
        ),
        input=b'{"day": 3}',
        checkpoint=b"[1]",
        attempt=2,
        execution_id="0199-a",
        job_id="daily",
        fencing_token=77,
    )
    seen = json.loads(text(outcome))
    seen.pop("LC_CTYPE", None)  # CPython's own, PEP 538
    allowed = {"PATH", "HOME", "LANG", "TZ", "TMPDIR"}
    assert {name: value for name, value in seen.items() if name not in allowed} == {
        "MINE": "yes",
        "RUNTIME_EXECUTION_ID": "0199-a",
        "RUNTIME_JOB_ID": "daily",
        "RUNTIME_SCHEDULED_FOR": "2026-01-01T00:00:00.123456Z",
        "RUNTIME_ATTEMPT": "2",
        "RUNTIME_FENCING_TOKEN": "77",
        "RUNTIME_INPUT": '{"day": 3}',
        "RUNTIME_CHECKPOINT": "[1]",
        "RUNTIME_TENANT": "default",
        "RUNTIME_URL": house.settings.url,
        **house.guardian.mark,
    }
    assert seen["PATH"].split(":")[0] == str(Path(sys.executable).parent)
    assert seen["LANG"] == "C.UTF-8"


async def test_the_folder_is_the_tasks_and_cwd_is_within_it(house: House):
    (house.folder / "below").mkdir()
    assert text(await house.run(shell("pwd"))).strip() == str(house.folder)
    assert text(await house.run(shell("pwd", cwd="below"))).strip() == str(house.folder / "below")
    assert text(await house.run(shell("pwd", cwd="/"))).strip() == "/"


async def test_an_input_too_large_for_a_variable_comes_in_a_file(house: House):
    given = json.dumps("x" * 500_000).encode()
    outcome = await house.run(
        shell('test -z "${RUNTIME_INPUT+set}"; wc -c < "$RUNTIME_INPUT_FILE"; '
              'echo "$RUNTIME_INPUT_FILE"; stat -c %a "$RUNTIME_INPUT_FILE"'),
        input=given,
    )  # fmt: skip
    size, path, mode = text(outcome).split()
    assert (int(size), mode) == (len(given), "600")
    assert not os.path.exists(path)  # noqa: ASYNC240, PTH110 - nothing else runs meanwhile


async def test_no_descriptor_of_the_node_is_inherited(house: House):
    outcome = await house.run(
        CommandTask(
            argv=(sys.executable, "-c", "import os; print(len(os.listdir('/proc/self/fd')))")
        )
    )
    assert int(text(outcome)) == 4  # the three of every program, and the listing itself


async def test_a_flood_of_output_is_cut_in_the_middle(house: House):
    outcome = await house.run(shell("echo start; yes 0123456789 | head -n 500000; echo end"))
    output = outcome.output
    assert output.head.startswith(b"start\n0123456789\n")
    assert output.tail.endswith(b"0123456789\nend\n")
    assert len(output.head) == len(output.tail) == 32 * 1024
    assert len(output.head) + len(output.tail) + output.omitted_bytes == 500_000 * 11 + 10


async def test_an_endless_flood_ends_at_its_timeout(house: House):
    outcome = await house.run(shell("yes"), timeout_s=0.3)
    assert outcome.state == "timed_out"
    assert outcome.output.omitted_bytes > 0
    assert len(outcome.output.tail) == 32 * 1024


async def test_a_timeout_asks_first(house: House):
    line = "trap 'echo asked; exit 0' TERM; echo > ready; while :; do sleep 0.02; done"
    outcome = await house.run(shell(line), timeout_s=0.5)
    assert (outcome.state, outcome.error) == ("timed_out", "timed out after 0.5 s")
    assert text(outcome).endswith("asked\n")
    assert outcome.exit_code == 0


async def test_a_timeout_kills_what_does_not_listen(house: House):
    line = "trap '' TERM; echo > ready; while :; do sleep 0.02; done"
    outcome = await house.run(shell(line), timeout_s=0.3)
    assert (outcome.state, outcome.exit_code) == ("timed_out", -9)


async def test_a_timeout_ends_a_stopped_process(house: House):
    outcome = await house.run(shell("kill -STOP $$"), timeout_s=0.3)
    assert outcome.state == "timed_out"


async def test_a_timeout_ends_what_forked_twice_and_left_the_session(house: House):
    task = CommandTask(argv=(sys.executable, "-c", DOUBLE_FORK, "orphan", "600"))
    job = house.begin(task, timeout_s=3.0)
    orphan = int(await house.file("orphan"))
    assert lives(orphan)
    outcome = await house.outcome_of(job)
    assert outcome.state == "timed_out"
    assert not lives(orphan)


async def test_what_a_command_leaves_running_ends_with_it(house: House):
    task = CommandTask(argv=(sys.executable, "-c", DOUBLE_FORK, "orphan", "0"))
    outcome = await house.run(task)
    orphan = int(await house.file("orphan"))
    assert outcome.state == "succeeded"
    assert not lives(orphan)


async def test_a_pipe_reader_in_the_background_may_finish_its_lines(house: House):
    outcome = await house.run(shell("(sleep 0.1; echo late) & echo early"))
    assert text(outcome) == "early\nlate\n"


async def test_a_cancel_ends_the_tree(house: House):
    job = house.begin(shell("sleep 600 & echo $! > child; wait"))
    child = int(await house.file("child"))
    house.executor.cancel(job.id, job.fencing_token)
    outcome = await house.outcome_of(job)
    assert (outcome.state, outcome.error) == ("cancelled", "cancelled")
    assert not lives(child)


async def test_a_cancel_before_the_start(house: House):
    job = house.assignment(shell("echo > ran"))
    house.executor.start([job])
    house.executor.cancel(job.id, job.fencing_token)
    assert (await house.outcome_of(job)).state == "cancelled"


async def test_one_tree_ends_and_its_neighbour_stays(house: House):
    one = house.begin(shell("echo $$ > one; exec sleep 600"))
    two = house.begin(shell("echo $$ > two; exec sleep 600"))
    await house.file("one")
    other = int(await house.file("two"))
    house.executor.cancel(one.id, one.fencing_token)
    await house.outcome_of(one)
    assert lives(other)
    assert list(house.executor.holds()) == [(two.id, two.fencing_token)]


async def test_silence_is_a_loss_and_the_tree_is_gone_before_it_is_told(house: House):
    job = house.begin(shell("echo $$ > pid; trap '' TERM; sleep 600"), heartbeat_s=0.1)
    pid = int(await house.file("pid"))
    outcome = await house.outcome_of(job)
    assert outcome.state == "lost"
    assert not outcome.bystander
    assert "no heartbeat for 0.3 s" in outcome.error
    assert not lives(pid)


async def test_beats_keep_a_command_alive(house: House):
    line = "i=0; until [ $i -ge 60 ]; do i=$((i+1)); sleep 0.02; done"
    job = house.begin(shell(line), heartbeat_s=0.2)

    def beaten():
        house.executor.beat(job.id, job.fencing_token)
        return house.outcome(job)

    assert (await eventually(beaten)).state == "succeeded"


async def test_many_at_once(house: House):
    jobs = [house.assignment(shell(f"echo {n}")) for n in range(60)]
    house.executor.start(jobs)
    outcomes = [await house.outcome_of(job) for job in jobs]
    assert [text(outcome) for outcome in outcomes] == [f"{n}\n" for n in range(60)]


async def test_a_job_handed_over_twice_runs_once(house: House):
    job = house.assignment(shell("echo ran >> lines"))
    house.executor.start([job])
    house.executor.start([job])
    await house.outcome_of(job)
    assert (house.folder / "lines").read_text() == "ran\n"


async def test_a_stop_gives_back_what_does_not_end(tmp_path: Path):
    async with open_house(tmp_path) as house:
        quick = house.begin(shell("echo > quick; until test -e go; do sleep 0.02; done"))
        slow = house.begin(shell("echo > slow; exec sleep 600"))
        await house.file("quick")
        await house.file("slow")
        (tmp_path / "go").touch()
        await house.executor.stop(1.0)
        after = house.begin(shell("true"))
        assert house.outcome(quick).state == "succeeded"
        assert house.outcome(slow).state == "lost"
        assert house.outcome(slow).bystander
        house.executor._flush()
        assert house.outcome(after).state == "unstarted"
