"""DAGs over HTTP: what lists and shows say of real runs, and what people do to them."""

from contextlib import asynccontextmanager

import httpx
import msgspec
import pytest

from tests.support.own_node import until

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]

ETL = """
dags:
  - dag_id: etl
    schedule: "0 2 * * *"
    tags: [nightly]
    tasks:
      - {task_id: extract, command: 'echo ''{"rows": 3}'''}
      - {task_id: check, dependencies: [extract], command: test -e ok}
      - {task_id: load, dependencies: [check], command: "true"}
      - {task_id: audit, dependencies: [extract], command: "true"}
"""
HELD = """
dags:
  - dag_id: held
    tasks:
      - {task_id: first, command: "true"}
      - {task_id: approve, dependencies: [first], wait: {signal: approved, timeout: 1h}}
      - {task_id: last, dependencies: [approve], command: "true"}
"""
TASK = {
    *("task_id", "state", "reason", "started_at", "finished_at", "attempts", "parents"),
    *("cause", "execution_id", "items", "critical", "slack_s"),
}


class Site:
    """A node's API for one tenant."""

    def __init__(self, node, http):
        self.node = node
        self.http = http

    async def get(self, path, status=200):
        answer = await self.http.get(f"/api/v1/{path}")
        assert answer.status_code == status, answer.text
        return answer.json()

    async def post(self, path, body=None, status=200, **options):
        answer = await self.http.post(f"/api/v1/{path}", json=body or {}, **options)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def apply(self, text):
        return await self.post(
            "apply", {"source": "s", "files": [{"name": "dags.yaml", "text": text}]}
        )

    async def trigger(self, dag):
        execution = await self.post(f"jobs/{dag}/trigger", status=201)
        assert execution["dag_run_id"] == execution["execution_id"]
        assert execution["task_id"] is None
        return execution["dag_run_id"]

    async def over(self, run):
        """The run once it is over; the answer to a question that waits for it."""
        found = await self.get(f"dags/runs/{run}/wait?timeout_s=60")
        assert found["state"] in ("succeeded", "failed", "cancelled"), found
        return found

    async def task_is(self, run, task, state):
        found = {}

        async def so():
            found.update(await self.get(f"dags/runs/{run}"))
            return states(found)[task] == state

        await until(so)
        return found


def states(run):
    return {task["task_id"]: task["state"] for task in run["tasks"]}


def tasks(run):
    return {task["task_id"]: task for task in run["tasks"]}


@asynccontextmanager
async def opened(house):
    async with (
        house.node() as node,
        httpx.AsyncClient(
            base_url=node.url, headers={"Authorization": f"Bearer {node.token}"}, timeout=90
        ) as http,
    ):
        yield Site(node, http)


async def test_a_run_is_listed_shown_and_its_tasks_are_executions(house):
    async with opened(house) as site:
        await site.apply(ETL)
        (dag,) = (await site.get("dags"))["items"]
        assert (dag["dag_id"], dag["schedule"], dag["last_state"]) == ("etl", "0 2 * * *", None)
        assert dag["next_fire_at"] is not None
        jobs = (await site.get("jobs"))["items"]
        assert [job["job_id"] for job in jobs] == ["etl"]
        detail = await site.get("dags/etl")
        assert detail["task_list"][0]["task_id"] == "extract"
        definition = (await site.get("jobs/etl"))["definition"]
        assert definition["dag_id"] == "etl"
        assert "max_lost" not in definition

        run = await site.over(await site.trigger("etl"))
        assert run["state"] == "failed"
        assert states(run) == {
            "extract": "succeeded",
            "check": "failed",
            "load": "skipped",
            "audit": "succeeded",
        }
        found = tasks(run)
        assert all(task.keys() >= TASK for task in run["tasks"])
        assert (found["load"]["reason"], found["load"]["cause"]) == ("upstream_failed", "check")
        assert found["load"]["parents"] == ["check"]
        assert found["check"]["attempts"] == 1
        assert "exit code 1" in found["check"]["error"]
        assert run["critical_path"][0] == "extract"
        assert found["load"]["slack_s"] is None
        on_path = {task["task_id"] for task in run["tasks"] if task["critical"]}
        assert on_path == set(run["critical_path"])

        execution = await site.get(f"executions/{found['extract']['execution_id']}")
        assert execution["dag_run_id"] == run["run_id"]
        assert execution["task_id"] == "extract"
        assert execution["input"] is None
        listed = (await site.get("executions?limit=0"))["items"]
        assert {one["dag_run_id"] for one in listed} == {run["run_id"]}
        (dag,) = (await site.get("dags"))["items"]
        assert (dag["last_state"], dag["last_run_id"]) == ("failed", run["run_id"])


