"""What the API shows of a job is what a job file would say: reading it gives the same job."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.api.jobs import merged
from runtime.api.spelling import spelled
from runtime.files.jobs import read_job
from runtime.files.load import load_files

EXAMPLES = [
    {"command": "true"},
    {"command": ["a", "b c"], "cwd": "/tmp", "env": {"A": "1"}, "success_exit_codes": [0, 3]},
    {"python": "a.b:c", "args": [1, None, {"x": []}], "kwargs": {"k": 1}, "isolation": "shared"},
    {
        "http": {
            "url": "https://example.org/x",
            "method": "post",
            "headers": {"A": "b"},
            "body": {"a": [1]},
            "expect": {"status": [200, 204], "body_contains": "ok"},
        }
    },
    {"command": "x", "schedule": "@daily", "timezone": "Europe/Berlin"},
    {"command": "x", "schedule": "@every 1h30m"},
    {"command": "x", "schedule": "@every 100.1234567"},
    {"command": "x", "schedule": {"every": 90}},
    {"command": "x", "schedule": "@after 24h"},
    {"command": "x", "schedule": "@at 2026-12-01T09:00:00+01:00"},
    {
        "command": "x",
        "schedule": {"at": "2026-12-01T09:00:00+01:00", "misfire": {"policy": "skip"}},
    },
    {
        "command": "x",
        "schedule": {
            "cron": "*/5 9-17 * * mon-fri",
            "timezone": "America/New_York",
            "start": "2026-01-01T00:00:00Z",
            "end": "2027-01-01T00:00:00Z",
            "jitter": "1.5s",
            "calendar": ["work"],
            "exclude": ["2026-12-25"],
            "dst": {"gap": "skip", "fold": "both"},
            "misfire": {
                "policy": "catch_up",
                "grace": "31s",
                "within": "1h",
                "limit": 7,
                "rate": "30/7m",
            },
        },
    },
    {
        "command": "x",
        "timeout": "1h30m",
        "max_retries": 2,
        "max_lost": 1,
        "retry": {
            "backoff": "fibonacci",
            "base": "1s",
            "max": "1m",
            "jitter": 0.5,
            "retry_on": ["failed"],
        },
        "priority": "critical",
        "pool": "other",
        "overlap": "queue",
        "expires": "2d",
        "concurrency": {"limit": 3},
        "dependencies": ["p", "q"],
        "on_dependency_failure": "run",
        "dependency_timeout": 0.25,
        "on": [
            {"event": "e", "filter": {"a.b": 1}},
            {"job": "p", "state": "dead"},
            {"kafka": {"topic": "orders"}},
            {"kafka": {"topic": "orders", "group": "g", "key": ""}, "filter": {"a": [1]}},
        ],
        "heartbeat": "5s",
        "checkpoint": "job",
        "tags": ["a", "b"],
        "description": "d",
        "owner": "o",
        "enabled": False,
    },
    {"command": "x", "guarantee": "at_most_once"},
]


def _read(fields):
    problems = []
    spec = read_job(
        {"job_id": "j", **fields}, (), problems, tenant="default", defaults={}, calendars={}
    )
    assert not problems, problems
    return spec


@pytest.mark.parametrize("fields", EXAMPLES)
def test_what_is_shown_reads_back_as_the_same_job(fields):
    spec = _read(fields)
    assert _read(spelled(spec)) == spec


def test_the_example_jobs_read_back_too():
    folder = Path(__file__).parents[2] / "config"
    for located in load_files([folder / "jobs.yaml"]).jobs:
        spec = located.spec
        again = read_job(
            spelled(spec), (), [], tenant=spec.tenant, defaults={}, calendars=spec.calendars
        )
        assert again == spec


@given(st.floats(0.001, 86400 * 366), st.floats(0.001, 86400))
def test_every_duration_reads_back(timeout, base):
    spec = _read({"command": "x", "timeout": timeout, "retry": {"base": base}})
    assert _read(spelled(spec)) == spec


@given(st.integers(1, 10_000), st.sampled_from(["s", "m", "7m", "1.3h", "ms"]))
def test_every_rate_reads_back(count, unit):
    fields = {"cron": "* * * * *", "misfire": {"policy": "catch_up", "rate": f"{count}/{unit}"}}
    spec = _read({"command": "x", "schedule": fields})
    assert _read(spelled(spec)) == spec


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=8,
)


def _without_nulls(value):
    if not isinstance(value, dict):
        return value
    return {k: _without_nulls(v) for k, v in value.items() if v is not None}


@given(JSON, JSON)
def test_a_merge_patch_keeps_to_its_laws(old, patch):
    """RFC 7396: a patch that is no object replaces; nulls remove; twice is as once."""
    once = merged(old, patch)
    if not isinstance(patch, dict):
        assert once == patch
        return
    assert merged(once, patch) == once
    assert merged({}, patch) == _without_nulls(patch)
    kept = set(old) - set(patch) if isinstance(old, dict) else set()
    assert set(once) == kept | {k for k, v in patch.items() if v is not None}
