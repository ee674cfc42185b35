"""The facts on which two independent cron implementations agree hold, forwards and backwards."""

import json
from datetime import datetime
from pathlib import Path

import pytest

from actors.timer.dst import timetable

FACTS = Path(__file__).resolve().parents[4] / "shared" / "data" / "cron_facts.json"


def facts() -> list[dict]:
    return json.loads(FACTS.read_text())["facts"] if FACTS.exists() else []


def seconds(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp())


@pytest.mark.skipif(not FACTS.exists(), reason="the shared facts are not beside this checkout")
def test_every_fact_holds():
    assert len(facts()) == 302
    for fact in facts():
        table = timetable(fact["expression"], fact["timezone"])
        start = seconds(fact["start"])
        expected = [seconds(text) for text in fact["next"]]
        forwards, at = [], start
        for _ in expected:
            at = table.next_after(at)
            forwards.append(at)
        backwards, at = [], expected[-1]
        for _ in expected:
            backwards.append(at)
            at = table.last_until(at - 1)
        assert forwards == expected, fact
        assert backwards[::-1] == expected, fact
        assert table.count(start, expected[-1]) == len(expected), fact
        assert list(table.between(start, expected[-1])) == expected, fact
