"""Each guard taken out turns some seed red, by the law that it stands for; what is left holds.

A simulation that stays green without a guard would prove nothing about it.
"""

import pytest

from actors.dispatcher.actor import DispatcherActor
from actors.timer import near
from actors.timer.schedule import CompiledSchedule
from tests.sim.model_store import ModelStore
from tests.sim.node import LATE_END
from tests.sim.run import run_seed

SEEDS_MOST = 150


def breaks(law: str, store_class: type[ModelStore] = ModelStore) -> bool:
    """Whether a seed turns red by this law, among others maybe."""
    return any(
        law in said
        for seed in range(SEEDS_MOST)
        for said in run_seed(seed, store_class=store_class).ledger.broken
    )


class NoEpoch(ModelStore):
    """Any leader may fire, whoever leads by now."""

    def in_term(self, term):
        return True


class NoToken(ModelStore):
    """Whoever once ran an execution may end it."""

    def in_force(self, row, incarnation, token):
        return row is not None and row.state == "running"


class NoProof(ModelStore):
    """A firing is taken though the schedule has moved on since it was read."""

    def as_seen(self, job, firing):
        return job.version == firing.version


class NoInstant(NoProof):
    """Nor does a unique index know which instants have a row."""

    def decided(self, key, instant):
        return False


def test_without_the_epoch_an_old_leader_fires():
    assert breaks("fired after", NoEpoch)


def test_without_the_token_a_worker_ends_what_is_anothers():
    assert breaks("is in force", NoToken)


def test_without_unique_instants_one_runs_twice():
    assert breaks("rows", NoInstant)


def test_without_grace_what_is_late_is_missed(monkeypatch: pytest.MonkeyPatch):
    plan_due = near.plan_due

    def hasty(compiled: CompiledSchedule, **options):
        schedule = compiled.schedule
        misfire = type(schedule.misfire)(
            policy=schedule.misfire.policy, limit=schedule.misfire.limit, grace_s=0.0
        )
        compiled.schedule = type(schedule)(
            **{**{n: getattr(schedule, n) for n in schedule.__struct_fields__}, "misfire": misfire}
        )
        return plan_due(compiled, **options)

    monkeypatch.setattr(near, "plan_due", hasty)
    assert breaks("late, and is missed")


def test_an_actor_whose_end_is_never_over_is_seen(monkeypatch: pytest.MonkeyPatch):
    """Though an end that a pause or a slow line holds up is the script's doing."""

    async def forever(_, ctx):
        await ctx.sleep(1e6)

    monkeypatch.setattr(DispatcherActor, "on_stop", forever)
    assert breaks(LATE_END)


def test_the_unique_instant_holds_where_the_proof_of_the_cursor_does_not():
    """Behind the cursor's proof stands the index: an instant that has a row is passed over."""

    class Counting(NoProof):
        refused = 0

        def decided(self, key, instant):
            known = super().decided(key, instant)
            Counting.refused += known
            return known

    for seed in range(40):
        broken = run_seed(seed, store_class=Counting).ledger.broken
        assert not [law for law in broken if "rows" in law]
    assert Counting.refused > 0
