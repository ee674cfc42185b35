"""A node in a process of its own: campaigns for one group and tells when it trusts itself to lead.

Each line it prints is what was so at a moment: `trusted` and the nanoseconds of the clock that all
processes share, taken after the look; `lost` ends it.
"""

import sys

import anyio

from runtime.clock import monotonic_ns
from runtime.etcd import EtcdCoordinator, EtcdSettings


async def lead(endpoint: str, cluster: str, ttl_s: float) -> None:
    settings = EtcdSettings(endpoints=(endpoint,), cluster=cluster, ttl_s=ttl_s)
    coordinator = EtcdCoordinator(settings, name="paused", incarnation=1)
    coordinator.cover(1)
    async with anyio.create_task_group() as group:
        group.start_soon(coordinator.run)
        leadership = await coordinator.campaign(0)

        async def tell() -> None:
            while True:
                if leadership.trusted():
                    print("trusted", monotonic_ns(), flush=True)  # noqa: T201 - its only voice
                await anyio.sleep(0.005)

        group.start_soon(tell)
        await leadership.lost()
        print("lost", monotonic_ns(), flush=True)  # noqa: T201 - its only voice
        group.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(lead, sys.argv[1], sys.argv[2], float(sys.argv[3]))
