"""Whatever is sent, by whatever path, no answer is a fault of the server's."""

import asyncio
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.api.conftest import site_of

pytestmark = [pytest.mark.postgres]

WORDS = st.sampled_from(
    [
        "a",
        "b",
        "0",
        "-1",
        "",
        "x" * 300,
        "@daily",
        "* * * * *",
        "true",
        "\u00e9",
        "\0",
        "\U0001f600",
    ]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | WORDS
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)
JOB_FIELDS = (
    "job_id", "schedule", "timezone", "command", "cwd", "env", "python", "args", "kwargs", "http",
    "isolation", "timeout", "max_retries", "retry", "max_lost", "priority", "pool", "overlap",
    "expires", "success_exit_codes", "concurrency", "rate", "guarantee", "dependencies", "on",
    "on_dependency_failure", "dependency_timeout", "heartbeat", "checkpoint", "tags", "owner",
    "description", "enabled",
)  # fmt: skip
OTHER_FIELDS = (
    "input", "at", "in", "key", "with_dependencies", "reason", "from", "to", "limit", "dry_run",
    "execution_ids", "job", "all", "payload", "source", "files", "adopt", "prune", "value", "ttl_s",
)  # fmt: skip
# `python` would start a process for each example.
FIELDS = st.sampled_from([*(f for f in JOB_FIELDS if f != "python"), *OTHER_FIELDS])
BODIES = st.dictionaries(FIELDS, VALUES, max_size=6) | VALUES
PATHS = st.sampled_from(
    [
        "jobs", "jobs/a", "jobs/a/trigger", "jobs/a/pause", "jobs/a/resume", "jobs/a/next",
        "jobs/a/backfill", "executions", "executions/x", "executions/x/cancel",
        "executions/01890000-0000-7000-8000-000000000001/retry", "executions/x/logs",
        "executions/01890000-0000-7000-8000-000000000001/wait", "executions/x/checkpoint",
        "executions/01890000-0000-7000-8000-000000000001/once", "executions/x/heartbeat",
        "dead-letters", "dead-letters/replay", "dead-letters/discard", "events/e", "nodes",
        "actors", "audit", "stats", "apply", "resume", "dags", "locks/a", "nodes/a/drain", "shards",
        "jobs/%00", "jobs/%ff", "jobs/%ED%A0%80/trigger", "jobs/..%2f..", "%2e%2e/x", "jobs//a",
    ]
)  # fmt: skip
QUERIES = st.dictionaries(
    st.sampled_from(
        ["limit", "cursor", "tag", "job", "state", "since", "tenant", "count", "after", "grep",
         "attempt", "timeout_s", "adopt", "x"]
    ),
    WORDS | st.text(max_size=12) | st.integers().map(str) | st.just("bnVsbA") | st.just("MTIz"),
    max_size=3,
)  # fmt: skip
METHODS = st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE"])
REQUESTS = st.lists(
    st.tuples(METHODS, PATHS, QUERIES, BODIES, st.binary(max_size=30)), min_size=5, max_size=15
)


def _encoded(body, noise):
    """JSON as it is, and one in eight times cut short or with noise in it."""
    text = json.dumps(body).encode()
    if not noise or noise[0] % 8:
        return text
    at = noise[0] % (len(text) + 1)
    return text[:at] + noise[1:]


async def _ask_all(site, requests):
    faults = []
    for method, path, query, body, noise in requests:
        # A wait of a minute is right, and not what is looked for here.
        asked = {**query, "timeout_s": "0"} if "timeout_s" in query else query
        answer = await site.http.request(
            method,
            f"/api/v1/{path}",
            params=asked,
            content=None if method == "GET" else _encoded(body, noise),
            headers={"Content-Type": "application/json", "X-Fencing-Token": "7"},
        )
        if answer.status_code >= 500 or "Traceback" in answer.text:
            faults.append((method, path, query, body, noise, answer.text))
        elif answer.status_code >= 400:
            assert answer.json()["status"] == answer.status_code
    return faults


def test_no_request_is_a_fault_of_ours(postgres_server, tmp_path):
    """Many requests to one node: what one of them does, the next ones meet."""
    with asyncio.Runner() as runner:
        context = site_of(postgres_server, tmp_path)
        queue, answers = asyncio.Queue(), asyncio.Queue()

        async def live():
            async with context as site:
                await site.job("a", schedule="0 5 * * *")
                while (requests := await queue.get()) is not None:
                    try:
                        answers.put_nowait(await _ask_all(site, requests))
                    except Exception as error:  # noqa: BLE001 - told to whoever asked
                        answers.put_nowait(error)

        async def ask(requests):
            queue.put_nowait(requests)
            return await answers.get()

        async def begin():
            return asyncio.get_running_loop().create_task(live())

        living = runner.run(begin())

        @settings(
            max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), database=None
        )
        @given(REQUESTS)
        def fuzz(requests):
            found = runner.run(ask(requests))
            if isinstance(found, Exception):
                raise found
            assert found == []

        async def end():
            queue.put_nowait(None)
            await living

        try:
            fuzz()
        finally:
            runner.run(end())
