"""What a worker holds, through doubled, overtaken and late messages."""

from datetime import UTC, datetime

from actors.worker.held import Held
from protocols.jobs import CommandTask, JobSpec
from protocols.ports.executor import Outcome
from protocols.ports.store import Claimed

NOW = datetime(2026, 12, 1, tzinfo=UTC)
SPEC = JobSpec(job_id="j", task=CommandTask(shell="true"))


def row(id_: int, token: int = 0, version: int = 1) -> Claimed:
    return Claimed(
        id=id_,
        created_at=NOW,
        tenant="default",
        job_id="j",
        job_key=1,
        version=version,
        priority=2,
        scheduled_for=NOW,
        attempt=1,
        failures=0,
        losses=0,
        fencing_token=token or id_,
        input=None,
    )


def held(slots: int = 4) -> Held:
    made = Held(slots=slots)
    made.specs[1, 1] = SPEC
    return made


def test_a_doubled_message_is_dropped_though_its_work_is_over():
    it = held()
    assert it.receive([row(1)], session=1, sent=1)
    assert [r.id for r in it.startable()] == [1]
    it.running.clear()
    assert not it.receive([row(1)], session=1, sent=1)
    assert it.startable() == []


def test_an_overtaken_message_is_dropped_and_an_older_session_too():
    it = held()
    assert it.receive([row(2)], session=7, sent=2)
    assert not it.receive([row(1)], session=7, sent=1)
    assert not it.receive([row(3)], session=6, sent=9)
    assert it.receive([row(4)], session=8, sent=1)
    assert [r.id for r in it.startable()] == [2, 4]
    assert it.received == (8, 1)


def test_what_was_given_up_for_lost_is_not_run_when_it_comes():
    it = held()
    it.disown((1, 1))
    assert list(it.given) == [(1, 1)]
    it.given.clear()
    it.receive([row(1), row(1, token=9)], session=1, sent=2)
    assert [r.fencing_token for r in it.startable()] == [9]


def test_slots_bound_what_runs_whatever_was_assigned():
    it = held(slots=2)
    it.receive([row(1), row(2), row(3)], session=1, sent=3)
    assert [r.id for r in it.startable()] == [1, 2]
    assert (it.free, it.startable()) == (0, [])
    del it.running[1, 1]
    assert [r.id for r in it.startable()] == [3]


def test_work_without_its_definition_waits_for_it():
    it = held()
    it.receive([row(1), row(2, version=2)], session=1, sent=2)
    assert it.unknown() == [(1, 2)]
    assert [r.id for r in it.startable()] == [1]
    assert it.free == 2
    assert [r.id for r in it.drop_assigned()] == [2]


def test_a_new_worker_takes_up_what_the_executor_never_got():
    it = held()
    it.receive([row(1), row(2), row(3)], session=1, sent=3)
    it.startable()
    it.inbox.append(Outcome(id=2, fencing_token=2, state="failed", started_ns=0, finished_ns=1))
    it.reassign_unstarted([(1, 1)])
    assert sorted(it.running) == [(1, 1), (2, 2)]
    assert [r.id for r in it.startable()] == [3]
