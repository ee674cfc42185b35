"""The harness's own rules: each invariant turns red on a story that breaks it, and only then."""

from __future__ import annotations

import asyncio
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from scripts.faults.checks import deadline, in_time, none_early, none_stale, once_each, to_us
from scripts.faults.instants import instants
from scripts.faults.jobs import Work
from scripts.faults.one_story import nothing_gone, one_story
from scripts.faults.proxy import Link
from scripts.faults.servers import ServerError, refuse_bad_etcd
from scripts.faults.story import Disturbance, Epoch, Fire, Line, Row, Story, Tried
from scripts.faults.wire import Conversation

S = 1_000_000
T0 = to_us(datetime(2026, 3, 10, 12, 0, tzinfo=UTC))
WORK = Work(Path(), (), {"even": "*/2 * * * * *"}, frozenset({"even", "brief", "once"}))
OURS = WORK.ours


def row(name: str, **changes) -> Row:
    plain = {
        "execution": name, "job": "brief", "fired": False, "due_us": T0, "last_us": T0,
        "state": "succeeded", "reason": None, "attempt": 1, "token": 1, "started_us": T0 + 10,
        "key": "",
    }  # fmt: skip
    return Row(**{**plain, **changes})


def fired(second: int, **changes) -> Row:
    due = T0 + second * S
    plain = {"job": "even", "fired": True, "due_us": due, "last_us": due, "started_us": due + 10}
    return row(f"e{second}", **{**plain, **changes})


def line(word: str, name: str, token: int, number: int, **changes) -> Line:
    return Line(word, name, token, 1, changes.get("job", "brief"), T0, T0 + 10, number)


def story(**changes) -> Story:
    plain = {
        "rows": [], "tried": [], "lines": [], "fires": [], "epochs": [], "disturbances": [],
        "applied_us": T0, "until_us": T0 + 5 * S, "anchors_us": {"even": T0}, "filled_us": [],
        "acknowledged": {}, "twice": [],
    }  # fmt: skip
    return Story(**{**plain, **changes})


GOOD = story(rows=[fired(2), fired(4)])


def test_each_instant_has_one_row_and_no_other_has():
    assert once_each(GOOD, WORK) == []
    assert "no row" in once_each(story(rows=[fired(2)]), WORK)[0].what
    assert "2 rows" in once_each(story(rows=[fired(2), fired(2), fired(4)]), WORK)[0].what
    assert "names no" in once_each(story(rows=[fired(2), fired(3), fired(4)]), WORK)[0].what


def test_a_run_of_skipped_instants_stands_for_each():
    skipped = fired(2, last_us=T0 + 4 * S, state="skipped", started_us=None)
    assert once_each(story(rows=[skipped]), WORK) == []


def test_a_first_attempt_starts_soon_where_nothing_stood_in_its_way():
    late = fired(2, started_us=T0 + 9 * S)
    assert in_time(GOOD, WORK) == []
    assert "late" in in_time(story(rows=[late]), WORK)[0].what
    away = Disturbance(kind="outage", what="x", begin_us=T0 + 3 * S, end_us=T0 + 6 * S)
    assert in_time(story(rows=[late], disturbances=[away]), WORK) == []
    assert deadline(T0, [away]) == T0 + 8 * S


def test_a_second_attempt_does_not_make_the_first_one_late():
    again = fired(2, attempt=2, token=9, started_us=T0 + 60 * S)
    first = Tried(
        execution="e2", attempt=1, state="lost", reason=None, token=1, started_us=T0 + 2 * S
    )
    assert in_time(story(rows=[again], tried=[first]), WORK) == []
    assert in_time(story(rows=[again]), WORK) != []


def test_nothing_starts_early():
    early = Line("start", "a", 1, 1, "brief", T0, T0 - 1, 1)
    assert none_early(GOOD) == []
    assert len(none_early(story(lines=[early], rows=[fired(2, started_us=T0)]))) == 2


LOST = Tried(execution="a", attempt=1, state="lost", reason="node", token=1, started_us=T0)
TOLD = [line("start", "a", 1, 1), line("start", "a", 2, 2), line("end", "a", 2, 3)]


