"""Job files: every field read, every error told at once with its place, nothing ignored."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.jobs import CommandTask, HttpTask, JobSpec, KafkaTrigger, PythonTask, Retry, Trigger
from runtime.files.jobs import read_job
from runtime.files.load import load_files
from runtime.files.places import Document, InvalidFileError


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
    on:
      - {event: order.created, filter: {country: DE}}
      - {job: parent, state: dead}
      - {kafka: {topic: orders.v1, group: billing, key: "7"}, filter: {country: DE}}
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
        Trigger(
            kafka=KafkaTrigger(topic="orders.v1", group="billing", key="7"),
            filter={"country": "DE"},
        ),
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
        ("{job_id: x, command: a, on: {kafka: {topic: a b}}}", 'on.kafka.topic: "a b" is not a'),
        ("{job_id: x, command: a, on: {kafka: {topic: ..}}}", "is not a topic's name"),
        ("{job_id: x, command: a, on: {kafka: {}}}", "a Kafka trigger needs its topic"),
        ("{job_id: x, command: a, on: {kafka: t}}", "is not {topic: NAME, group: NAME"),
        ("{job_id: x, command: a, on: {kafka: {topic: t, gruop: g}}}", 'did you mean "group"?'),
        ("{job_id: x, command: a, on: {kafka: {topic: t, group: ' '}}}", "this is empty"),
        ('{job_id: x, command: a, on: {kafka: {topic: t, group: "a\\nb"}}}', "printable"),
        ('{job_id: x, command: a, on: {kafka: {topic: t, key: "\\0"}}}', "a NUL character"),
        ("{job_id: x, command: a, on: {kafka: {topic: t}, event: e}}", "one of event, job and"),
        ("{job_id: x, command: a, on: {kafka: {topic: t}, state: dead}}", "only a job has a state"),
        ("{job_id: x, command: a, rate: {limit: 1}}", "a rate limit is not built yet"),
        (
            "{job_id: x, command: a, concurrency: {limit: 1, key: k}}",
            "a limit by key is not built yet",
        ),
        ("{job_id: x, command: a, on: {}}", "one of event, job and kafka"),
        ("{job_id: x, command: a, on: {event: e, job: j}}", "one of event, job and kafka"),
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
        ("{job_id: x, python: 'm:f', args: [[99999999999999999999]]}", "args[0][0]: this number"),
        ("{job_id: x, http: {url: 'http://h', body: {a: 99999999999999999999}}}", "http.body.a:"),
        (f"{{job_id: x, command: a, on: [{'{event: e}, ' * 101}]}}", "at most 100 triggers"),
    ],
)
def test_what_is_wrong_is_refused(write, job, message):
    assert any(message in line for line in errors(write(f"jobs:\n  - {job}\n")))


def test_a_doubled_id_names_the_first(write):
    told = errors(write("jobs:\n  - {job_id: x, command: a}\n  - {job_id: x, command: b}\n"))
    assert told == ['jobs.yaml:3:14: jobs[1].job_id: "x" stands at jobs.yaml:2:14 already']


def test_a_wrong_default_is_told_once_and_where_it_stands(write):
    jobs = "".join(f"  - {{job_id: x{n}, command: a}}\n" for n in range(3))
    told = errors(write(f"defaults:\n  timeout: soon\n  retires: 3\njobs:\n{jobs}"))
    assert [line.split(": ")[:2] for line in told] == [
        ["jobs.yaml:2:12", "defaults.timeout"],
        ["jobs.yaml:3:3", "defaults.retires"],
    ]


def test_every_default_is_that_of_the_contract(write):
    job = only(write("jobs: [{job_id: x, command: a}]"))
    assert job == JobSpec(
        tenant="default",
        job_id="x",
        task=CommandTask(shell="a", success_exit_codes=(0,)),
        timeout_s=3600.0,
        retry=Retry(
            max_retries=0, max_lost=5, backoff="exponential", base_s=2.0, max_s=300.0, jitter=0.1
        ),
        priority=2,
        pool="default",
        overlap="skip",
        guarantee="at_least_once",
        on_dependency_failure="skip",
        checkpoint="execution",
        enabled=True,
    )


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["1h", "@daily", "0 0 * * *", "a", "m:f", "http://h", 10**300, b"x", "\0"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
FIELDS = [
    *("job_id", "schedule", "timezone", "command", "cwd", "env", "python", "args", "kwargs"),
    *("isolation", "http", "timeout", "max_retries", "retry", "max_lost", "priority", "pool"),
    *("overlap", "expires", "success_exit_codes", "concurrency", "rate", "guarantee"),
    *("dependencies", "on_dependency_failure", "dependency_timeout", "on", "heartbeat"),
    *("checkpoint", "tags", "description", "owner", "enabled", "unknown"),
]
inner = st.dictionaries(
    st.sampled_from(
        [
            *("cron", "every", "at", "start", "end", "jitter", "calendar", "exclude", "dst"),
            *("misfire", "url", "method", "headers", "body", "expect", "status", "event", "job"),
            *("state", "filter", "kafka", "limit", "key", "backoff", "base", "max", "retry_on"),
        ]
    ),
    values,
)


@given(
    values
    | st.dictionaries(st.sampled_from(FIELDS), values | inner)
    | st.dictionaries(st.sampled_from(FIELDS), values | inner, max_size=2).map(
        lambda drawn: {"job_id": "x", "command": "a", **drawn}
    )
)
def test_a_job_is_read_or_refused_whatever_it_is(raw):
    problems = []
    spec = read_job(raw, ("jobs", 0), problems, tenant="t", defaults={}, calendars={})
    assert (spec is None) == bool(problems)
    assert all(problem.path[:2] == ("jobs", 0) for problem in problems)
    assert all(str(Document("f", None, {}).locate(problem)) for problem in problems)
    if spec is not None:
        assert msgspec.json.decode(msgspec.json.encode(spec), type=JobSpec) == spec


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
