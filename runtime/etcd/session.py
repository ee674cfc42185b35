"""A node's one lease in etcd: kept alive, trusted for less than it lasts, and replaced when lost.

Trust ends at *start of the last successful renewal + granted TTL - 1 s* on a clock that counts
also while the machine sleeps, whether or not etcd can be reached and whatever this process missed.
"""

import math
import random
from collections.abc import Callable
from typing import Final

import anyio
from etcd3.errors import ErrLeaseNotFound

from protocols.errors import UnavailableError
from runtime.etcd.client import EtcdClient

MARGIN_S: Final = 1.0
"""How much sooner than etcd may end the lease we stop to trust it."""
_TTL_S_MIN: Final = 2
_RENEWALS_PER_TTL: Final = 3
_PAUSE_MIN_S: Final = 0.1
_PAUSE_MAX_S: Final = 2.0
_NS: Final = 1_000_000_000


def pause_s(failures: int) -> float:
    """How long to wait after so many failures in a row, in seconds: doubling, with jitter."""
    full = min(_PAUSE_MAX_S, _PAUSE_MIN_S * 2.0 ** min(failures - 1, 10))
    return full * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, keeps no secret


class Session:
    """The lease while `run` runs.

    `life` grows whenever the lease was lost, or ran out by our own clock: what was won in one life
    is not to be trusted in the next, even where etcd turns out to have kept the lease.

    Args:
        on_change: called when the lease or the life has changed.
        on_state: called with the reason while etcd cannot be reached, with None once it can.
    """

    def __init__(
        self,
        client: EtcdClient,
        *,
        ttl_s: float,
        now_ns: Callable[[], int],
        on_change: Callable[[], None],
        on_state: Callable[[str | None], None],
    ) -> None:
        self._client = client
        self._ttl_s = max(_TTL_S_MIN, math.ceil(ttl_s))
        self._now_ns = now_ns
        self._on_change = on_change
        self._on_state = on_state
        self._ends_ns = 0
        self._hurry = anyio.Event()
        self.lease = 0
        """Its id in etcd; 0 for none."""
        self.life = 0
        self.granted_s = 0
        """The TTL that etcd gave, not the one it was asked for, in seconds."""
        self.trusted_until_ns = 0
        """By `now_ns`."""

    def trusted(self) -> bool:
        """Whether nobody else can have got what hangs on the lease."""
        return self._now_ns() < self.trusted_until_ns

    def look(self) -> None:
        """Renew the lease now: someone found it gone."""
        self._hurry.set()

    def doubt(self) -> None:
        """Take what was won for lost, though the lease may last: etcd has forgotten things."""
        self._end()
        self.look()

    async def run(self) -> None:
        """Keep a lease at all times that etcd can be reached."""
        failures = 0
        while True:
            asked_ns = self._now_ns()
            if self._ends_ns and asked_ns >= self._ends_ns:
                self._end()
            try:
                await self._renew(asked_ns)
            except UnavailableError as error:
                failures += 1
                self._on_state(str(error))
                wait_s = pause_s(failures)
            else:
                failures = 0
                self._on_state(None)
                gone_s = (self._now_ns() - asked_ns) / _NS
                wait_s = max(0.0, self.granted_s / _RENEWALS_PER_TTL - gone_s)
            if self._ends_ns:
                wait_s = min(wait_s, max(0.0, (self._ends_ns - self._now_ns()) / _NS))
            with anyio.move_on_after(wait_s):
                await self._hurry.wait()
            self._hurry = anyio.Event()

    async def _renew(self, asked_ns: int) -> None:
        if self.lease:
            granted_s = await self._client.keep_alive(self.lease)
            if granted_s > 0:
                self._trust(asked_ns, granted_s)
                return
            self.lease = 0
            self._end()
            asked_ns = self._now_ns()
        granted = await self._client.reach(lambda: self._client.lease_grant(self._ttl_s))
        self.lease = granted.ID
        self._trust(asked_ns, granted.TTL)
        self._on_change()

    def _trust(self, asked_ns: int, granted_s: int) -> None:
        renewed = bool(self._ends_ns)
        self.granted_s = granted_s
        self._ends_ns = asked_ns + granted_s * _NS
        self.trusted_until_ns = self._ends_ns - round(MARGIN_S * _NS)
        if not renewed:
            self._on_change()

    def _end(self) -> None:
        """What was won under it is over."""
        self.life += 1
        self._ends_ns = self.trusted_until_ns = 0
        self._on_change()

    async def close(self) -> None:
        """Give the lease back, and with it all that hangs on it, so that nobody waits for its end.

        Raises:
            UnavailableError: etcd cannot be reached; the lease ends by itself.
        """
        lease, self.lease = self.lease, 0
        self._end()
        if lease:
            try:
                await self._client.reach(lambda: self._client.lease_revoke(lease))
            except ErrLeaseNotFound:
                return
