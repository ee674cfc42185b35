"""How answers look: columns for pipes, tables for people, nothing that steers a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from datetime import timedelta

import pytest

from runtime.cli import show
from runtime.cli.arguments import now
from tests.support.embedded import ROOT
from tests.support.node import environment


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "<1ms"),
        (0.0004, "<1ms"),
        (0.0312, "0.03s"),
        (5.4, "5s"),
        (200, "3m20s"),
        (3_600, "1h"),
        (90_061, "1d1h"),
        (86_400 * 30, "30d"),
    ],
)
def test_lengths_of_time_are_rounded_to_what_a_person_wants(seconds: float, said: str):
    assert show.about(seconds) == said


def test_instants_are_told_by_their_distance():
    assert show.relative(now() + timedelta(seconds=90.5)) in {"in 1m30s", "in 1m31s"}
    assert show.relative(now() - timedelta(hours=2)).endswith(" ago")
    assert show.relative(now() + timedelta(days=40)).endswith("(in 40d)")


def test_a_jobs_words_do_not_steer_the_terminal():
    hostile = "\x1b]0;owned\x07 \x1b[2J\r\nsecond line\x9b31m\u202e"
    assert all(c.isprintable() for c in show.clean(hostile))
    assert show.cell({"a": "\x1b"}).isprintable()


def test_a_pipe_gets_columns_and_a_note_where_there_is_nothing(capsys):
    show.table(("job", "last"), [("a", None), ("longer", "dead")], empty="no jobs")
    show.table(("job",), [], empty="no jobs")
    said = capsys.readouterr()
    assert said.out == "JOB     LAST\na       -\nlonger  dead\n"
    assert said.err == "no jobs\n"


def test_a_program_gets_one_document_on_one_line(capsys):
    show.print_json([{"a": 1.5}, {"b": "é"}])
    assert capsys.readouterr().out == '[{"a":1.5},{"b":"é"}]\n'


def test_a_person_gets_a_table_whose_ids_stay_whole():
    script = (
        "from runtime.cli.show import table; "
        "table(('execution', 'job', 'none'), "
        "[('01a1fd01-6713-7933-8000-00000000000a', 'x' * 90, None)], empty='')"
    )
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=ROOT,
        env=environment({"COLUMNS": "80", "TERM": "xterm"}),
    )
    os.close(theirs)
    said = b""
    try:
        while piece := os.read(ours, 65536):
            said += piece
    except OSError:
        pass  # Linux says EIO where the other side has closed
    finally:
        os.close(ours)
        process.wait()
    text = said.decode()
    assert "01a1fd01-6713-7933-8000-00000000000a" in text
    assert "none" not in text
    assert "\x1b[" in text
