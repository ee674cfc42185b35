"""The stores that the conformance suite holds to the port: PostgreSQL's, and the simulation's."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.contract.store.harness import StoreHarness
from tests.contract.store.postgres_harness import on_postgres
from tests.sim.model_harness import ModelHarness
from tests.support.postgres import FLAVOURS, Server

MODEL = "model"


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what is written against the port alone on the model too.

    By a mark, which takes the place of the fixture's own parameters.
    """
    if "house" in metafunc.fixturenames:
        real = [pytest.param(name, marks=pytest.mark.postgres) for name in FLAVOURS]
        metafunc.definition.add_marker(
            pytest.mark.parametrize(
                "postgres_flavour", [MODEL, *real], indirect=True, scope="session"
            )
        )


@pytest.fixture
def store_server(request: pytest.FixtureRequest, postgres_flavour: str) -> Server | None:
    """Give the session's server; the model needs none."""
    if postgres_flavour == MODEL:
        return None
    server: Server = request.getfixturevalue("postgres_server")
    return server


@pytest_asyncio.fixture
async def house(store_server: Server | None) -> AsyncIterator[StoreHarness]:
    """Give an empty house on every store there is."""
    if store_server is None:
        yield ModelHarness()
        return
    async with on_postgres(store_server) as harness:
        yield harness
