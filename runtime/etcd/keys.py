"""The keys that a node writes in etcd: its member's, and one for each group of shards it leads.

What etcd did when its answer was lost is never guessed: a key that is there already counts as
created by us if it hangs on our own lease.
"""

from collections.abc import Awaitable
from typing import Final

import anyio
import msgspec

from runtime.etcd.client import EtcdClient
from runtime.etcd.view import Claim, Member, View
from runtime.etcd.wire import Answer

_WRITES_AT_ONCE: Final = 16
"""So that hundreds of leaderships that move at once do not keep the lease from being renewed."""


class Keys:
    """Writes for one incarnation of a node.

    Every call raises UnavailableError where etcd cannot be reached: then it may have been done all
    the same. Those that name a lease raise ErrLeaseNotFound where it is gone.
    """

    def __init__(self, client: EtcdClient, view: View, *, name: str, incarnation: int) -> None:
        self._client = client
        self._view = view
        self._name = name
        self._incarnation = incarnation
        self._writes = anyio.CapacityLimiter(_WRITES_AT_ONCE)

    async def say(self, *, lease: int, fit: bool) -> int:
        """Write the member's key; return the revision of that."""
        value = msgspec.json.encode(Member(self._name, fit))
        key = self._view.member_key(self._incarnation)
        done = await self._client.reach(lambda: self._client.put(key, value, lease=lease))
        return int(done.header.revision)

    def unsaid(self, *, fit: bool, revision: int) -> bool:
        """Whether what was written at that revision is not there any more: a hand did that."""
        seen = self._view.members.get(self._incarnation)
        return self._view.revision >= revision and seen != Member(self._name, fit)

    async def create(self, number: int, *, lease: int) -> int | None:
        """Create the group's key; return the revision of that, None where another holds it."""
        client, key = self._client, self._view.leader_key(number)
        claim = msgspec.json.encode(Claim(self._name, self._incarnation))

        def call() -> Awaitable[Answer]:
            txn = client.Txn()
            txn.compare(txn.key(key).create == 0)
            txn.success(txn.put(key, claim, lease=lease))
            txn.failure(txn.range(key))
            return txn.commit()  # type: ignore[no-any-return]

        async with self._writes:
            answer = await client.reach(call)
        return answer.header.revision if answer.succeeded else _held_since(answer, lease)

    async def delete(self, number: int, *, create_revision: int, lease: int) -> None:
        """Delete the group's key if it is the one created then, on this lease."""
        client, key = self._client, self._view.leader_key(number)

        def call() -> Awaitable[Answer]:
            txn = client.Txn()
            txn.compare(txn.key(key).create == create_revision)
            txn.compare(txn.key(key).lease == lease)
            txn.success(txn.delete(key))
            return txn.commit()  # type: ignore[no-any-return]

        async with self._writes:
            await client.reach(call)


def _held_since(answer: Answer, lease: int) -> int | None:
    """The revision at which our own lease created the key that was in the way."""
    for response in answer.responses:
        for kv in response.response_range.kvs if response.response_range is not None else ():
            if kv.lease == lease:
                return kv.create_revision
    return None
