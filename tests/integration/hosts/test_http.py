"""HTTP tasks against a real server on loopback: what is sent, what counts, what is kept."""

import asyncio
import json
import resource
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import uvicorn

from protocols.jobs import HttpExpect, HttpTask
from tests.integration.hosts.house import House, eventually, text

pytestmark = pytest.mark.asyncio


class Site:
    """A little server that remembers what it was asked."""

    def __init__(self) -> None:
        self.requests: list[dict] = []
        self.url = ""
        self.gone = asyncio.Event()

    async def __call__(self, scope, receive, send) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        self.requests.append(
            {"method": scope["method"], "path": scope["path"], "headers": headers, "body": body}
        )
        status, answer, extra = 200, b"hello", []
        match scope["path"]:
            case "/json":
                answer, extra = b'{"n": 1}', [(b"content-type", b"application/json")]
            case "/bad-json":
                answer, extra = b'{"n"', [(b"content-type", b"application/json")]
            case "/missing":
                status, answer = 404, b"no such page"
            case "/moved":
                status, extra = 302, [(b"location", b"/json")]
            case "/endless-moved":
                status, extra = 302, [(b"location", b"/json")]
            case "/round":
                status, extra = 302, [(b"location", b"/round")]
            case "/cookie":
                extra = [(b"set-cookie", b"session=secret")]
            case "/large":
                answer = b"x" * 200_000
            case "/slow":
                while (await receive())["type"] != "http.disconnect":
                    pass
                self.gone.set()
                return
        await send({"type": "http.response.start", "status": status, "headers": extra})
        if scope["path"].startswith("/endless"):
            # Far more than the task will take; what is sent after it has gone is dropped.
            for _ in range(2_000):
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
        await send({"type": "http.response.body", "body": answer})


