"""Callables are found out about in a child: whatever a module does, its own job is told of it."""

import pytest

from runtime.files import callables
from runtime.files.callables import look_up

pytestmark = pytest.mark.asyncio

MODULES = {
    "good": (
        "async def co(ctx): ...\ndef plain(ctx): ...\n"
        "class K:\n    async def __call__(s): ...\nk = K()\nn = 5\n"
    ),
    "prints": (
        "import os, sys\nprint('[[')\nos.write(1, b'[[')\nsys.__stdout__.write('x')\n"
        "def f(ctx): ...\n"
    ),
    "exits": "import os\nos._exit(0)\n",
    "quits": "raise SystemExit(3)\n",
    "forks": "import os\nos.fork()\ndef f(ctx): ...\n",
    "broken": "1 +\n",
    "hangs": "import threading\nthreading.Event().wait()\n",
    "json": "raise RuntimeError('a module of theirs hides ours')\n",
}


@pytest.fixture
def folder(tmp_path):
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    return tmp_path


async def test_each_is_what_it_is(folder):
    found = await look_up(
        ["good:co", "good:plain", "good:k", "good:n", "good:none", "nowhere:f"], cwd=folder
    )
    assert {t: f.isolation for t, f in found.items()} == {
        "good:co": "shared",
        "good:plain": "process",
        "good:k": "shared",
        "good:n": None,
        "good:none": None,
        "nowhere:f": None,
    }
    assert "not callable" in found["good:n"].error
    assert "ModuleNotFoundError" in found["nowhere:f"].error


async def test_a_module_that_misbehaves_is_told_and_the_others_are_found(folder):
    wanted = ["broken:f", "exits:f", "forks:f", "good:co", "prints:f", "quits:f", "good:plain"]
    found = await look_up(wanted, cwd=folder)
    assert {t: f.isolation for t, f in found.items() if f.isolation} == {
        "forks:f": "process",
        "good:co": "shared",
        "good:plain": "process",
        "prints:f": "process",
    }
    assert "ended the process" in found["exits:f"].error
    assert "SystemExit: 3" in found["quits:f"].error
    assert "SyntaxError" in found["broken:f"].error


async def test_a_module_that_never_returns_is_named(folder, monkeypatch):
    monkeypatch.setattr(callables, "IMPORT_WITHIN_S", 3.0)
    found = await look_up(["good:co", "hangs:f", "prints:f"], cwd=folder)
    assert found["good:co"].isolation == "shared"
    assert found["hangs:f"].error == "importing took longer than 3 s"
    assert found["prints:f"].error == "not looked at: hangs:f: importing took longer than 3 s"


async def test_a_module_named_like_one_of_ours_hides_nothing(folder):
    assert (await look_up(["good:co"], cwd=folder))["good:co"].isolation == "shared"


async def test_the_nodes_own_path_is_searched_after_the_folder(
    folder, tmp_path_factory, monkeypatch
):
    shelf = tmp_path_factory.mktemp("shelf")
    (shelf / "shelved.py").write_text("def f(ctx): ...\n")
    (shelf / "good.py").write_text("raise RuntimeError('the wrong one')\n")
    monkeypatch.setenv("PYTHONPATH", str(shelf))
    found = await look_up(["shelved:f", "good:co"], cwd=folder)
    assert [one.isolation for one in found.values()] == ["shared", "process"]
