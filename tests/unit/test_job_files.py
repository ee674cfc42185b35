"""Job files: every field read, every error told at once with its place, nothing ignored."""

from pathlib import Path

import pytest

from protocols.jobs import CommandTask, HttpTask, JobSpec, PythonTask, Retry, Trigger
from runtime.files.load import load_files
from runtime.files.places import InvalidFileError


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text: str, name: str = "jobs.yaml") -> Path:
        Path(name).write_text(text)
        return Path(name)

    return write


def only(path: Path) -> JobSpec:
    (job,) = load_files([path]).jobs
    return job.spec


def errors(path: Path) -> list[str]:
    with pytest.raises(InvalidFileError) as caught:
        load_files([path])
    return str(caught.value).splitlines()


def test_the_smallest_job_is_the_one_people_already_write(write):
    path = write("""
jobs:
  - job_id: daily_report
    schedule: "0 0 * * *"
    command: python generate_report.py
    dependencies: [data_ingestion]
    max_retries: 3
    timeout: 3600
""")
    job = only(path)
    assert job.task == CommandTask(shell="python generate_report.py")
    assert job.schedule is not None
    assert job.schedule.cron == "0 0 * * *"
    assert job.retry == Retry(max_retries=3)
    assert (job.timeout_s, job.dependencies, job.overlap) == (3600.0, ("data_ingestion",), "skip")


def test_every_field_is_read(write):
    job = only(
        write("""
tenant: acme
defaults: {owner: ops, pool: heavy}
jobs:
  - job_id: a.b-c_1
    http: {method: post, url: "https://example.org/x", headers: {A: 1}, body: {n: 1},
           expect: {status: 201, body_contains: ok}}
    timeout: 1h30m
    max_retries: 2
    max_lost: 1
    retry: {backoff: fibonacci, base: 1s, max: 1m, jitter: 0, retry_on: [failed]}
    priority: medium
    overlap: queue
    expires: 0.5s
    concurrency: {limit: 3}
    on: [{event: order.created, filter: {country: DE}}, {job: parent, state: dead}]
    heartbeat: 10
    checkpoint: job
    tags: [x, y]
    enabled: false
    dependencies: [p]
    on_dependency_failure: wait
    dependency_timeout: 2h
""")
    )
    assert job.tenant == "acme"
    assert job.owner == "ops"
    assert job.pool == "heavy"
    assert isinstance(job.task, HttpTask)
    assert (job.task.method, job.task.headers, job.task.expect.status) == (
        "POST",
        {"A": "1"},
        (201,),
    )
    assert job.timeout_s == 5400.0
    assert job.retry == Retry(
        max_retries=2,
        max_lost=1,
        backoff="fibonacci",
        base_s=1,
        max_s=60,
        jitter=0,
        retry_on=("failed",),
    )
    assert (job.priority, job.expires_s, job.concurrency_limit) == (2, 0.5, 3)
    assert job.on == (
        Trigger(event="order.created", filter={"country": "DE"}),
        Trigger(job="parent", state="dead"),
    )
    assert (job.enabled, job.checkpoint, job.heartbeat_s) == (False, "job", 10.0)


def test_a_python_task_and_a_command_as_a_list(write):
    jobs = load_files(
        [
            write("""
jobs:
  - {job_id: p, python: "etl.load:run", args: [1], kwargs: {day: x}, isolation: shared}
  - {job_id: c, command: [ls, -l], cwd: /, env: {DEBUG: true}, success_exit_codes: [0, 3]}
""")
        ]
    ).jobs
    assert jobs[0].spec.task == PythonTask(
        target="etl.load:run", args=(1,), kwargs={"day": "x"}, isolation="shared"
    )
    assert jobs[1].spec.task == CommandTask(
        argv=("ls", "-l"), cwd="/", env={"DEBUG": "true"}, success_exit_codes=(0, 3)
    )