@pytest_asyncio.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    config = uvicorn.Config(site, port=0, lifespan="off", log_config=None, ws="none")
    server = uvicorn.Server(config)
    task = asyncio.get_running_loop().create_task(server.serve())
    await eventually(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    site.url = f"http://127.0.0.1:{port}"
    yield site
    site.gone.set()
    server.should_exit = True
    server.force_exit = True
    await task


async def test_an_answer_is_a_success_and_json_its_result(house: House, site: Site):
    outcome = await house.run(HttpTask(url=site.url + "/json"), attempt=3, fencing_token=99)
    assert (outcome.state, outcome.error, outcome.result) == ("succeeded", None, b'{"n": 1}')
    assert text(outcome) == 'HTTP 200 OK\ncontent-type: application/json\n\n{"n": 1}'
    headers = site.requests[0]["headers"]
    assert (headers["runtime-attempt"], headers["runtime-fencing-token"]) == ("3", "99")


async def test_a_body_is_json_unless_it_is_a_string(house: House, site: Site):
    url = site.url + "/"
    await house.run(HttpTask(method="POST", url=url, body={"a": [1]}, headers={"X-Mine": "1"}))
    await house.run(HttpTask(method="PUT", url=url, body="plain"))
    await house.run(HttpTask(method="POST", url=url, body="<a/>",
                             headers={"Content-Type": "text/xml"}))  # fmt: skip
    one, two, three = site.requests
    assert (one["method"], json.loads(one["body"])) == ("POST", {"a": [1]})
    assert (one["headers"]["content-type"], one["headers"]["x-mine"]) == ("application/json", "1")
    assert (two["method"], two["body"]) == ("PUT", b"plain")
    assert three["headers"]["content-type"] == "text/xml"


@pytest.mark.parametrize(
    ("path", "expect", "error"),
    [
        ("/missing", HttpExpect(), "HTTP 404 Not Found"),
        ("/missing", HttpExpect(status=(404,)), None),
        ("/", HttpExpect(status=(201,)), "HTTP 200 OK"),
        ("/", HttpExpect(body_contains="ell"), None),
        ("/", HttpExpect(body_contains="bye"), "HTTP 200, but the answer does not contain 'bye'"),
        ("/moved", HttpExpect(body_contains='"n"'), None),
        ("/bad-json", HttpExpect(), None),
        ("/round", HttpExpect(), "redirected more than 10 times"),
    ],
)
async def test_what_makes_a_success(house: House, site: Site, path, expect, error):
    outcome = await house.run(HttpTask(url=site.url + path, expect=expect))
    assert outcome.state == ("succeeded" if error is None else "failed")
    assert error is None or error in outcome.error


async def test_a_large_answer_is_cut(house: House, site: Site):
    outcome = await house.run(HttpTask(url=site.url + "/large"))
    assert outcome.state == "succeeded"
    assert outcome.output.omitted_bytes == 200_000 - 64 * 1024
    assert outcome.result is None


async def test_an_endless_answer_costs_no_memory(house: House, site: Site):
    outcome = await house.run(HttpTask(url=site.url + "/endless"))
    assert outcome.state == "succeeded"
    assert len(outcome.output.head) < 65 * 1024


async def test_an_endless_body_of_a_redirect_is_left_alone(house: House, site: Site):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcome = await house.run(HttpTask(url=f"{site.url}/endless-moved"))
    assert outcome.result == b'{"n": 1}'
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


async def test_a_slow_answer_ends_at_its_timeout(house: House, site: Site):
    outcome = await house.run(HttpTask(url=site.url + "/slow"), timeout_s=0.3)
    assert (outcome.state, outcome.error) == ("timed_out", "timed out after 0.3 s")
    await site.gone.wait()


async def test_a_cancel_drops_the_connection(house: House, site: Site):
    job = house.begin(HttpTask(url=site.url + "/slow"))
    await eventually(lambda: site.requests)
    house.executor.cancel(job.id, job.fencing_token)
    assert (await house.outcome_of(job)).state == "cancelled"


async def test_a_start_and_a_cancel_from_a_callback(house: House, site: Site):
    """The sink runs in one, and whoever hears of an end there may start the next at once."""
    jobs = []

    def callback():
        jobs.append(house.begin(HttpTask(url=site.url + "/")))
        jobs.append(house.begin(HttpTask(url=site.url + "/slow")))
        house.executor.cancel(jobs[1].id, jobs[1].fencing_token)

    asyncio.get_running_loop().call_soon(callback)
    await eventually(lambda: jobs)
    assert (await house.outcome_of(jobs[0])).state == "succeeded"
    assert (await house.outcome_of(jobs[1])).state == "cancelled"
    assert [request["path"] for request in site.requests] == ["/"]


async def test_tasks_share_no_cookie(house: House, site: Site):
    await house.run(HttpTask(url=site.url + "/cookie"))
    await house.run(HttpTask(url=site.url + "/"))
    assert "cookie" not in site.requests[1]["headers"]


async def test_the_nodes_own_proxy_and_netrc_are_not_used(house: House, site: Site, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    (house.folder / "netrc").write_text("machine 127.0.0.1 login a password b")
    monkeypatch.setenv("NETRC", str(house.folder / "netrc"))
    assert (await house.run(HttpTask(url=site.url + "/"))).state == "succeeded"
    assert "authorization" not in site.requests[0]["headers"]


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("http://user:secret@127.0.0.1:1/x?key=secret", "no connection to http://127.0.0.1:1"),
        ("ftp://127.0.0.1/", "neither http nor https: ftp"),
        ("nonsense", "neither http nor https: none"),
        ("http://[", "no connection to"),
        ("http://127.0.0.1:99999/", "no port: http://127.0.0.1:99999"),
        ("http://no-such-host.invalid/", "no connection to http://no-such-host.invalid"),
    ],
)
async def test_what_cannot_be_asked_fails_and_tells_no_secret(house: House, url, error):
    outcome = await house.run(HttpTask(url=url))
    assert outcome.state == "failed"
    assert error in outcome.error
    assert "secret" not in outcome.error


async def test_a_header_that_is_none(house: House, site: Site):
    for headers in ({"X\r\nY": "1"}, {"X": "a\r\nb: c"}, {"X": "\u2603"}):
        outcome = await house.run(HttpTask(url=site.url + "/", headers=headers))
        assert outcome.state == "failed" or "b" not in site.requests[-1]["headers"]
