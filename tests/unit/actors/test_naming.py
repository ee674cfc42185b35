"""Who waits for a name: a silent holder is buried after a watched TTL, one that beats keeps it."""

from datetime import UTC, datetime, timedelta

from actors.naming import NameWatch
from protocols.errors import NameHeldError

TTL_S = 5.0


def held(beat_s: float = 0.0, incarnation: int = 7) -> NameHeldError:
    at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=beat_s)
    return NameHeldError("a", incarnation=incarnation, pid=1, host="h", last_beat_at=at)


def test_a_silent_holder_is_buried_after_a_ttl_of_watching():
    watch = NameWatch(TTL_S)
    assert [watch.judge(held(), now) for now in (10.0, 12.0, 14.9)] == ["wait"] * 3
    assert watch.judge(held(), 15.0) == "bury"


def test_a_holder_that_beats_keeps_its_name():
    watch = NameWatch(TTL_S)
    verdicts = [watch.judge(held(beat_s=now), now) for now in (0.0, 1.0, 2.0, 6.9, 7.0)]
    assert verdicts == ["wait"] * 4 + ["refused"]


def test_an_outage_is_not_counted_as_silence():
    watch = NameWatch(TTL_S)
    assert watch.judge(held(), 0.0) == "wait"
    watch.interrupted()
    assert watch.judge(held(), 6.0) == "wait"
    assert watch.judge(held(), 11.0) == "bury"


def test_the_time_of_an_outage_is_nobodys_patience():
    watch = NameWatch(TTL_S)
    assert watch.judge(held(), 0.0) == "wait"
    watch.interrupted()
    assert [watch.judge(held(), now) for now in (60.0, 62.0, 64.9)] == ["wait"] * 3
    assert watch.judge(held(), 65.0) == "bury"


def test_a_new_holder_is_watched_anew():
    watch = NameWatch(TTL_S)
    assert watch.judge(held(), 0.0) == "wait"
    assert watch.judge(held(incarnation=8), 4.0) == "wait"
    assert watch.judge(held(incarnation=8), 6.0) == "wait"
    assert watch.judge(held(incarnation=8), 7.0) == "refused"


def test_the_error_says_who_holds_it():
    assert "pid 1 on h, incarnation 7" in str(held())