async def test_runs_are_listed_newest_first_page_by_page(house):
    async with opened(house) as site:
        await site.apply(ETL + HELD.replace("dags:\n", ""))
        ids = []
        for dag in ("etl", "held", "etl"):
            ids.append(run := await site.trigger(dag))
            rest = site.over(run) if dag == "etl" else site.task_is(run, "first", "succeeded")
            await rest
        for path, wanted in (
            ("dags/runs", ids),
            ("dags/runs?dag=etl", [ids[0], ids[2]]),
            ("dags/held/runs", [ids[1]]),
        ):
            mark = "&" if "?" in path else "?"
            page = await site.get(f"{path}{mark}limit=1")
            found = page["items"]
            while page["next"]:
                page = await site.get(f"{path}{mark}limit=1&cursor={page['next']}")
                found += page["items"]
            assert [run["run_id"] for run in found] == wanted[::-1]
            assert (await site.get(f"{path}{mark}limit=0"))["items"] == found


async def test_failed_tasks_are_tried_again_once_whatever_is_said_twice(house):
    async with opened(house) as site:
        await site.apply(ETL)
        run = await site.trigger("etl")
        before = tasks(await site.over(run))
        (house.folder / "ok").touch()
        key = {"Idempotency-Key": "again"}
        first = await site.post(f"dags/runs/{run}/retry", {"failed": True}, headers=key)
        assert set(first["tasks"]) == {"check", "load"}
        again = await site.post(f"dags/runs/{run}/retry", {"failed": True}, headers=key)
        assert again == first
        after = await site.over(run)
        assert after["state"] == "succeeded"
        assert tasks(after)["extract"] == {
            **before["extract"],
            "critical": tasks(after)["extract"]["critical"],
            "slack_s": tasks(after)["extract"]["slack_s"],
        }
        assert tasks(after)["check"]["executions"] == 2
        audit = (await site.get("audit"))["items"]
        assert audit[0]["action"] == "retry run"
        assert audit[0]["target"] == run
        await site.post(f"dags/runs/{run}/retry", {"tasks": ["nope"]}, status=404)
        await site.post(f"dags/runs/{run}/retry", {"tasks": ["load"], "failed": True}, status=422)


async def test_a_mark_says_who_and_why_in_the_audit_log(house):
    async with opened(house) as site:
        await site.apply(ETL)
        run = await site.trigger("etl")
        await site.over(run)
        body = {"task": "check", "state": "succeeded", "reason": "looked at it"}
        await site.post(f"dags/runs/{run}/mark", body, headers={"X-User": "ada"})
        after = await site.over(run)
        assert after["state"] == "succeeded"
        assert tasks(after)["check"]["marked_by"].startswith("ada ")
        row = (await site.get("audit"))["items"][0]
        assert row["who"].startswith("ada ")
        assert row["detail"] == {"dag_id": "etl", **body}
        missing = {"task": "check", "state": "succeeded"}
        await site.post(f"dags/runs/{run}/mark", missing, status=422)


async def test_a_signal_a_pause_and_a_cancel_reach_a_run(house):
    async with opened(house) as site:
        await site.apply(HELD)
        run = await site.trigger("held")
        found = await site.task_is(run, "approve", "waiting")
        assert tasks(found)["approve"]["wake_at"] is not None
        await site.post(f"dags/runs/{run}/pause", {"reason": "lunch"})
        assert (await site.get(f"dags/runs/{run}"))["state"] == "paused"
        await site.post(f"dags/runs/{run}/resume")
        body = {"name": "approved", "payload": {"by": "ada"}}
        await site.post(f"dags/runs/{run}/signal", body)
        await site.post(f"dags/runs/{run}/signal", body, status=409)
        done = await site.over(run)
        assert done["state"] == "succeeded"
        assert [(s["name"], s["payload"]) for s in done["signals"]] == [("approved", {"by": "ada"})]
        run = await site.trigger("held")
        await site.task_is(run, "approve", "waiting")
        await site.post(f"dags/runs/{run}/cancel")
        assert (await site.over(run))["state"] == "cancelled"
        await site.post(f"dags/runs/{run}/cancel", status=409)
        actions = [row["action"] for row in (await site.get("audit"))["items"]][:4]
        assert actions == ["cancel run", "trigger", "signal run", "resume run"]


