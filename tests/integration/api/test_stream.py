"""Server-sent events: all that happens, in order, resumed without a gap, ended with the node."""

import asyncio
import json

import pytest

from tests.integration.api.conftest import followed

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]


class Reader:
    """Reads a stream event by event."""

    def __init__(self, response):
        self._lines = response.aiter_lines()
        self.id = None

    async def next(self):
        """The next event that has data, as (name, data)."""
        name = data = None
        async with asyncio.timeout(20):
            async for line in self._lines:
                field, _, value = line.partition(": ")
                if field == "id":
                    self.id = value
                elif field == "event":
                    name = value
                elif field == "data":
                    data = json.loads(value)
                elif not line and data is not None:
                    return name, data
        raise AssertionError("the stream has ended")

    async def opened(self):
        """Wait for the first words: what happens from then on is told."""
        async with asyncio.timeout(20):
            async for line in self._lines:
                if line.startswith("id: "):
                    self.id = line.removeprefix("id: ")
                    return


async def test_what_happens_is_told_in_order(site):
    await site.job("a")
    async with site.http.stream("GET", "/api/v1/events") as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        reader = Reader(response)
        await reader.opened()
        made = (await site.post("jobs/a/trigger"))["execution_id"]
        name, data = await reader.next()
        assert (name, data["execution_id"], data["job_id"]) == ("triggered", made, "a")
        assert data["state"] == "scheduled"
        await site.post(f"executions/{made}/cancel", status=200)
        name, data = await reader.next()
        assert (name, data["state"]) == ("cancelled", "cancelled")
        await site.post("events/paid", {"payload": {"n": 1}})
        name, data = await reader.next()
        assert (name, data["event"], data["payload"]) == ("emitted", "paid", {"n": 1})


async def test_a_stream_goes_on_where_it_was_lost(site):
    async with site.http.stream("GET", "/api/v1/events") as response:
        reader = Reader(response)
        await reader.opened()
        await site.post("events/one")
        assert (await reader.next())[1]["event"] == "one"
        # The place stands after the data it belongs to.
        place = reader.id
    for name in ("two", "three"):
        await site.post(f"events/{name}")
    headers = {"Last-Event-ID": place}
    async with site.http.stream("GET", "/api/v1/events", headers=headers) as response:
        reader = Reader(response)
        seen = [(await reader.next())[1]["event"] for _ in range(2)]
    assert seen == ["two", "three"]
    for odd in ("x", "1", "9" * 30 + "-1"):
        await site.get("events", status=422, headers={"Last-Event-ID": odd})


async def test_a_stream_tells_of_one_tenant_and_of_one_job(site):
    await site.job("a")
    await site.job("b")
    other = {"X-Tenant": "other"}
    await site.post("jobs", {"job_id": "a", "command": "x"}, headers=other)
    async with site.http.stream("GET", "/api/v1/events?job=a") as response:
        reader = Reader(response)
        await reader.opened()
        await site.post("events/e")
        await site.post("jobs/a/trigger", headers=other)
        await site.post("jobs/b/trigger")
        made = (await site.post("jobs/a/trigger"))["execution_id"]
        assert (await reader.next())[1]["execution_id"] == made


async def test_a_stream_ends_with_the_node(site):
    async with site.http.stream("GET", "/api/v1/events") as response:
        reader = Reader(response)
        await reader.opened()
        async with asyncio.timeout(20):
            await site.server.stop()
            with pytest.raises(AssertionError, match="ended"):
                await reader.next()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*site.url.removeprefix("http://").split(":"))


async def test_a_server_stops_in_time_with_requests_under_way(site):
    await site.job("a")
    made = (await site.post("jobs/a/trigger"))["execution_id"]
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        waiting = group.create_task(site.get(f"executions/{made}/wait?timeout_s=60"))
        await followed(site)
        await site.server.stop()
    assert waiting.result()["state"] == "ready"


async def test_too_many_followers_are_refused(site, monkeypatch):
    monkeypatch.setattr("runtime.api.tail.FOLLOWERS_MAX", 0)
    problem = await site.get("events", status=503)
    assert problem["code"] == "too_many"
