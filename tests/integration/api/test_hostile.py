"""What a hostile or a careless client sends is refused with its place, and nothing is mistaken."""

import asyncio
import json
import threading

import pytest

from protocols.errors import UnavailableError
from runtime.api import apply, away
from runtime.files.load import load_texts
from runtime.postgres.operations.cursors import cursor_of

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]


@pytest.mark.parametrize(
    "place", [["0001-01-01T00:00:00+14:00", 0], ["9999-12-31T23:59:59-14:00", 0], [1, 2], "x"]
)
async def test_a_cursor_beyond_the_calendar_is_refused(site, place):
    await site.job("a")
    await site.get("executions", status=422, params={"job": "a", "cursor": cursor_of(place)})


@pytest.mark.parametrize("name", ["a/b", "a//b", "a/", "shop/order:paid", "a"])
async def test_an_event_may_have_any_name_that_a_job_may_listen_for(site, name):
    await site.job("a", on={"event": name})
    path = name.replace("/", "%2F")
    assert (await site.post(f"events/{path}"))["event"] == name
    row = await site.world.one("SELECT name FROM events WHERE kind = 'emitted'")
    assert row["name"] == name


async def test_an_event_without_a_name_is_refused(site):
    for path in ("events/", "events/%2Fa", "events/a%00"):
        answer = await site.http.post(f"/api/v1/{path}", json={})
        assert 400 <= answer.status_code < 500


async def test_nodes_come_in_pages_too(site):
    for number in (1, 2, 3):
        await site.world.rows(
            "INSERT INTO nodes (name, url, pid, host, version, started_at, last_beat_at)"
            " VALUES ($1, 'http://x', 7, 'h', '0.1', '2026-12-01Z', '2026-12-01Z')",
            f"n{number}",
        )
    first = await site.get("nodes?limit=2")
    rest = await site.get(f"nodes?limit=2&cursor={first['next']}")
    assert [node["name"] for node in (*first["items"], *rest["items"])] == ["n3", "n2", "n1"]
    assert rest["next"] is None
    await site.get("nodes?cursor=zz", status=422)


async def test_an_empty_condition_is_none_that_holds(site):
    await site.job("a")
    url = "/api/v1/jobs/a"
    answer = await site.http.delete(url, headers={"If-Match": ""})
    assert answer.status_code == 400
    assert (await site.http.get(url)).status_code == 200


async def test_a_field_said_twice_is_refused_by_its_place(site):
    content = '{"job_id": "a", "command": "true", "env": {"A": "1", "A": "2"}}'
    answer = await site.http.post(
        "/api/v1/jobs", content=content, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/env/A"
    assert (await site.get("jobs"))["items"] == []


async def test_what_is_no_id_is_told_by_its_number(site):
    body = {"execution_ids": ["01890000-0000-7000-8000-000000000001", "x"]}
    found = await site.post("dead-letters/replay", body, status=422)
    assert [error["pointer"] for error in found["errors"]] == ["/execution_ids/1"]


async def test_a_key_as_long_as_a_book_is_not_sent_back(site):
    for path in ("jobs", "jobs/a/trigger"):
        answer = await site.http.post(f"/api/v1/{path}", json={"k" * 900_000: 1})
        assert answer.status_code == 422
        assert len(answer.content) < 2000


async def test_the_audit_says_who_it_was(site):
    await site.job("a")
    await site.http.post("/api/v1/jobs/a/pause", headers={"X-User": "ada@desk"})
    rows = (await site.get("audit"))["items"]
    assert [row["who"] for row in rows] == ["ada@desk from 127.0.0.1", "api from 127.0.0.1"]
    for odd in ("", "a b", "x" * 201, "\u00e9".encode()):
        answer = await site.http.post("/api/v1/jobs/a/pause", headers={"X-User": odd})
        assert answer.status_code == 422


async def test_a_key_stands_for_a_body_however_its_fields_are_ordered(site):
    await site.job("a")
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    url, one, other = "/api/v1/jobs/a/trigger", {"a": 1, "b": 2}, {"b": 2, "a": 1}
    for given, status in ((one, 201), (other, 200)):
        answer = await site.http.post(url, content=json.dumps({"input": given}), headers=headers)
        assert answer.status_code == status


async def test_a_read_waits_for_a_slow_database_and_not_for_one_that_is_away(site, monkeypatch):
    monkeypatch.setattr(away, "READ_WITHIN_S", 0.01)
    await site.job("a")
    loop = asyncio.get_running_loop()
    async with site.world.node.transaction() as held:
        await held.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
        slow = loop.create_task(site.http.get("/api/v1/jobs"))
        await site.get("actors")
        assert not slow.done()
        site.health.trouble("database", "no answer for 5 s")
        answer = await slow
        assert answer.status_code == 503
        assert answer.json()["detail"] == "the database does not answer: no answer for 5 s"
        site.health.mend("database")
        slow = loop.create_task(site.http.get("/api/v1/jobs"))
    assert (await slow).json()["items"][0]["job_id"] == "a"


async def test_large_files_are_read_beside_the_loop(site, monkeypatch):
    loop, turned = asyncio.get_running_loop(), threading.Event()

    def slow(texts, *, source):
        loop.call_soon_threadsafe(turned.set)
        assert turned.wait(20), "the loop stands still while files are read"
        return load_texts(texts, source=source)

    monkeypatch.setattr(apply, "load_texts", slow)
    files = [{"name": "a.yaml", "text": "jobs: [{job_id: a, command: x}]"}]
    done = await site.post("apply", {"source": "s", "files": files}, status=200)
    assert done["created"] == ["a"]
    files[0]["text"] = "jobs: 5"
    found = await site.post("apply", {"source": "s", "files": files}, status=422)
    assert found["errors"][0]["line"] == 1


async def test_an_error_of_a_read_is_told_as_it_is(site):
    async def asked():
        raise UnavailableError("x")

    with pytest.raises(UnavailableError, match=r"^x$"):
        await away.answered_or_away(asked(), site.health)
