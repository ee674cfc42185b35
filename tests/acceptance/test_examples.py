"""The programs in docs/examples run as they stand, and print what they promise."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
PROMISES = {
    "embedded": ["refresh: {'rows': 9}"],
    "actor": ["succeeded: 5"],
    "checkpoint": [
        "one mail is sent, whatever happens",
        "import: {'from': 5, 'attempt': 2} ['failed', 'succeeded']",
    ],
}


def test_every_example_has_its_promise():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(PROMISES)


@pytest.mark.parametrize("name", PROMISES)
def test_the_example_does_what_it_says(name, land):
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", land / "data"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == PROMISES[name], done.stderr
