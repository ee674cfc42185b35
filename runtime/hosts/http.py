"""HTTP tasks: one request each, from the node itself, with every size and wait bounded."""

import time
from collections.abc import Mapping
from typing import Any

import anyio
import httpx
import msgspec

from protocols.jobs import HttpExpect, HttpTask
from protocols.ports.executor import OutcomeState, Output
from runtime.hosts.http_clients import REDIRECTS_MAX, Clients
from runtime.hosts.owned import OwnedTasks
from runtime.hosts.settings import HostSettings
from runtime.hosts.work import ENDED_AS, Desk, Work, withdrawn_as

PORT_MAX = 65_535


class HttpRunner:
    """Sends requests; never by the node's own proxies, netrc or cookies."""

    def __init__(self, *, settings: HostSettings, desk: Desk) -> None:
        self._settings = settings
        self._desk = desk
        self._tasks = OwnedTasks(self._attempt)
        self._clients = Clients()
        self._scopes: dict[int, anyio.CancelScope] = {}

    async def run(self) -> None:
        """Own the requests under way, until cancelled."""
        try:
            await self._tasks.run()
        finally:
            with anyio.CancelScope(shield=True):
                await self.close()

    def start(self, works: list[Work]) -> None:
        """Send these."""
        for work in works:
            self._tasks.start(work)

    def begun_ns(self, work: Work) -> int:
        """When the request was begun."""
        return work.begun_ns

    def end(self, work: Work) -> None:
        """Drop the connection."""
        scope = self._scopes.get(work.token)
        if self._tasks.withdraw(work):
            self._desk.finish(work, withdrawn_as(work), error=work.why())
        elif scope is not None:
            scope.cancel()

    async def close(self) -> None:
        """Close idle connections."""
        await self._clients.close()

    async def _attempt(self, work: Work) -> None:
        task = work.assignment.task
        assert isinstance(task, HttpTask)
        state: OutcomeState = "lost"
        error: str | None = "the node ended"
        output: Output | None = None
        result: bytes | None = None
        if work.is_ending():
            self._desk.finish(work, withdrawn_as(work), error=work.why())
            return
        self._desk.begun(work, time.monotonic_ns())
        scope = self._scopes[work.token] = anyio.CancelScope()
        try:
            with scope:
                status, reason, headers, body, size = await self._send(work, task)
                output = Output(head=shown(status, reason, headers, body), omitted_bytes=size)
                error = unexpected(task.expect, status, reason, body)
                state = "succeeded" if error is None else "failed"
                result = json_of(headers, body, size)
        except Exception as problem:  # noqa: BLE001 - one odd answer must not end all others
            state, error = "failed", failure(task, problem)
        finally:
            del self._scopes[work.token]
            if work.reason is not None:
                state, error = ENDED_AS[work.reason], work.why()
            self._desk.finish(work, state, error=error, result=result, output=output)

    async def _send(self, work: Work, task: HttpTask) -> tuple[int, str, httpx.Headers, bytes, int]:
        """Status, reason, headers, the body within its bound, and how much of it was left out."""
        content, kind = encoded(task.body)
        headers = {
            **({"Content-Type": kind} if kind is not None else {}),
            **identity(work),
            **task.headers,
        }
        most = self._settings.http_body_bytes_max
        kept, size = bytearray(), 0
        client = self._clients.take(task.url)
        response: httpx.Response | None = None
        try:
            request = client.build_request(task.method, task.url, headers=headers, content=content)
            response = await self._clients.send(client, request)
            async for piece in response.aiter_bytes():
                size += len(piece)
                kept += piece[: most - len(kept)]
                if size > 16 * most:
                    break  # endless, or nothing that a task's answer should be
        finally:
            with anyio.CancelScope(shield=True):
                if response is not None:
                    await response.aclose()
                await self._clients.give_back(client, task.url)
        left_out = size - len(kept)
        return response.status_code, response.reason_phrase, response.headers, bytes(kept), left_out


def identity(work: Work) -> dict[str, str]:
    """What lets a server drop a doubled or a late request."""
    return {
        "Runtime-Execution-Id": work.assignment.execution_id,
        "Runtime-Attempt": str(work.assignment.attempt),
        "Runtime-Fencing-Token": str(work.token),
    }


def encoded(body: Any) -> tuple[bytes | None, str | None]:
    """A body's bytes and their type: JSON, unless it is a string."""
    if body is None:
        return None, None
    if isinstance(body, str):
        return body.encode(), "text/plain; charset=utf-8"
    return msgspec.json.encode(body), "application/json"


def unexpected(expect: HttpExpect, status: int, reason: str, body: bytes) -> str | None:
    """Why an answer is no success; None if it is one."""
    fine = status in expect.status if expect.status else httpx.codes.is_success(status)
    if not fine:
        return f"HTTP {status} {reason}".rstrip()
    if expect.body_contains is not None and expect.body_contains.encode() not in body:
        return f"HTTP {status}, but the answer does not contain {expect.body_contains!r}"
    return None


def failure(task: HttpTask, problem: Exception) -> str:
    """What went wrong, without the URL's user, password or query."""
    try:
        url = httpx.URL(task.url)
        where = f"{url.scheme}://{url.host}" + (f":{url.port}" if url.port else "")
    except httpx.InvalidURL:
        return "the URL is not one"
    kind = type(problem).__name__
    if url.port is not None and url.port > PORT_MAX:
        return f"the URL's port is no port: {where}"
    if isinstance(problem, httpx.ConnectError):
        return f"no connection to {where}"
    if isinstance(problem, httpx.UnsupportedProtocol):
        return f"the URL's protocol is neither http nor https: {url.scheme or 'none'}"
    if isinstance(problem, httpx.TooManyRedirects):
        return f"{where} redirected more than {REDIRECTS_MAX} times"
    return f"{where}: {kind}"


def shown(status: int, reason: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """The answer as kept for a person; no header but the body's type, for any may be a secret."""
    kind = headers.get("content-type", "")
    return f"HTTP {status} {reason}\ncontent-type: {kind}\n\n".encode() + body


def json_of(headers: Mapping[str, str], body: bytes, left_out: int) -> bytes | None:
    """The body as the attempt's result, if it is JSON and whole."""
    if left_out or "json" not in headers.get("content-type", ""):
        return None
    try:
        msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None
    return body
