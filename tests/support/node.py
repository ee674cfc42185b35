"""A real node in a process of its own, as a user starts one, on a data directory of a test's.

    with NodeProcess(land / "data", jobs=[file]) as node:
        done = node.run("trigger", "hello", "--wait", "--json")
        assert done.json()["state"] == "succeeded"

`start` returns when the node is ready; `kill` is kill -9, `stop` is SIGTERM and waits.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import httpx

from tests.support.embedded import ROOT, wait_until

RUNTIME = (sys.executable, "-m", "runtime.cli.main")
STOP_S = 60.0
COMMAND_S = 120.0


class Done:
    """How a command ended, and what it said."""

    def __init__(self, completed: subprocess.CompletedProcess[str]) -> None:
        self.code = completed.returncode
        self.out = completed.stdout
        self.err = completed.stderr
        assert "Traceback" not in self.err + self.out, f"a user was shown a traceback:\n{self.err}"

    def json(self) -> Any:
        """The one document on stdout."""
        return json.loads(self.out)

    def ok(self) -> Done:
        """The same, having ended well."""
        assert self.code == 0, f"exit code {self.code}:\n{self.out}\n{self.err}"
        return self

    def __repr__(self) -> str:
        return f"Done(code={self.code}, out={self.out!r}, err={self.err!r})"


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This environment without any setting of a node's, and with the tree on the path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RUNTIME_")}
    return {**kept, "PYTHONPATH": str(ROOT), **(extra or {})}


def run(
    *arguments: str,
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
    given: str | None = None,
) -> Done:
    """Run one `runtime` command to its end."""
    return Done(
        subprocess.run(
            [*RUNTIME, *map(str, arguments)],
            cwd=cwd,
            env=environment(env),
            input=given,
            stdin=subprocess.DEVNULL if given is None else None,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
    )


class NodeProcess:
    """One node; as a context manager it is started, and gone afterwards however."""

    def __init__(
        self,
        data_dir: Path,
        *,
        jobs: Sequence[Path] = (),
        options: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.data_dir = data_dir
        self._jobs = jobs
        self._options = options
        self._env = dict(env or {})
        self._cwd = cwd or data_dir.parent
        self._process: subprocess.Popen[str] | None = None
        self._readers: list[threading.Thread] = []
        self.out: list[str] = []
        """What it said on stdout, by lines."""
        self.log: list[str] = []
        """What it said on stderr, by lines."""
        self.url = ""
        self.program: Sequence[str] = RUNTIME
        """What `launch` starts: `runtime`, or something that becomes it."""

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.end()

    @property
    def pid(self) -> int:
        """Of the node itself."""
        assert self._process is not None, "the node was never started"
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Its exit code, None while it runs."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start it, and return once it is ready: timers and dispatch advance."""
        self.launch()
        self.wait_ready()

    def wait_ready(self) -> None:
        """Return once it is ready."""
        wait_until(lambda: self._ready() or self.code is not None, "the node is ready")
        assert self.code is None, f"the node ended with {self.code}:\n{self.story()}"

    def launch(self) -> None:
        """Start it, and return at once."""
        self.out, self.log, self.url = [], [], ""
        command = [*self.program, "start", "--data-dir", str(self.data_dir), "--port", "0"]
        for path in self._jobs:
            command += ["--jobs", str(path)]
        self._process = subprocess.Popen(
            [*command, *self._options],
            cwd=self._cwd,
            env=environment(self._env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._readers = [
            threading.Thread(target=self._read, args=(self._process.stdout, self.out), daemon=True),
            threading.Thread(target=self._read, args=(self._process.stderr, self.log), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def run(self, *arguments: str, given: str | None = None, **env: str) -> Done:
        """Run a command against this node."""
        own = {"RUNTIME_URL": self.url, "RUNTIME_DATA_DIR": str(self.data_dir), **env}
        return run(*arguments, env=own, given=given, cwd=self._cwd)

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin a command against this node that does not end by itself."""
        own = {"RUNTIME_URL": self.url, "RUNTIME_DATA_DIR": str(self.data_dir)}
        return subprocess.Popen(
            [*RUNTIME, *arguments],
            env=environment(own),
            cwd=self._cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Wait for its end; its exit code."""
        assert self._process is not None, "the node was never started"
        code = self._process.wait(STOP_S)
        for reader in self._readers:
            reader.join()
        return code

    def stop(self) -> int:
        """End it in good order; its exit code."""
        self.signal()
        return self.wait()

    def kill(self) -> None:
        """Kill -9."""
        self.signal(signal.SIGKILL)
        self.wait()

    def end(self) -> None:
        """Make sure that it, and the PostgreSQL it started, are gone."""
        if self._process is None:
            return
        if self.code is None:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.kill()
        wait_until(lambda: not self._postmaster_lives(), "its PostgreSQL has ended")

    def story(self) -> str:
        """All that it said."""
        return "\n".join([*self.out, *self.log])

    def _read(self, stream: Any, lines: list[str]) -> None:
        with stream:
            for line in stream:
                lines.append(line.rstrip("\n"))
                found = re.search(r"API\s+(http://\S+)", line)
                if found and lines is self.out:
                    self.url = found.group(1)

    def _ready(self) -> bool:
        if not self.url:
            return False
        try:
            return httpx.get(f"{self.url}/health/ready", trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def _postmaster_lives(self) -> bool:
        try:
            text = (self.data_dir / "postgres" / "data" / "postmaster.pid").read_text()
            os.kill(int(text.split()[0]), 0)
        except (OSError, ValueError, IndexError):
            return False
        return True
