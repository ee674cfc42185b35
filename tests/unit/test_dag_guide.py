"""docs/dags.md: every DAG in it is one."""

import re

import pytest

from protocols.dags import DagTask
from runtime.files.load import load_texts
from tests.support.embedded import ROOT

GUIDE = (ROOT / "docs" / "dags.md").read_text()
BLOCKS = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_each_file_of_the_guide_is_right(number):
    files = load_texts([("guide.yaml", BLOCKS[number].encode())], source="guide")
    assert any(isinstance(found.spec.task, DagTask) for found in files.jobs)


def test_the_guide_has_files():
    assert len(BLOCKS) > 6