async def test_a_run_that_has_not_begun_is_shown_and_cancelled_as_its_execution(house):
    async with opened(house) as site:
        await site.apply(ETL)
        made = await site.post("jobs/etl/trigger", {"in": "1h"}, status=201)
        run = made["dag_run_id"]
        found = await site.get(f"dags/runs/{run}")
        assert found["state"] == "scheduled"
        assert set(states(found).values()) == {"blocked"}
        assert (await site.get("dags/runs"))["items"] == []
        done = await site.post(f"dags/runs/{run}/cancel")
        assert done["state"] == "cancelled"
        assert (await site.get(f"dags/runs/{run}"))["state"] == "cancelled"


async def test_what_becomes_of_a_run_is_streamed_until_it_is_over(house):
    async with opened(house) as site:
        await site.apply(ETL)
        run = await site.trigger("etl")
        told, ends = [], []
        async with site.http.stream("GET", f"/api/v1/dags/runs/{run}/events") as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    told.append(msgspec.json.decode(line[6:]))
                    ends += [t["task_id"] for t in told[-1]["tasks"] if t["state"] == "failed"]
        assert {task["task_id"] for task in told[0]["tasks"]} == {
            *("extract", "check", "load", "audit")
        }
        assert told[-1]["run"]["state"] == "failed"
        assert ends == ["check"]


async def test_an_input_is_held_to_what_the_dag_takes(house):
    text = """
dags:
  - dag_id: orders
    inputs:
      type: object
      required: [region]
      properties: {day: {type: string, default: monday}, region: {enum: [north, south]}}
    tasks:
      - {task_id: only, command: 'echo "[\\"${{ input.region }}\\", \\"${{ input.day }}\\"]"'}
"""
    async with opened(house) as site:
        await site.apply(text)
        problem = await site.post("jobs/orders/trigger", {"input": {"day": 5}}, status=422)
        assert {error["pointer"] for error in problem["errors"]} == {"/input", "/input/day"}
        assert (await site.get("executions"))["items"] == []
        body = {"input": {"region": "north"}, "key": "k"}
        made = await site.post("jobs/orders/trigger", body, status=201)
        assert made["input"] == {"day": "monday", "region": "north"}
        again = await site.post("jobs/orders/trigger", body)
        assert again["execution_id"] == made["execution_id"]
        run = await site.over(made["dag_run_id"])
        assert run["input"] == {"day": "monday", "region": "north"}
        task = await site.get(f"executions/{tasks(run)['only']['execution_id']}")
        assert task["result"] == ["north", "monday"]
        assert task["input"] == run["input"]


async def test_a_run_that_nobody_is_asked_for_fails_by_its_input_and_runs_nothing(house):
    text = """
dags:
  - dag_id: orders
    on: [{event: come}]
    inputs: {type: object, required: [region], properties: {region: {enum: [north, south]}}}
    on_failure_task: page
    finally_task: tidy
    tasks:
      - {task_id: only, command: "touch ran"}
      - {task_id: page, command: "touch ran"}
      - {task_id: tidy, command: "touch ran"}
  - dag_id: world
    tasks:
      - {task_id: west, dag: {dag_id: orders, input: {region: west}}}
      - {task_id: north, dag: {dag_id: orders, input: {region: north}}}
"""
    async with opened(house) as site:
        await site.apply(text.replace("touch ran", f"touch {house.folder}/$RUNTIME_DAG_RUN_ID"))
        await site.post("events/come", {"payload": {"zone": "north"}}, status=201)
        world = await site.over(await site.trigger("world"))
        found = tasks(world)
        assert (found["west"]["state"], found["north"]["state"]) == ("failed", "succeeded")
        west = await site.get(f"dags/runs/{found['west']['execution_id']}")
        by_event = []

        async def come_has_begun():
            runs = (await site.get("dags/runs?dag=orders"))["items"]
            by_event.extend(run["run_id"] for run in runs if run["parent_run_id"] is None)
            return bool(by_event)

        await until(come_has_begun)
        come = await site.over(by_event[0])
        said = "the input is not what the DAG takes: input"
        for run, more in ((west, '.region: "west" is not one of'), (come, 'needs "region"')):
            assert (run["state"], run["reason"]) == ("failed", "input")
            assert run["error"].startswith(said)
            assert more in run["error"]
            assert {(t["state"], t["reason"]) for t in run["tasks"]} == {("skipped", "input")}
            assert not (house.folder / run["run_id"]).exists()
        name = west["run_id"]
        for tail, body in (
            ("retry", {"failed": True}),
            ("retry", {"tasks": ["only"]}),
            ("mark", {"task": "only", "state": "skipped", "reason": "so"}),
        ):
            problem = await site.post(f"dags/runs/{name}/{tail}", body, status=409)
            assert (
                "does not take its input" in problem["detail"] or "has failed" in problem["detail"]
            )
        await site.post(f"executions/{name}/retry", {}, status=200)
        again = await site.over(name)
        assert (again["state"], again["reason"]) == ("failed", "input")


