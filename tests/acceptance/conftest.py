"""A folder that every user can walk through, and a node to ask things of, shared by a module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.folders import walkable_folder
from tests.support.node import NodeProcess

JOBS = """
jobs:
  - job_id: hello
    schedule: "* * * * * *"
    command: echo hello
    tags: [greeting]
  - job_id: say
    command: echo "got $RUNTIME_INPUT"
  - job_id: fail
    command: echo on stderr >&2; exit 3
  - job_id: slow
    command: sleep 300
    overlap: allow
  - job_id: brief
    command: sleep 2
  - job_id: wait_for_it
    on: {event: go}
    command: echo "$RUNTIME_INPUT"
"""


@pytest.fixture(scope="module")
def ground() -> Iterator[Path]:
    """A folder of the module's own."""
    with walkable_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def node(ground: Path) -> Iterator[NodeProcess]:
    """A node with a handful of jobs."""
    jobs = ground / "jobs.yaml"
    jobs.write_text(JOBS)
    with NodeProcess(ground / "data", jobs=[jobs]) as running:
        yield running
