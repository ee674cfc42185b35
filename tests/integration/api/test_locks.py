"""Locks over HTTP: listed in their tenant, released by hand with an audit row."""

import pytest

from runtime.postgres.locks import PostgresLocks
from tests.integration.locks.helpers import claim_of, hold_of, runs

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]

ODD = "a/b c?d=e&f#'☃"


async def test_a_lock_is_listed_and_released(site):
    books = PostgresLocks(site.world.hot)
    claim = claim_of(await runs(site.world), ODD)
    token = await books.take(claim)
    (shown,) = (await site.get("locks"))["items"]
    assert (shown["name"], shown["token"], shown["job_id"]) == (ODD, token, "a_job")
    assert shown["fencing_token"] == claim.fencing_token
    assert (await site.get("locks?tenant=other"))["items"] == []
    await site.post("locks/release?tenant=other", {"name": ODD}, status=404)
    assert await site.post("locks/release", {"name": ODD}, status=200) == shown
    assert (await site.get("locks"))["items"] == []
    assert await books.renew([(hold_of(claim, token), True)]) == []
    (row,) = (await site.get("audit"))["items"]
    assert (row["action"], row["target"]) == ("release_lock", ODD)
    assert row["detail"]["execution_id"] == shown["execution_id"]
    problem = await site.post("locks/release", {"name": ODD}, status=404)
    assert problem["code"] == "not_found"
    assert "nobody holds a lock" in problem["detail"]


@pytest.mark.parametrize(
    "body", [{}, {"name": ""}, {"name": 7}, {"name": "x" * 256}, {"name": "a", "token": 1}]
)
async def test_what_names_no_lock_is_refused(site, body):
    problem = await site.post("locks/release", body, status=422)
    assert problem["code"] == "invalid"


async def test_a_name_that_cannot_be_kept_is_refused(site):
    assert (await site.post("locks/release", {"name": "a\0b"}, status=422))["code"] == "invalid"


async def test_a_release_needs_the_token(site):
    answer = await site.http.post(
        "/api/v1/locks/release", json={"name": "a"}, headers={"Authorization": "Bearer no"}
    )
    assert answer.status_code == 401


async def test_a_release_sent_again_is_answered_again(site):
    books = PostgresLocks(site.world.hot)
    for _ in range(2):
        await books.take(claim_of(await runs(site.world)))
        given = {"headers": {"Idempotency-Key": "k"}}
        first = await site.post("locks/release", {"name": "till"}, status=200, **given)
        again = await site.post("locks/release", {"name": "till"}, status=200, **given)
        assert first == again
    assert len((await site.get("locks"))["items"]) == 1


async def test_figures_of_locks_are_told(site):
    said = (await site.http.get("/metrics")).text
    assert 'tickwright_lock_wait_seconds_bucket{le="+Inf"} 0.0' in said
    assert "tickwright_locks_lost_total 0.0" in said