async def test_items_of_a_mapped_task_are_told_and_counted(house):
    text = """
dags:
  - dag_id: parts
    tasks:
      - {task_id: list, command: "echo '[1, 2, 3]'"}
      - task_id: each
        dependencies: [list]
        map: "${{ tasks.list.result }}"
        command: test ${{ item }} != 2
      - {task_id: inner, dag: small}
  - dag_id: small
    tasks: [{task_id: only, command: "true"}]
"""
    async with opened(house) as site:
        await site.apply(text)
        run = await site.over(await site.trigger("parts"))
        found = tasks(run)
        assert run["state"] == found["each"]["state"] == "failed"
        assert found["each"]["item_states"] == {"failed": 1, "succeeded": 2}
        items = found["each"]["items"]
        assert [(i["item"], i["state"], i["attempts"]) for i in items] == [
            (0, "succeeded", 1),
            (1, "failed", 1),
            (2, "succeeded", 1),
        ]
        assert found["list"]["items"] is None
        execution = await site.get(f"executions/{items[1]['execution_id']}")
        assert (execution["task_id"], execution["dag_run_id"]) == ("each", run["run_id"])
        inner = await site.get(f"dags/runs/{found['inner']['execution_id']}")
        assert (inner["dag_id"], inner["parent_run_id"]) == ("small", run["run_id"])


async def test_what_is_not_there_is_a_404_in_the_tenant_that_asks(house):
    async with opened(house) as site:
        await site.apply(ETL)
        run = await site.trigger("etl")
        await site.over(run)
        for path in ("dags/nope", "dags/nope/runs", "dags/runs/nope", f"dags/{run}"):
            await site.get(path, status=404)
        other = {"X-Tenant": "other"}
        for path in (f"dags/runs/{run}", f"dags/runs/{run}/wait", "dags/etl", "dags/etl/runs"):
            answer = await site.http.get(f"/api/v1/{path}", headers=other)
            assert answer.status_code == 404
        for action in ("cancel", "pause", "resume", "retry"):
            await site.post(f"dags/runs/{run}/{action}", status=404, headers=other)
        answer = await site.http.get("/api/v1/dags/runs", headers=other)
        assert answer.json() == {"items": [], "next": None}
        execution = (await site.get("executions?job=etl"))["items"][0]["execution_id"]
        assert execution == run
        task = tasks(await site.get(f"dags/runs/{run}"))["extract"]["execution_id"]
        problem = await site.get(f"dags/runs/{task}", status=404)
        assert "executions show" in problem["detail"]


async def test_the_document_tells_of_every_route(house):
    async with opened(house) as site:
        document = (await site.http.get("/api/openapi.json")).json()
        paths = {path for path in document["paths"] if path.startswith("/api/v1/dags")}
        stem = "/api/v1/dags/runs/{run_id}"
        assert paths == {
            *("/api/v1/dags", "/api/v1/dags/{dag_id}", "/api/v1/dags/{dag_id}/runs"),
            *("/api/v1/dags/runs", stem, f"{stem}/wait", f"{stem}/events"),
            *(f"{stem}/{verb}" for verb in ("cancel", "pause", "resume", "retry")),
            *(f"{stem}/mark", f"{stem}/signal"),
        }
        body = document["paths"][f"{stem}/mark"]["post"]["requestBody"]
        assert body["content"]["application/json"]["schema"]["$ref"].endswith("MarkTask")


async def test_a_backfill_runs_so_many_at_once_as_it_was_told(house):
    text = """
dags:
  - dag_id: nightly
    schedule: "0 2 * * *"
    tasks:
      - {task_id: hold, wait: {signal: go, timeout: 1h}}
"""
    async with opened(house) as site:
        await site.apply(text)
        filled = await site.post(
            "jobs/nightly/backfill",
            {"from": "2026-06-01T00:00:00Z", "to": "2026-06-07T00:00:00Z", "parallel": 2},
            status=201,
        )
        assert len(filled["created"]) == 6
        for left in (6, 4, 2):

            async def two_run():
                page = await site.get("dags/runs?limit=0")
                return sum(run["state"] == "running" for run in page["items"]) == 2

            await until(two_run)
            going = [
                run["run_id"]
                for run in (await site.get("dags/runs?limit=0"))["items"]
                if run["state"] == "running"
            ]
            assert len((await site.get("executions?job=nightly&limit=0"))["items"]) == 6
            assert len((await site.get("dags/runs?limit=0"))["items"]) == 8 - left
            for run in going:
                await site.post(f"dags/runs/{run}/signal", {"name": "go"})
            for run in going:
                assert (await site.over(run))["state"] == "succeeded"