def test_ledger_and_books_tell_one_story():
    good = story(rows=[row("a", attempt=2, token=2)], tried=[LOST], lines=TOLD)
    assert one_story(good, OURS) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tried": []}, "no attempt of the books"),
        ({"rows": [row("a", token=1)]}, "recorded lost and succeeded"),
        ({"rows": []}, "know nothing"),
        ({"lines": TOLD[:2]}, "wrote no end"),
        ({"lines": [TOLD[1], TOLD[0], TOLD[2]]}, "do not grow"),
        ({"lines": [*TOLD, TOLD[2]]}, "written 2 times"),
        ({"rows": [row("a", attempt=2, token=2, job="once")]}, "at most once"),
        ({"twice": ["k1 twice"]}, "k1 twice"),
        ({"rows": [row("a", attempt=2, token=2, key="k"), row("b", state="skipped", token=None,
                                                              key="k")]}, "2 executions"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_told(changes, words):
    plain = {"rows": [row("a", attempt=2, token=2)], "tried": [LOST], "lines": TOLD}
    found = one_story(story(**{**plain, **changes}), OURS)
    assert any(words in breach.what for breach in found), found


def test_no_older_epoch_commits_after_a_newer_one():
    taken = [Epoch(0, 1, 7, T0), Epoch(0, 2, 8, T0 + 9 * S)]
    good = [Fire(0, 1, 1, 3, T0 + S), Fire(0, 2, 2, 3, T0 + 10 * S)]
    assert none_stale(story(fires=good, epochs=taken), leases=True) == []
    stale = [*good, Fire(0, 1, 2, 3, T0 + 11 * S)]
    assert "epoch 1" in none_stale(story(fires=stale, epochs=taken), leases=False)[0].what


def test_a_leader_stops_a_second_before_its_lease_can_pass_on():
    taken = [Epoch(0, 1, 7, T0), Epoch(0, 2, 8, T0 + 2 * S)]
    fires = [Fire(0, 1, 1, 3, T0 + 2 * S - 500_000)]
    cut = Disturbance(kind="silent", what="cut", begin_us=T0, end_us=T0 + 3 * S, node="n0")
    kept = {"fires": fires, "epochs": taken, "names": {7: "n0", 8: "n1"}, "disturbances": [cut]}
    assert none_stale(story(**kept), leases=True) != []
    assert none_stale(story(**kept), leases=False) == []
    resigned = story(**{**kept, "disturbances": []})
    assert none_stale(resigned, leases=True) == []


def test_nothing_acknowledged_is_gone_or_pending():
    assert nothing_gone(story(rows=[row("a")], acknowledged={"k": "a"}), OURS) == []
    assert "gone" in nothing_gone(story(acknowledged={"k": "a"}), OURS)[0].what
    assert "pending" in nothing_gone(story(rows=[row("a", state="running")]), OURS)[0].what
    assert nothing_gone(story(rows=[row("a", state="dead", reason="failed")]), OURS) != []
    once = row("a", job="once", state="dead", reason="lost")
    assert nothing_gone(story(rows=[once]), OURS) == []


def test_intervals_count_from_their_anchor():
    anchor = datetime(2026, 3, 10, 12, 0, 0, 250, tzinfo=UTC)
    found = instants("@every 3s", anchor, anchor, anchor + timedelta(seconds=7))
    assert found == [anchor + timedelta(seconds=3), anchor + timedelta(seconds=6)]
    later = anchor + timedelta(seconds=3)
    assert instants("@every 3s", anchor, later, later + timedelta(seconds=3)) == [found[1]]


@pytest.mark.parametrize("version", ["3.5.0", "3.5.1", "3.5.2"])
def test_an_etcd_that_can_lose_data_is_refused(version):
    with pytest.raises(ServerError, match=version):
        refuse_bad_etcd(f"services: etcd {version} answers on port 1 (0.3 s)")
    refuse_bad_etcd("services: etcd 3.4.23 answers on port 1 (0.3 s)")
    refuse_bad_etcd("services: etcd 3.5.6 answers on port 1 (0.3 s)")


def frame(kind: bytes, body: bytes = b"") -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


START = struct.pack("!ii", 8, 80877103)
LOG_ON = struct.pack("!ii", 9, 196608) + b"\0"
ASKED = (
    frame(b"P", b"s1\0UPDATE it\0\0\0")
    + frame(b"B", b"\0s1\0\0\0")
    + frame(b"E", b"\0")
    + frame(b"S")
)  # fmt: skip
READY = frame(b"Z", b"I")


@pytest.mark.parametrize("piece", [1, 3, 1000])
def test_an_answer_is_known_by_its_frames_however_they_come(piece):
    talk = Conversation()

    def say(data: bytes) -> None:
        for at in range(0, len(data), piece):
            talk.asked(data[at : at + piece], armed="UPDATE")

    def answer(data: bytes) -> None:
        for at in range(0, len(data), piece):
            talk.answered(data[at : at + piece])

    say(START)
    answer(b"N")
    say(LOG_ON)
    answer(frame(b"R", b"\0\0\0\0") + READY)
    say(ASKED)
    assert talk.doomed == "UPDATE it"
    answer(frame(b"2") + frame(b"C", b"UPDATE 1\0"))
    assert not talk.done
    answer(READY)
    assert talk.done


@pytest.mark.asyncio
async def test_a_held_link_loses_nothing_and_a_reset_ends_it():
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    link = Link("127.0.0.1", server.sockets[0].getsockname()[1])
    await link.open()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", link.port)
        writer.write(b"one")
        assert await reader.readexactly(3) == b"one"
        link.hold(frozenset({"down"}))
        writer.write(b"two")
        link.heal()
        assert await reader.readexactly(3) == b"two"
        link.reset()
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        assert link.open_connections == 0
        writer.close()
    finally:
        await link.close()
        server.close()
        await server.wait_closed()


def test_a_fault_can_be_told_in_json():
    assert msgspec.json.encode(story()).startswith(b"{")
