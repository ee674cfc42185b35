"""What a house without DAGs answers to a DagActor: the simulation has no runs."""

from protocols.ports.store.dags import Advanced, Glance


class NoDags:
    """The part of the Store port that DagActors ask."""

    async def begin_runs(self, incarnation, roots, *, now) -> Advanced:
        del incarnation, now
        assert not roots, "no job of the simulation is a DAG"
        return Advanced()

    async def advance(self, *, now, limit) -> Advanced:
        del now, limit
        return Advanced()

    async def glance(self) -> Glance:
        return Glance(next_at=None, ends=False)

    async def wake(self, *, now, limit) -> Advanced:
        del now, limit
        return Advanced()
