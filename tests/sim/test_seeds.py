"""Whatever a seed lets go wrong, every law holds, and the same seed does it again."""

import sys

import pytest

from tests.sim.run import check_seed, run_seed


def test_every_law_holds(
    seeds: range, pytestconfig: pytest.Config, capsys: pytest.CaptureFixture[str]
):
    if pytestconfig.getoption("--seed", default=None) is not None:
        with capsys.disabled():
            sys.stdout.write(run_seed(seeds.start).told())
    for seed in seeds:
        check_seed(seed)


@pytest.mark.parametrize("seed", [7, 12])
def test_a_seed_repeats_itself(seed: int):
    first, again = run_seed(seed), run_seed(seed)
    assert len(first.trace) > 100
    assert first.told() == again.told()
