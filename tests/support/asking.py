"""A node's API as a program of a user's asks it: trigger, wait, cancel, look."""

from __future__ import annotations

import time
from typing import Any, Self

import httpx

from tests.support.embedded import WAIT_S
from tests.support.node import NodeProcess

FINAL = {"succeeded", "dead", "cancelled", "skipped"}


class Api:
    """Asks one node, wherever its last start has put it."""

    def __init__(self, node: NodeProcess) -> None:
        self._node = node
        self._client = httpx.Client(trust_env=False, timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._client.close()

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send one request, whatever the answer."""
        token = (self._node.data_dir / "token").read_text().strip()
        return self._client.request(
            method,
            f"{self._node.url}{path}",
            headers={"Authorization": f"Bearer {token}"},
            **options,
        )

    def do(self, method: str, path: str, **options: Any) -> Any:
        """Send one request that must succeed; the JSON answered."""
        answer = self.ask(method, path, **options)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def trigger(self, job: str, value: Any = None) -> str:
        """Run a job once, with an input; the execution's id."""
        asked = self.do("POST", f"/api/v1/jobs/{job}/trigger", json={"input": value})
        return str(asked["execution_id"])

    def show(self, execution: str) -> dict[str, Any]:
        """An execution with its attempts."""
        shown: dict[str, Any] = self.do("GET", f"/api/v1/executions/{execution}")
        return shown

    def wait(self, execution: str, *states: str) -> dict[str, Any]:
        """Wait until an execution is in one of `states`, by default any final one."""
        wanted = set(states) or FINAL
        deadline = time.monotonic() + WAIT_S
        while (shown := self.show(execution))["state"] not in wanted:
            assert shown["state"] not in FINAL, f"{shown} is none of {wanted}"
            assert time.monotonic() < deadline, f"waited in vain for {wanted}: {shown}"
            time.sleep(0.05)
        return shown

    def of_job(self, job: str) -> list[dict[str, Any]]:
        """Every execution of a job, oldest first."""
        page = self.do("GET", "/api/v1/executions", params={"job": job, "limit": 500})
        return list(reversed(page["items"]))
