"""`runtime next CRON`: every known fact of cron, without a node, in the zone's own offset."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from runtime.cli.main import commands

FACTS = Path(__file__).resolve().parents[4] / "shared" / "data" / "cron_facts.json"


def ask(*arguments: str):
    return CliRunner().invoke(commands, ["next", *arguments])


def answer(*arguments: str) -> list[str]:
    done = ask(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_every_fact_of_cron_holds():
    if not FACTS.is_file():
        pytest.skip(f"the facts are not here: {FACTS}")
    facts = json.loads(FACTS.read_text())["facts"]
    wrong = [
        (fact, found)
        for fact in facts
        if (
            found := answer(
                fact["expression"],
                *("--timezone", fact["timezone"]),
                *("--after", fact["start"]),
                *("--count", str(len(fact["next"]))),
            )
        )
        != fact["next"]
    ]
    assert len(facts) > 300
    assert wrong == []


def test_an_instant_carries_the_offset_of_its_zone():
    assert answer(
        "30 2 * * *",
        *("--timezone", "Europe/Berlin"),
        *("--after", "2026-03-28T00:00:00Z"),
        *("--count", "2"),
    ) == ["2026-03-28T02:30:00+01:00", "2026-03-29T03:00:00+02:00"]


def test_after_without_an_offset_is_on_the_wall_clock_of_the_zone():
    assert answer(
        "@hourly",
        *("--timezone", "Asia/Kolkata"),
        *("--after", "2026-01-01T09:30:00"),
        *("--count", "1"),
    ) == ["2026-01-01T10:00:00+05:30"]


def test_an_interval_counts_from_after():
    assert answer("@every 1h30m", "--after", "2026-01-01T00:00:00Z", "--count", "2") == [
        "2026-01-01T01:30:00+00:00",
        "2026-01-01T03:00:00+00:00",
    ]


def test_what_is_never_due_is_an_empty_array():
    assert answer("0 0 30 2 *") == []
    done = ask("0 0 30 2 *")
    assert done.stdout == ""
    assert done.stderr == "0 0 30 2 * is never due\n"


def test_an_at_in_the_past_is_never_due_again():
    assert answer("@at 2020-01-01T00:00:00Z") == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["0 61 * * *"], 'hour "61" cannot be read'),
        (["* * * *"], "is not a cron expression"),
        (["* * * * * * *"], "is not a cron expression"),
        (["@fortnightly"], "@fortnightly"),
        (["@every soon"], "is not a duration"),
        (["@every 0.1s"], "1s"),
        (["@after 24h"], "follows from the end of the one before"),
        (["* * * * *", "--timezone", "Mars/Olympus"], '"Mars/Olympus" is not a time zone'),
        (["* * * * *", "--timezone", "../etc/passwd"], "is not a time zone"),
        (["* * * * *", "--after", "tomorrow"], '"tomorrow" is not an instant'),
        (["* * * * *", "--count", "0"], "--count"),
        (["* * * * *", "--count", "many"], "--count"),
        (["* * * * *\0"], "is not a cron expression"),
        (["* " * 100_000], "too long"),
        ([""], "is not a cron expression"),
        ([], "JOB|CRON"),
    ],
)
def test_what_is_wrong_is_told_with_exit_code_2(arguments: list[str], said: str):
    done = ask(*arguments)
    assert done.exit_code == 2, done.output
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr) < 1000
