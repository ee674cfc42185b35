"""Jobs over HTTP: made, read, changed, deleted, by the fields of job files."""

import pytest
from msgspec import structs

from protocols.messages import SchedulesChanged

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]


async def test_a_job_is_made_shown_listed_and_deleted(site):
    made = await site.http.post(
        "/api/v1/jobs",
        json={"job_id": "a", "command": ["echo", "x"], "schedule": "0 5 * * *", "tags": ["t"]},
    )
    assert made.status_code == 201
    assert made.headers["Location"] == "/api/v1/jobs/a"
    assert made.json()["definition"]["command"] == ["echo", "x"]
    assert site.hints.hints == [SchedulesChanged()]
    shown = await site.http.get("/api/v1/jobs/a")
    assert shown.headers["ETag"] == made.headers["ETag"]
    listed = await site.get("jobs?tag=t")
    assert [job["job_id"] for job in listed["items"]] == ["a"]
    assert (await site.get("jobs?tag=u"))["items"] == []
    assert (await site.http.delete("/api/v1/jobs/a")).status_code == 204
    await site.get("jobs/a", status=404)
    actions = [row["action"] for row in (await site.get("audit"))["items"]]
    assert actions == ["delete", "create"]


async def test_everything_wrong_is_told_at_once_with_its_place(site):
    problem = await site.post(
        "jobs",
        {"job_id": "a", "command": "x", "timeout": "soon", "schedul": "x", "retry": {"max": -1}},
        status=422,
    )
    assert {error["pointer"] for error in problem["errors"]} == {
        "/timeout",
        "/schedul",
        "/retry/max",
    }
    assert "schedule" in next(e["message"] for e in problem["errors"] if e["pointer"] == "/schedul")
    assert (await site.get("jobs"))["items"] == []
    missing = await site.post("jobs", {"job_id": "a", "python": "no.such:thing"}, status=422)
    assert missing["errors"][0]["pointer"] == "/python"


async def test_what_is_not_built_is_refused_by_name(site):
    for field, value in (("rate", {"limit": 1}), ("concurrency", {"limit": 1, "key": "k"})):
        problem = await site.post("jobs", {"job_id": "a", "command": "x", field: value}, status=422)
        assert "not built yet" in problem["detail"]


async def test_a_second_job_of_a_name_is_a_conflict(site):
    await site.job("a")
    assert (await site.post("jobs", {"job_id": "a", "command": "x"}, status=409))["code"] == (
        "conflict"
    )


async def test_a_job_is_replaced_only_by_whoever_has_seen_it(site):
    first = await site.http.put("/api/v1/jobs/a", json={"command": "one"})
    assert first.status_code == 201
    second = await site.http.put(
        "/api/v1/jobs/a", json={"command": "two"}, headers={"If-Match": first.headers["ETag"]}
    )
    assert second.status_code == 200
    assert second.headers["ETag"] != first.headers["ETag"]
    for method, options in (
        ("PUT", {"json": {"command": "three"}}),
        ("PATCH", {"json": {"timeout": 5}}),
        ("DELETE", {}),
    ):
        late = await site.http.request(
            method, "/api/v1/jobs/a", headers={"If-Match": first.headers["ETag"]}, **options
        )
        assert late.status_code == 412, late.text
    assert (await site.get("jobs/a"))["definition"]["command"] == "two"
    taken = await site.http.put(
        "/api/v1/jobs/a", json={"command": "x"}, headers={"If-None-Match": "*"}
    )
    assert taken.status_code == 412


async def test_a_job_made_anew_is_not_the_one_that_was_seen(site):
    tag = (await site.http.put("/api/v1/jobs/a", json={"command": "x"})).headers["ETag"]
    await site.http.delete("/api/v1/jobs/a")
    await site.http.put("/api/v1/jobs/a", json={"command": "x"})
    late = await site.http.delete("/api/v1/jobs/a", headers={"If-Match": tag})
    assert late.status_code == 412


async def test_a_patch_changes_what_it_names_and_null_takes_out(site):
    await site.job("a", schedule="0 5 * * *", timezone="Europe/Berlin", timeout=5, env={"A": "1"})
    changed = await site.http.patch(
        "/api/v1/jobs/a", json={"timeout": None, "env": {"B": "2"}, "max_retries": 3}
    )
    assert changed.status_code == 200, changed.text
    definition = changed.json()["definition"]
    assert definition["env"] == {"A": "1", "B": "2"}
    assert definition["max_retries"] == 3
    assert "timeout" not in definition
    assert changed.json()["timezone"] == "Europe/Berlin"
    assert changed.json()["version"] == 2
    renamed = await site.http.patch("/api/v1/jobs/a", json={"job_id": "b"})
    assert renamed.status_code == 409
    wrong = await site.http.patch("/api/v1/jobs/a", json={"env": 7})
    assert wrong.status_code == 422


async def test_a_node_without_kafka_takes_no_job_that_its_records_trigger(site):
    on = [{"kafka": {"topic": "t"}}]
    refused = await site.post("jobs", {"job_id": "k", "command": "x", "on": on}, status=422)
    assert "this node has no Kafka" in str(refused)
    await site.job("a")
    changed = await site.http.patch("/api/v1/jobs/a", json={"on": on})
    assert changed.status_code == 422, changed.text
    site.settings = structs.replace(
        site.settings,
        database_url="postgresql://h/d",
        etcd_endpoints=("http://h:1",),
        kafka_bootstrap_servers=("h:1",),
    )
    changed = await site.http.patch("/api/v1/jobs/a", json={"on": on})
    assert changed.status_code == 200, changed.text
    assert changed.json()["definition"]["on"] == on


