"""What web pages, strangers and broken clients are refused, before anything else is looked at."""

import asyncio
import json

import httpx
import pytest

from tests.integration.api.conftest import TOKEN

pytestmark = [pytest.mark.asyncio, pytest.mark.postgres]

JOB = {"job_id": "a", "command": "true"}


async def _refused(site, status, method="GET", path="/api/v1/jobs", **options):
    answer = await site.http.request(method, path, **options)
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["status"], problem["type"]) == (status, "about:blank")
    assert problem["detail"]
    assert problem["code"]
    return problem


async def test_a_host_that_is_not_ours_is_refused(site):
    for host in ["evil.example", "evil.example:8700", "127.0.0.1", "localhost:1"]:
        await _refused(site, 421, headers={"Host": host})
        await _refused(site, 421, "POST", headers={"Host": host}, json=JOB)
        await _refused(site, 421, path="/health/live", headers={"Host": host})
        await _refused(site, 421, path="/metrics", headers={"Host": host})


async def test_loopbacks_names_are_ours(site):
    port = site.url.rpartition(":")[2]
    for name in ("localhost", "127.0.0.1", "[::1]", "LOCALHOST"):
        answer = await site.http.get("/api/v1/jobs", headers={"Host": f"{name}:{port}"})
        assert answer.status_code == 200


async def test_a_foreign_origin_is_refused(site):
    for origin in ["http://evil.example", "null", "https://127.0.0.1", "http://127.0.0.1:1"]:
        await _refused(site, 403, headers={"Origin": origin})
        await _refused(site, 403, "POST", headers={"Origin": origin}, json=JOB)
        assert (await site.http.get("/api/v1/jobs")).json()["items"] == []


async def test_our_own_origin_is_not(site):
    answer = await site.http.post("/api/v1/jobs", json=JOB, headers={"Origin": site.url})
    assert answer.status_code == 201


async def test_a_page_of_another_site_is_refused_even_without_an_origin(site):
    await _refused(site, 403, headers={"Sec-Fetch-Site": "cross-site"})
    await _refused(site, 403, headers={"Sec-Fetch-Site": "same-site"})


async def test_a_change_needs_the_token(site):
    for authorization in (None, "", "Bearer", "Bearer x", f"Basic {TOKEN}", TOKEN):
        headers = {} if authorization is None else {"Authorization": authorization}
        async with httpx.AsyncClient(base_url=site.url, headers=headers) as stranger:
            for method in ("POST", "PUT", "PATCH", "DELETE"):
                for path in ("/api/v1/jobs", "/api/v1/jobs/a", "/api/v1/pause", "/nowhere"):
                    answer = await stranger.request(method, path, json=JOB)
                    assert answer.status_code == 401, answer.text
                    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
                    assert TOKEN not in answer.text
            assert (await stranger.get("/api/v1/jobs")).json()["items"] == []


OTHER_KINDS = (
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "",
    "x",
)


async def test_a_body_that_is_not_json_is_refused_by_its_type(site):
    for kind in OTHER_KINDS:
        headers = {"Content-Type": kind} if kind else {}
        await _refused(site, 415, "POST", content=json.dumps(JOB), headers=headers)


WRONG_BODIES = (
    (b"{", 400),
    (b"nonsense", 400),
    (b"\xff\xfe", 400),
    (b'{"job_id": "\xff"}', 400),
    (b'{"job_id": "\\ud800", "command": "x"}', 400),
    (b"[]", 422),
    (b"7", 422),
    (b"null", 422),
    (b'{"job_id": "a", "command": "x\\u0000"}', 422),
    (b'{"job_id": "a\\u0000", "command": "x"}', 422),
    (b'{"job_id": "a", "command": "x", "timeout": 1e400}', 422),
    (b'{"job_id": "a", "command": "x", "timeout": ' + b"9" * 5000 + b"}", 422),
    (b'{"job_id": "a", "python": "a:b", "args": [' + b"9" * 30 + b"]}", 422),
    (b'{"job_id": "a", "command": ' + b"[" * 5000 + b"]" * 5000 + b"}", 422),
    (b'{"job_id": "a", "python": "a:b", "args": ' + b"[" * 90 + b"]" * 90 + b"}", 422),
    (b'{"job_id": "a", "command": "' + b"x" * 900_000 + b'"}', 422),
)


async def test_wrong_json_is_refused_with_a_sentence(site):
    headers = {"Content-Type": "application/json"}
    for content, status in WRONG_BODIES:
        problem = await _refused(site, status, "POST", content=content, headers=headers)
        assert "Traceback" not in problem["detail"]
    assert (await site.get("jobs"))["items"] == []


async def test_a_body_too_large_is_refused_by_what_it_says_and_by_what_it_sends(site):
    headers = {"Content-Type": "application/json"}
    large = b'"' + b"x" * (1 << 20) + b'"'
    await _refused(site, 413, "POST", content=large, headers=headers)

    async def parts():
        for _ in range(17):
            yield b" " * (1 << 16)

    await _refused(site, 413, "POST", content=parts(), headers=headers)


async def test_an_apply_may_be_larger(site):
    text = "jobs: []\n" + "# filler\n" * 200_000
    body = {"source": "s", "files": [{"name": "f.yaml", "text": text}]}
    answer = await site.http.post("/api/v1/apply", json=body)
    assert answer.status_code in (200, 422)


WRONG_QUERIES = (
    "limt=5",
    "limit=x",
    "limit=-1",
    "limit=99999999999999999999999999",
    "limit=1&limit=2",
    "cursor=x",
    "cursor=%00",
    "tag=%00",
    "=",
    "tenant=%00",
)


async def test_a_wrong_parameter_is_refused(site):
    for query in WRONG_QUERIES:
        await _refused(site, 422, path=f"/api/v1/jobs?{query}")


async def test_an_unknown_path_and_a_wrong_method_are_problems_too(site):
    await _refused(site, 404, path="/api/v1/nothing")
    await _refused(site, 404, path="/")
    problem = await site.http.request("DELETE", "/api/v1/jobs")
    assert problem.status_code == 405
    assert problem.headers["Content-Type"] == "application/problem+json"


async def test_a_header_without_end_is_refused(site):
    host, port = site.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 100_000)
    await writer.drain()
    assert (await reader.readline()).split()[1] == b"400"
    writer.close()
    await writer.wait_closed()


async def test_a_change_is_acknowledged_only_when_it_is_durable(site):
    """With the database away everything but a sign of life is a 503 that says when to ask again."""
    await site.job("a")
    await site.world.api.close()
    await site.world.node.close()
    for method, path in (("GET", "/api/v1/jobs"), ("POST", "/api/v1/jobs/a/trigger")):
        answer = await site.http.request(method, path)
        assert answer.status_code == 503, answer.text
        assert answer.headers["Retry-After"] == "1"
        assert answer.json()["code"] == "unavailable"
    assert (await site.http.get("/health/live")).status_code == 200
    metrics = await site.http.get("/metrics")
    assert "tickwright_clock_offset_seconds" in metrics.text
    assert "tickwright_executions_count" not in metrics.text
