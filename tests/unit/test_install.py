"""What cannot be installed is told in one sentence, before anything is."""

import subprocess
from pathlib import Path

import pytest

INSTALL = Path(__file__).parents[2] / "scripts" / "install"


@pytest.mark.parametrize(("arguments", "said"), [(["foo"], '"foo"'), (["run", "dev"], '"run dev"')])
def test_what_cannot_be_installed_is_told_in_a_sentence(arguments: list[str], said: str):
    done = subprocess.run(
        [INSTALL, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == f"tickwright: {said} cannot be installed: give run (the default) or dev\n"