async def test_what_is_shown_can_be_sent_back_and_changes_nothing(site):
    await site.job(
        "a", schedule={"every": "90m", "jitter": "5s"}, retry={"base": 1, "retry_on": ["failed"]}
    )
    definition = (await site.get("jobs/a"))["definition"]
    again = await site.http.put("/api/v1/jobs/a", json=definition)
    assert again.json()["version"] == 1


async def test_another_sources_job_needs_adopt(site):
    files = [{"name": "f.yaml", "text": "jobs:\n  - {job_id: a, command: x}\n"}]
    await site.post("apply", {"source": "files", "files": files}, status=200)
    refused = await site.http.put("/api/v1/jobs/a", json={"command": "y"})
    assert refused.status_code == 409
    taken = await site.http.put("/api/v1/jobs/a?adopt=true", json={"command": "y"})
    assert taken.json()["source"] == "api"


async def test_tenants_do_not_see_each_other(site):
    await site.job("a")
    for options in ({"headers": {"X-Tenant": "other"}}, {"params": {"tenant": "other"}}):
        assert (await site.get("jobs", **options))["items"] == []
        await site.get("jobs/a", status=404, **options)
    both = {"headers": {"X-Tenant": "one"}, "params": {"tenant": "two"}}
    await site.get("jobs", status=422, **both)
    await site.get("jobs", status=422, params={"tenant": "a b"})


async def test_a_page_goes_on_where_it_ended_while_jobs_are_made(site):
    for n in range(5):
        await site.job(f"j{n}")
    first = await site.get("jobs?limit=2")
    await site.job("new")
    second = await site.get(f"jobs?limit=2&cursor={first['next']}")
    third = await site.get(f"jobs?limit=2&cursor={second['next']}")
    names = [job["job_id"] for page in (first, second, third) for job in page["items"]]
    assert names == ["j4", "j3", "j2", "j1", "j0"]
    assert third["next"] is None
    everything = await site.get("jobs?limit=0")
    assert [job["job_id"] for job in everything["items"]] == ["new", *names]


async def test_all_of_a_long_list_is_streamed_over_pages(site, monkeypatch):
    for n in range(5):
        await site.job(f"j{n}")
    monkeypatch.setattr("runtime.api.asked.PAGE_MAX", 2)
    everything = await site.get("jobs?limit=0")
    assert [job["job_id"] for job in everything["items"]] == ["j4", "j3", "j2", "j1", "j0"]
    assert everything["next"] is None
    some = await site.get("jobs?limit=3")
    assert [job["job_id"] for job in some["items"]] == ["j4", "j3", "j2"]
    rest = await site.get(f"jobs?limit=3&cursor={some['next']}")
    assert [job["job_id"] for job in rest["items"]] == ["j1", "j0"]


async def test_next_tells_when_a_job_is_due(site):
    await site.job("a", schedule="0 5 * * *", timezone="Europe/Berlin")
    await site.job("b")
    due = await site.get("jobs/a/next?count=2&after=2026-12-01T00:00:00%2B00:00")
    assert due["items"] == ["2026-12-01T04:00:00.000000Z", "2026-12-02T04:00:00.000000Z"]
    assert (await site.get("jobs/b/next"))["items"] == []
    await site.get("jobs/nobody/next", status=404)
    await site.get("jobs/a/next?after=soon", status=422)


async def test_a_job_is_paused_with_a_reason_and_resumed(site):
    await site.job("a", schedule="0 5 * * *")
    paused = await site.post("jobs/a/pause", {"reason": "why not"}, status=200)
    assert (paused["paused"], paused["paused_reason"]) == (True, "why not")
    assert (await site.post("jobs/a/resume", status=200))["paused"] is False


async def test_files_are_applied_whole_or_not_at_all(site):
    text = "jobs:\n  - {job_id: a, command: x}\n  - {job_id: b, command: x, timeout: soon}\n"
    problem = await site.post(
        "apply", {"source": "s", "files": [{"name": "f.yaml", "text": text}]}, status=422
    )
    (error,) = problem["errors"]
    assert (error["file"], error["line"]) == ("f.yaml", 3)
    good = text.replace("soon", "5")
    body = {"source": "s", "files": [{"name": "f.yaml", "text": good}]}
    dry = await site.post("apply", {**body, "dry_run": True}, status=200)
    assert dry["created"] == ["a", "b"]
    assert (await site.get("jobs"))["items"] == []
    key = {"Idempotency-Key": "k"}
    assert (await site.post("apply", body, status=200, headers=key))["created"] == ["a", "b"]
    assert (await site.post("apply", body, status=200, headers=key))["created"] == ["a", "b"]
    assert (await site.post("apply", body, status=200))["unchanged"] == ["a", "b"]
    less = {**body, "files": [{"name": "f.yaml", "text": "jobs: []"}], "prune": True}
    await site.post("apply", less, status=422, headers=key)
