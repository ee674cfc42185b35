"""The console script: exit codes, one sentence for each failure, and a help for each command."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from protocols.errors import InvalidError, NotFoundError, Problem, UnavailableError
from runtime.cli.failures import Failed, Unreachable, exit_code_of, sentence_of, told
from runtime.cli.main import COMMANDS, commands, run
from runtime.settings import SettingsError
from tests.support.embedded import ROOT
from tests.support.node import RUNTIME, environment


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys):
    assert run([name, "--help"]) == 0
    assert "Usage: runtime" in capsys.readouterr().out


def test_the_help_lists_every_command_without_loading_one(capsys):
    assert run(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in COMMANDS)
    command = "import sys, runtime.cli.main as m; m.run(['next', '@daily', '--json'])"
    slow = "[n for n in ('httpx', 'rich', 'asyncpg', 'litestar') if n in sys.modules]"
    found = subprocess.run(
        [sys.executable, "-c", f"{command}; print({slow})"],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "words",
    [
        ["bogus"],
        ["jobs", "bogus"],
        ["dags", "show", "runs"],
        ["jobs", "--bogus"],
        ["start", "extra"],
        ["trigger"],
        ["trigger", "a", "--at", "2026-01-01T00:00:00Z", "--in", "5s"],
        ["trigger", "a", "--at", "2026-01-01T00:00:00"],
        ["trigger", "a", "--in", "-5"],
        ["trigger", "a", "--input", "{"],
        ["trigger", "a", "--input", "NaN"],
        ["trigger", "a", "--input", "@/no/such/file"],
        ["trigger", "a", "--input", "[" * 100_000],
        ["executions", "list", "--state", "happy"],
        ["executions", "list", "--limit", "-1"],
        ["executions", "show"],
        ["backfill", "a", "--from", "2026-01-02T00:00:00Z", "--to", "2026-01-01T00:00:00Z"],
        ["dead-letters", "replay"],
        ["dead-letters", "discard", "x", "--all"],
        ["pause"],
        ["resume"],
        ["checkpoint", "1"],
        ["heartbeat"],
        ["once", "a"],
        ["check"],
        ["apply"],
        ["jobs", "--url", "ftp://somewhere"],
        ["jobs", "--url", "http://[::1"],
        ["jobs", "--tenant", "t\nx"],
        ["jobs", "pause", ".."],
        ["jobs", "resume", ".", "a"],
        ["jobs", "show", ""],
        ["jobs", "delete", ""],
        ["executions", "show", ""],
        ["executions", "cancel", ".."],
        ["trigger", ".."],
        ["emit", ""],
        ["trigger", "a", "--key", "a\nb"],
        ["trigger", "a", "--key", "schl\u00fcssel"],
        ["trigger", "a", "--key", ""],
        ["trigger", "a", "--key", "k" * 256],
        ["emit", "a", "--key", " k"],
        ["trigger", "a", "--input", "1e999"],
        ["trigger", "a", "--input", '{"a": 1, "a": 2}'],
        ["trigger", "a", "--input", '"\\ud800"'],
    ],
    ids=lambda words: " ".join(words)[:60],
)
def test_a_wrong_command_line_is_exit_code_2(words: list[str], capsys, monkeypatch):
    """Told before any node is asked: here none is there, which would be exit code 3."""
    monkeypatch.delenv("RUNTIME_EXECUTION_ID", raising=False)
    monkeypatch.setenv("RUNTIME_URL", "http://127.0.0.1:1")
    assert run(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "rror" in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    "words",
    [
        ["jobs"],
        ["jobs", "list", "--json"],
        ["trigger", "a"],
        ["executions"],
        ["dead-letters"],
        ["nodes"],
        ["actors"],
        ["top"],
        ["pause", "--all"],
        ["next", "a_job"],
    ],
    ids=" ".join,
)
def test_a_node_that_is_not_there_is_exit_code_3(words: list[str], capsys, monkeypatch):
    monkeypatch.setenv("RUNTIME_URL", "http://127.0.0.1:1")
    assert run(words) == 3
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("runtime: no node answers at http://127.0.0.1:1 (")
    assert "`runtime start`" in said.err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (NotFoundError("there is no job"), 1, "runtime: there is no job"),
        (UnavailableError("away"), 3, "runtime: away"),
        (SettingsError(["a: b", "c: d"]), 2, "runtime: a: b\nc: d"),
        (InvalidError((Problem(("a", 1), "no"),)), 1, "runtime: /a/1: no"),
        (Failed("no"), 1, "runtime: no"),
        (Unreachable("gone"), 3, "runtime: gone"),
        (PermissionError(13, "Permission denied", "/x"), 1, "runtime: /x: Permission denied"),
    ],
)
def test_a_failure_is_a_sentence_and_a_code(error: Exception, code: int, said: str):
    assert exit_code_of(error) == code
    assert sentence_of(error) == said


def test_what_was_not_foreseen_is_one_line():
    assert sentence_of(KeyError("a\nb")).count("\n") == 0
    assert exit_code_of(KeyError("a")) == 1


def test_of_a_group_the_error_meant_for_users_is_told():
    meant = NotFoundError("x")
    group = ExceptionGroup("g", [KeyError(1), ExceptionGroup("h", [meant])])
    assert told(group) is meant


def test_a_closed_pipe_is_quiet(tmp_path: Path):
    script = f"{shlex.quote(RUNTIME[0])} -m {RUNTIME[2]} next '* * * * *' --count 10000 | head -1"
    done = subprocess.run(
        ["/bin/sh", "-c", script],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1


def test_the_version_is_told(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("tickwright ")


def test_the_commands_of_the_contract_are_all_here():
    promised = {
        *("start", "check", "apply", "jobs", "pause", "resume", "trigger", "emit", "backfill"),
        *("next", "executions", "dags", "dead-letters", "nodes", "actors", "top", "locks"),
        *("checkpoint", "heartbeat", "once", "doctor", "migrate", "reshard"),
    }
    assert promised == set(COMMANDS)
    assert commands.list_commands(None) == list(COMMANDS)


def test_a_database_that_cannot_be_had_is_exit_code_3(capsys, monkeypatch):
    monkeypatch.setattr("runtime.database.CONNECT_WITHIN_S", 0.2)
    monkeypatch.setenv("RUNTIME_DATABASE__URL", "postgresql://u:s3cr3t@127.0.0.1:1/x")
    assert run(["migrate"]) == 3
    said = capsys.readouterr()
    assert "database.url" in said.err
    assert "s3cr3t" not in said.err
    assert said.err.count("\n") == 1
