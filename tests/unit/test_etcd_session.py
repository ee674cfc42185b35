"""A session is trusted from before its question, by the TTL in the answer, and not too long."""

from types import SimpleNamespace

import anyio
import anyio.lowlevel
import pytest

from protocols.errors import UnavailableError
from runtime.etcd.session import Session

pytestmark = pytest.mark.asyncio

NS = 1_000_000_000


class SlowEtcd:
    """Answers after as long as the test says, by the test's own clock."""

    def __init__(self) -> None:
        self.now_ns = 100 * NS
        self.takes_s = 0.7
        self.grants_s = 6
        self.away = False
        self.asked = 0

    async def reach(self, call):
        return await call()

    async def lease_grant(self, ttl_s):
        await self._answer()
        return SimpleNamespace(ID=9, TTL=self.grants_s)

    async def keep_alive(self, lease):
        await self._answer()
        return self.grants_s

    async def _answer(self):
        await anyio.lowlevel.checkpoint()
        self.asked += 1
        self.now_ns += round(self.takes_s * NS)
        if self.away:
            raise UnavailableError("away")


async def changed(etcd, session, asked):
    """Have it renew, and wait until so many questions were answered."""
    while etcd.asked < asked:
        session.look()
        await anyio.lowlevel.checkpoint()
    await anyio.lowlevel.checkpoint()


async def test_trust_begins_before_the_question_and_ends_a_second_before_the_lease():
    etcd, said = SlowEtcd(), []
    session = Session(
        etcd,
        ttl_s=5,
        now_ns=lambda: etcd.now_ns,
        on_change=lambda: None,
        on_state=said.append,
    )
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(session.run)
            await changed(etcd, session, 1)
            assert session.trusted_until_ns == (100 + 6 - 1) * NS
            etcd.away = True
            etcd.now_ns = 104 * NS
            await changed(etcd, session, 2)
            assert session.trusted()
            assert session.trusted_until_ns == 105 * NS, "a question without an answer adds nothing"
            etcd.now_ns = 105 * NS
            assert not session.trusted()
            assert session.life == 0
            etcd.now_ns = 106 * NS
            await changed(etcd, session, 4)
            assert session.life == 1
            etcd.away, etcd.takes_s = False, 8.0
            await changed(etcd, session, etcd.asked + 1)
            assert not session.trusted(), "an answer that took longer than the lease"
            etcd.takes_s = 0.0
            await changed(etcd, session, etcd.asked + 2)
            assert session.trusted()
            group.cancel_scope.cancel()
    assert said[0] is None
    assert "away" in said
    assert said[-1] is None