def test_all_errors_come_at_once_each_with_its_place(write):
    told = errors(
        write("""
jobs:
  - job_id: "a b"
    schedule: "61 * * * *"
    comand: x
    timeout: soon
  - {job_id: y, command: "true", timezone: Mars/X, schedule: "* * * * *"}
""")
    )
    assert [line.split(": ", 2)[:2] for line in told] == [
        ["jobs.yaml:3:5", "jobs[0]"],
        ["jobs.yaml:3:13", "jobs[0].job_id"],
        ["jobs.yaml:4:15", "jobs[0].schedule"],
        ["jobs.yaml:5:5", "jobs[0].comand"],
        ["jobs.yaml:6:14", "jobs[0].timeout"],
        ["jobs.yaml:7:62", "jobs[1].schedule"],
    ]
    assert 'did you mean "command"?' in told[3]


@pytest.mark.parametrize(
    ("job", "message"),
    [
        ("{job_id: x, command: a, http: {url: 'http://h'}}", "command and http"),
        ("{job_id: x}", "here is none"),
        ("{command: a}", "needs its job_id"),
        ("{job_id: x, command: a, on: {kafka: {topic: t}}}", "a Kafka trigger is not built yet"),
        ("{job_id: x, command: a, rate: {limit: 1}}", "a rate limit is not built yet"),
        (
            "{job_id: x, command: a, concurrency: {limit: 1, key: k}}",
            "a limit by key is not built yet",
        ),
        ("{job_id: x, command: a, on: {}}", "one of event and job"),
        ("{job_id: x, command: a, on: {event: e, job: j}}", "one of event and job"),
        ("{job_id: x, command: a, dependencies: [x]}", "depends on itself"),
        ("{job_id: x, command: a, dependencies: [y, y]}", '"y" stands here twice'),
        ("{job_id: x, python: 'm:f', isolation: inline}", "inline is only for"),
        ("{job_id: x, command: a, env: {RUNTIME_X: 1}}", "set by the node"),
        ("{job_id: x, command: a, guarantee: at_most_once, max_retries: 1}", "has no retries"),
        ("{job_id: x, command: a, timeout: 367d}", "366 days"),
        ("{job_id: x, command: a, timeout: 0}", "timeout"),
        ("{job_id: x, command: a, priority: [1]}", "is not one of"),
        ("{job_id: x, http: {url: 'ftp://x'}}", "is not a URL"),
        ("{job_id: x, command: ''}", "this is empty"),
        ("5", "is not a job"),
    ],
)
def test_what_is_wrong_is_refused(write, job, message):
    assert any(message in line for line in errors(write(f"jobs:\n  - {job}\n")))


def test_a_doubled_id_names_the_first(write):
    told = errors(write("jobs:\n  - {job_id: x, command: a}\n  - {job_id: x, command: b}\n"))
    assert told == ['jobs.yaml:3:14: jobs[1].job_id: "x" stands at jobs.yaml:2:14 already']


def test_dags_are_refused_by_name(write):
    assert errors(write("dags: []\n")) == [
        "jobs.yaml:1:7: dags: a DAG is not built yet; leave it out"
    ]


def test_a_folder_is_read_whole_and_its_hash_follows_its_content(write, tmp_path):
    (tmp_path / "d").mkdir()
    write("jobs: [{job_id: x, command: a}]", "d/one.yaml")
    write("tenant: t2\njobs: [{job_id: x, command: a}]", "d/two.yml")
    first = load_files([Path("d")])
    assert (first.source, first.tenants) == ("d", ("default", "t2"))
    write("jobs: [{job_id: x, command: b}]", "d/one.yaml")
    assert load_files([Path("d")]).content_hash != first.content_hash


def test_one_megabyte_of_text_is_one_clear_error(write):
    (told,) = errors(write(f'jobs: [{{job_id: x, command: "{"a" * 1_000_000}"}}]\n'))
    assert "1,000,000 characters long" in told
