"""The commands' view of a node: how refusals read, where the token goes, what a stream says."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from runtime.cli import client
from runtime.cli.client import Event, is_loopback, read_events
from runtime.cli.main import run

PROBLEM = b"""{"type": "about:blank", "title": "Wrong", "status": 422, "code": "invalid",
"detail": "/at: no; /in: no", "errors": [{"pointer": "/at", "message": "no"},
{"pointer": "/files", "message": "a.yaml:1:2: bad", "file": "a.yaml", "line": 1, "column": 2}]}"""


class Heard:
    """What a server was sent, and what it answers."""

    def __init__(self, status: int, body: bytes) -> None:
        self.answer = (status, body)
        self.requests: list[tuple[str, dict[str, str]]] = []


@contextmanager
def serving(heard: Heard) -> Iterator[str]:
    """A server on loopback that is no node of ours."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.requests.append((self.path, dict(self.headers)))
            status, body = heard.answer
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_DELETE = do_GET  # noqa: N815 - the name that its base looks for

        def log_message(self, *arguments: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize(
    ("status", "body", "code", "said"),
    [
        (422, PROBLEM, 1, "runtime: /at: no\na.yaml:1:2: bad\n"),
        (404, b'{"title": "Not found", "detail": "there is no job"}', 1, "there is no job"),
        (503, b'{"title": "Away", "detail": "the database is away"}', 3, "the database is away"),
        (500, b'{"title": "Something went wrong"}', 1, "Something went wrong"),
        (404, b"<html>", 3, "is no Tickwright node"),
        (404, b"[1]", 3, "is no Tickwright node"),
        (404, b'{"detail": "x", "errors": [7]}', 3, "is no Tickwright node"),
        (200, b"<html>hello</html>", 3, "is no Tickwright node"),
        (302, b"", 3, "is no Tickwright node"),
        (404, b'{"title": "x", "detail": "no \\u001b[2J job"}', 1, "no  [2J job"),
    ],
)
def test_every_answer_is_told_in_words(status: int, body: bytes, code: int, said: str, capsys):
    with serving(Heard(status, body)) as url:
        assert run(["jobs", "show", "a", "--url", url]) == code
    told = capsys.readouterr()
    assert said in told.err
    assert told.out == ""


def test_the_token_of_a_data_directory_goes_to_loopback_only(tmp_path: Path, monkeypatch):
    (tmp_path / "token").write_text("kept-in-the-data-dir\n")
    monkeypatch.delenv("RUNTIME_TOKEN", raising=False)
    heard = Heard(200, b"{}")
    with serving(heard) as url:
        run(["jobs", "show", "a/b", "--url", url, "--data-dir", str(tmp_path), "--tenant", "t"])
    ((path, headers),) = heard.requests
    assert path == "/api/v1/jobs/a%2Fb"
    assert headers["Authorization"] == "Bearer kept-in-the-data-dir"
    assert headers["X-Tenant"] == "t"
    assert [is_loopback(f"http://{host}") for host in ("localhost", "[::1]:1", "127.9.9.9")] == [
        True,
        True,
        True,
    ]
    assert not any(map(is_loopback, ("http://example.org", "http://10.0.0.1", "http://")))


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"items": 5, "next": null}'])
def test_a_list_that_is_none_is_a_strangers(body: bytes, capsys):
    with serving(Heard(200, body)) as url:
        assert run(["jobs", "list", "--json", "--url", url]) == 3
    assert "is no Tickwright node" in capsys.readouterr().err


def test_a_token_that_is_none_is_told_by_its_place(monkeypatch, capsys):
    monkeypatch.setenv("RUNTIME_TOKEN", "abc\ndef")
    assert run(["jobs", "list"]) == 2
    assert "RUNTIME_TOKEN holds no token" in capsys.readouterr().err


def test_a_command_says_who_types_it(monkeypatch):
    class Entry:
        pw_name = "j\u00f6rg m"

    heard = Heard(200, b"{}")
    monkeypatch.setattr(client.pwd, "getpwuid", lambda _: Entry)
    monkeypatch.setattr(client.socket, "gethostname", lambda: "desk" * 100)
    with serving(heard) as url:
        run(["jobs", "show", "a", "--url", url])
    ((_, headers),) = heard.requests
    assert headers["X-User"].startswith("j%C3%B6rg%20m@deskdesk")
    assert len(headers["X-User"]) == 200

    def nobody(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(client.pwd, "getpwuid", nobody)
    assert client.user().startswith("uid%20")


def test_the_actors_of_a_node_are_asked_of_that_node(capsys):
    tree = {"name": "there", "state": "running", "children": []}
    with serving(Heard(200, json.dumps(tree).encode())) as there:
        page = {"items": [{"name": "n", "url": there}], "next": None}
        with serving(Heard(200, json.dumps(page).encode())) as here:
            assert run(["actors", "--node", "n", "--json", "--url", here]) == 0
            assert json.loads(capsys.readouterr().out) == tree
            assert run(["actors", "--node", "other", "--url", here]) == 1


def test_changes_of_jobs_are_one_document(capsys):
    with serving(Heard(200, b'{"job_id": "a", "paused": true}')) as url:
        assert run(["jobs", "pause", "a", "--json", "--url", url]) == 0
        assert json.loads(capsys.readouterr().out) == {"job_id": "a", "paused": True}
        assert run(["jobs", "resume", "a", "b", "--json", "--url", url]) == 0
        assert len(json.loads(capsys.readouterr().out)) == 2
        assert run(["jobs", "delete", "a", "--json", "--url", url]) == 0
        assert json.loads(capsys.readouterr().out) == {"job_id": "a"}


def test_the_doctor_tells_a_node_without_its_database_from_a_stranger(capsys):
    with serving(Heard(503, b'{"reasons": ["database: away"], "troubles": []}')) as url:
        run(["doctor", "--json", "--url", url])
    (node,) = [
        one for one in json.loads(capsys.readouterr().out)["checks"] if one["name"] == "node"
    ]
    assert (node["state"], "database: away" in node["said"]) == ("wrong", True)
    with serving(Heard(200, b"[]")) as url:
        run(["doctor", "--json", "--url", url])
    (node,) = [
        one for one in json.loads(capsys.readouterr().out)["checks"] if one["name"] == "node"
    ]
    assert "no Tickwright node" in node["said"]


def test_a_proxy_of_the_environment_is_not_asked(monkeypatch, capsys):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    heard = Heard(404, b'{"title": "x", "detail": "reached"}')
    with serving(heard) as url:
        assert run(["jobs", "show", "a", "--url", url]) == 1
    assert "reached" in capsys.readouterr().err


def test_a_stream_is_read_as_the_standard_says():
    lines = iter(
        [
            *("retry: 1000", "id: 1-0", ""),
            *("event: fired", 'data: {"a":', "data: 1}", ""),
            *(": nothing happens", ""),
            *("event: finished", 'data: {"b": 2}', "id: 1-7", ""),
            *("data: 5",),
        ]
    )
    assert list(read_events(lines)) == [
        Event("1-0", "message", None),
        Event(None, "fired", {"a": 1}),
        Event("1-7", "finished", {"b": 2}),
    ]
