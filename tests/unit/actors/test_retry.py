"""What follows the end of an attempt."""

import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.worker.retry import after_attempt, delay_s
from protocols.jobs import CommandTask, JobSpec, Retry
from protocols.ports.executor import Outcome
from protocols.ports.store import Claimed

NOW = datetime(2026, 12, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("backoff", "delays"),
    [
        ("exponential", [2, 4, 8, 16, 32]),
        ("linear", [2, 4, 6, 8, 10]),
        ("fibonacci", [2, 2, 4, 6, 10]),
        ("fixed", [2, 2, 2, 2, 2]),
    ],
)
def test_the_delay_before_each_retry(backoff, delays):
    retry = Retry(backoff=backoff, jitter=0.0)
    assert [delay_s(retry, n, random.Random(0)) for n in range(1, 6)] == delays


@given(
    backoff=st.sampled_from(["exponential", "linear", "fibonacci", "fixed"]),
    n=st.integers(1, 10**6),
    base_s=st.floats(0.001, 1e6),
    jitter=st.floats(0, 1),
    seed=st.integers(),
)
def test_no_delay_passes_its_cap_and_its_jitter(backoff, n, base_s, jitter, seed):
    retry = Retry(backoff=backoff, base_s=base_s, max_s=300.0, jitter=jitter)
    assert 0 < delay_s(retry, n, random.Random(seed)) <= 300.0 * (1 + jitter)


def decide(state, *, failures=0, losses=0, bystander=False, **fields):
    fields.setdefault("retry", Retry(max_retries=2, max_lost=1, jitter=0.0))
    claimed = Claimed(
        id=1,
        created_at=NOW,
        tenant="default",
        job_id="j",
        job_key=1,
        version=1,
        priority=2,
        scheduled_for=NOW,
        attempt=1,
        failures=failures,
        losses=losses,
        fencing_token=5,
        input=None,
    )
    spec = JobSpec(job_id="j", task=CommandTask(shell="true"), **fields)
    outcome = Outcome(
        id=1, fencing_token=5, state=state, started_ns=0, finished_ns=1, bystander=bystander
    )
    finish = after_attempt(claimed, spec, outcome, now=NOW, rng=random.Random(0))
    return finish.state, finish.reason, finish.spends, finish.run_at


def seconds(count):
    return NOW + timedelta(seconds=count)


def test_failures_use_max_retries_and_end_dead():
    assert decide("failed") == ("scheduled", "retry", "retry", seconds(2))
    assert decide("timed_out", failures=1) == ("scheduled", "retry", "retry", seconds(4))
    assert decide("failed", failures=2) == ("dead", "failed", "retry", None)


def test_losses_have_a_budget_of_their_own():
    assert decide("lost", failures=2) == ("scheduled", "lost", "lost", NOW)
    assert decide("lost", losses=1) == ("dead", "lost", "lost", None)
    assert decide("lost", losses=9, bystander=True) == ("scheduled", "lost", "none", NOW)


def test_what_may_start_once_only_ends_with_its_first_attempt():
    for state in ("failed", "timed_out", "lost"):
        assert decide(state, guarantee="at_most_once")[0] == "dead"
    assert decide("lost", guarantee="at_most_once", bystander=True)[0] == "dead"


def test_only_what_retry_on_names_is_retried():
    only = Retry(max_retries=2, retry_on=("timed_out",))
    assert decide("failed", retry=only)[0] == "dead"
    assert decide("timed_out", retry=only)[0] == "scheduled"


def test_what_went_well_or_was_cancelled_is_over():
    assert decide("succeeded") == ("succeeded", None, "none", None)
    assert decide("cancelled") == ("cancelled", "cancelled", "none", None)
