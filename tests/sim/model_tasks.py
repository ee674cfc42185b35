"""What running tasks ask of the model store: checkpoints, once, events, cancels."""
# ruff: noqa: A001, A002 - a row's key is called id everywhere

from collections.abc import Sequence
from datetime import datetime, timedelta

from tests.sim.model_books import Books, Event, Row


class Tasks:
    """A part of the model store."""

    books: Books

    def _live(self, id: int, token: int) -> Row | None:
        row = self.books.hot.get(id)
        return row if row is not None and row.state == "running" and row.token == token else None

    def forget(self, row: Row, ended_at: datetime) -> None:
        """A success forgets its own checkpoint, and its once keys begin to expire."""
        self.books.checkpoints.pop((row.job_key, row.id), None)
        for key in self.books.once.values():
            if key[0] == row.id:
                key[3] = ended_at + timedelta(seconds=key[2])

    async def checkpoints(self, ids: Sequence[int]) -> dict[int, bytes]:
        saved = {}
        for id in ids:
            if (row := self.books.hot.get(id)) is not None:
                for execution in (id, 0):
                    value = self.books.checkpoints.get((row.job_key, execution))
                    if value is not None:
                        saved[id] = value
                        break
        return saved

    async def save_checkpoint(self, id: int, token: int, value: bytes, *, now: datetime) -> bool:
        row = self._live(id, token)
        if row is None:
            return False
        spec = self.books.jobs[row.job_key].versions[row.version]
        self.books.checkpoints[row.job_key, 0 if spec.checkpoint == "job" else id] = value
        return True

    async def once(
        self, id: int, token: int, key: str, ttl_s: float, *, now: datetime
    ) -> str | None:
        row = self._live(id, token)
        if row is None:
            return None
        place = (row.tenant, key)
        held = self.books.once.get(place)
        mine = [id, token, ttl_s, None]
        if held is None or (held[3] is not None and held[3] <= now):
            self.books.once[place] = mine
            return "first"
        if held[0] == id:
            return "first" if held[1] == token else "again"
        if held[3] is None and held[0] not in self.books.hot:
            self.books.once[place] = mine
            return "first"
        return "no"

    async def emit(
        self,
        tenant: str,
        event: str,
        payload: bytes | None,
        *,
        now: datetime,
        key: str | None = None,
    ) -> None:
        if key is not None:
            place = (tenant, f"emit {event}", key)
            found = self.books.keys.get(place)
            if found is not None and found[0] > now:
                return
            self.books.keys[place] = (now + timedelta(hours=24), b"", 0, now)
        self.books.events.append(Event(kind="emitted", tenant=tenant, name=event, payload=payload))

    async def cancel_requests(self, incarnation: int) -> Sequence[tuple[int, int]]:
        return [
            (row.id, row.token)
            for row in sorted(self.books.hot.values(), key=lambda row: row.id)
            if row.incarnation == incarnation and row.cancel_requested and row.state == "running"
        ]

    async def running(self, incarnation: int, pool: str) -> Sequence[tuple[int, int]]:
        return [
            (row.id, row.token)
            for row in sorted(self.books.hot.values(), key=lambda row: row.id)
            if row.incarnation == incarnation and row.pool == pool and row.state == "running"
        ]
