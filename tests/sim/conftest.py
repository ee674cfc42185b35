"""How many seeds are run, and which one is to be looked at."""

import pytest

SEEDS_IN_CI = 200


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("simulation")
    group.addoption("--seeds", type=int, default=SEEDS_IN_CI, help="run so many seeds")
    group.addoption("--seed", type=int, default=None, help="run this one, and print its trace")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each test of seeds a batch of them: a test for each would cost more than its run."""
    if "seeds" not in metafunc.fixturenames:
        return
    one = metafunc.config.getoption("--seed", default=None)
    if one is not None:
        metafunc.parametrize("seeds", [range(one, one + 1)], ids=str)
        return
    count = metafunc.config.getoption("--seeds", default=SEEDS_IN_CI)
    batches = [range(first, min(first + 10, count)) for first in range(0, count, 10)]
    metafunc.parametrize("seeds", batches, ids=lambda batch: f"{batch.start}-{batch.stop - 1}")
