"""Keeps a view of a prefix true: a snapshot, then what follows it, and a snapshot again at doubt.

A watch begins right after the revision of its snapshot, so nothing between them is missed. No
watch is resumed without one: an etcd that was emptied may have come past the old revision again,
under the same cluster id, and would never tell what it has forgotten.
"""

from collections.abc import Callable
from typing import Final

import aiohttp
import anyio
import msgspec
from etcd3.errors import ErrCompacted, Etcd3Exception

from protocols.errors import UnavailableError
from runtime.etcd.client import EtcdClient
from runtime.etcd.session import pause_s
from runtime.etcd.view import Entry, View
from runtime.etcd.wire import Event, Kv, Told

_DELETE: Final = "DELETE"


class PrefixWatch:
    """Fills a view while `run` runs.

    Args:
        quiet_s: A stream that says nothing for so long is checked by a snapshot.
        on_change: called after each change of the view.
        on_reset: called before it where etcd has gone back behind what it had told: it was emptied,
            or restored from a copy.
        on_state: called with the reason while etcd cannot be reached, with None once it can.
    """

    def __init__(
        self,
        client: EtcdClient,
        view: View,
        *,
        prefix: str,
        quiet_s: float,
        on_change: Callable[[], None],
        on_reset: Callable[[], None],
        on_state: Callable[[str | None], None],
    ) -> None:
        self._client = client
        self._view = view
        self._prefix = prefix.encode()
        self._quiet_s = quiet_s
        self._on_change = on_change
        self._on_reset = on_reset
        self._on_state = on_state
        self._failures = 0

    async def run(self) -> None:
        """Follow etcd through its outages."""
        while True:
            try:
                await self._snapshot()
                self._on_state(None)
                await self._follow()
            except TimeoutError:
                self._failures = 0
                continue  # quiet, or dead: the snapshot tells
            except (UnavailableError, ErrCompacted) as error:
                self._on_state(str(error))
            except (Etcd3Exception, aiohttp.ClientError, OSError, msgspec.MsgspecError):
                # The member went away in mid-stream; the snapshot finds another, or says so.
                pass
            self._failures += 1
            await anyio.sleep(pause_s(self._failures))

    async def _snapshot(self) -> None:
        found = await self._client.reach(lambda: self._client.range(self._prefix, prefix=True))
        if found.header.revision < self._view.revision:
            self._on_reset()
        self._view.replace(map(_entry, found.kvs), found.header.revision)
        self._on_change()

    async def _follow(self) -> None:
        """Apply what comes until the stream ends, is cancelled by etcd, or doubt arises."""
        start = self._view.revision + 1
        async with self._client.watch(self._prefix, start=start, quiet_s=self._quiet_s) as answers:
            async for told in answers:
                if told.canceled or told.header.revision < self._view.revision:
                    return
                self._apply(told)

    def _apply(self, told: Told) -> None:
        if not told.events:
            return
        self._failures = 0
        for event in told.events:
            self._take(event)
        self._view.revision = max(event.kv.mod_revision for event in told.events)
        self._on_change()

    def _take(self, event: Event) -> None:
        kv = event.kv
        if event.type == _DELETE:
            self._view.delete(kv.key, kv.mod_revision)
            return
        self._view.put(_entry(kv), kv.mod_revision)


def _entry(kv: Kv) -> Entry:
    return Entry(key=kv.key, value=kv.value, lease=kv.lease, create_revision=kv.create_revision)
