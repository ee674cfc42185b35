"""Fixtures that every test may ask for; each leaves no process, folder or port behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from runtime.postgres.embedded import ConnectionSettings, binaries, owner
from tests.support.cluster import servers  # noqa: F401 - a fixture, for whoever asks
from tests.support.embedded_node import INSTALLATION
from tests.support.folders import walkable_folder
from tests.support.postgres import (
    FLAVOURS,
    MissingError,
    Server,
    Throwaway,
    find_programs,
    fresh_database,
    skip_or_fail,
)
from tests.support.services import (  # noqa: F401 - fixtures, for whoever asks
    database_server,
    etcd_server,
    kafka_server,
    service_set,
)


@pytest.fixture(scope="session", params=FLAVOURS)
def postgres_flavour(request: pytest.FixtureRequest) -> str:
    """Name each PostgreSQL in turn: a test that asks for it runs on ours and on another."""
    return request.param


@pytest.fixture(scope="session")
def postgres_server(postgres_flavour: str) -> Iterator[Server]:
    """Give the session's server of this flavour, started at its first use."""
    try:
        find_programs(postgres_flavour)
    except MissingError as missing:
        skip_or_fail(postgres_flavour, missing)
    with Throwaway(postgres_flavour) as server:
        try:
            yield server
        finally:
            asyncio.run(server.tidy())


@pytest_asyncio.fixture
async def empty_database(postgres_server: Server) -> AsyncIterator[ConnectionSettings]:
    """Give an empty database, dropped afterwards."""
    async with fresh_database(postgres_server) as settings:
        yield settings


@pytest.fixture(scope="session")
def reachable_wheel() -> Iterator[None]:
    """See that the wheel's programs can be run by whom root would run them as.

    In a virtual environment below root's home they cannot, and every test would copy them.
    """
    account = owner.choose(Path("/nowhere"), Path("/"))
    with walkable_folder() as shelf, pytest.MonkeyPatch.context() as patch:
        installation = binaries.reachable(account, outside=shelf)
        if installation.is_relative_to(shelf):
            patch.setattr(binaries, "locate", lambda: installation)
            patch.setenv(INSTALLATION, str(installation))
        yield


@pytest.fixture
def land(reachable_wheel: None) -> Iterator[Path]:
    """Give a folder that every user can walk through, to make servers in."""
    with walkable_folder() as folder:
        yield folder
