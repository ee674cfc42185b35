"""Decides what follows the end of an attempt: nothing, a retry and when, or the dead letters.

Pure. Failed and timed-out attempts use `max_retries`; lost ones use `max_lost`; work given back
because its host was killed for another's sake uses neither.
"""

import random
from datetime import datetime, timedelta
from typing import Final, Literal, assert_never, cast

from protocols.executions import AttemptState
from protocols.jobs import JobSpec, Retry
from protocols.ports.executor import Outcome
from protocols.ports.store import Claimed, Finish

Next = Literal["succeeded", "dead", "cancelled", "scheduled"]
Spends = Literal["retry", "lost", "none"]

_LONGEST_DELAY_S: Final = 366 * 86400.0


def fibonacci(n: int) -> int:
    """F(n), with F(1) = F(2) = 1."""
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a


def delay_s(retry: Retry, n: int, rng: random.Random) -> float:
    """Seconds to wait before retry `n` (the first is 1), as the job's `retry:` says.

    base*2^(n-1), base*n, base*F(n) or base, capped by `max_s`, plus uniform(0, jitter*delay).
    """
    cap = min(retry.max_s, _LONGEST_DELAY_S)
    steps = min(n, 64)  # far past any cap, and the powers stay finite
    match retry.backoff:
        case "exponential":
            delay = retry.base_s * 2.0 ** (steps - 1)
        case "linear":
            delay = retry.base_s * n
        case "fibonacci":
            delay = retry.base_s * fibonacci(steps)
        case "fixed":
            delay = retry.base_s
        case _:
            assert_never(retry.backoff)
    delay = min(delay, cap)
    return delay + rng.uniform(0.0, retry.jitter * delay)


def after_attempt(
    claimed: Claimed, spec: JobSpec, outcome: Outcome, *, now: datetime, rng: random.Random
) -> Finish:
    """What to write for `outcome` of the attempt that `claimed` began; not for `unstarted`."""
    match outcome.state:
        case "succeeded":
            return _finish(outcome, "succeeded")
        case "cancelled":
            return _finish(outcome, "cancelled", reason="cancelled")
        case "lost":
            return _after_loss(claimed, spec, outcome, now=now)
        case "failed" | "timed_out" as how:
            retry = spec.retry
            spent = claimed.failures >= retry.max_retries
            if spec.guarantee == "at_most_once" or spent or how not in retry.retry_on:
                return _finish(outcome, "dead", reason=how, spends="retry")
            wait = timedelta(seconds=delay_s(retry, claimed.failures + 1, rng))
            return _finish(outcome, "scheduled", run_at=now + wait, reason="retry", spends="retry")
        case _:
            raise ValueError(f"an attempt that is {outcome.state} has not ended")


def _after_loss(claimed: Claimed, spec: JobSpec, outcome: Outcome, *, now: datetime) -> Finish:
    spends: Spends = "none" if outcome.bystander else "lost"
    exhausted = not outcome.bystander and claimed.losses >= spec.retry.max_lost
    if exhausted or spec.guarantee == "at_most_once":
        return _finish(outcome, "dead", reason="lost", spends=spends)
    return _finish(outcome, "scheduled", run_at=now, reason="lost", spends=spends)


def _finish(
    outcome: Outcome,
    state: Next,
    *,
    reason: str | None = None,
    run_at: datetime | None = None,
    spends: Spends = "none",
) -> Finish:
    return Finish(
        id=outcome.id,
        fencing_token=outcome.fencing_token,
        attempt_state=cast("AttemptState", outcome.state),
        state=state,
        started_ns=outcome.started_ns,
        finished_ns=outcome.finished_ns,
        spends=spends,
        run_at=run_at,
        reason=reason,
        exit_code=outcome.exit_code,
        error=outcome.error,
        result=outcome.result,
        output=outcome.output,
    )
