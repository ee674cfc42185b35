"""Nodes with a real broker between them, each a system, its remoting and its transport."""

import uuid
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest

from runtime.kafka.client import KafkaSettings
from runtime.kafka.transport import KafkaTransport
from runtime.kernel import ActorSystem
from runtime.kernel.remote import Remoting
from runtime.peers import Peer, Peers


@dataclass
class Member:
    """One node of a test."""

    system: ActorSystem
    remoting: Remoting
    transport: KafkaTransport
    peers: Peers
    states: list[str | None] = field(default_factory=list)

    async def until_up(self) -> None:
        await until(lambda: self.transport.away is None, "it is connected")


class Cluster:
    """Nodes under a cluster name of their own, so that tests share no topic."""

    def __init__(self, settings: KafkaSettings) -> None:
        self.settings = settings
        self.name = f"test-{uuid.uuid4().hex[:12]}"
        self.members: dict[int, Member] = {}
        self.until = until

    @asynccontextmanager
    async def member(self, incarnation: int, name: str, *, expect: bool = True, run: bool = True):
        """A node, from before it joins to its end."""
        async with ActorSystem() as system, anyio.create_task_group() as group:
            states: list[str | None] = []
            transport = KafkaTransport(
                self.settings,
                cluster=self.name,
                name=name,
                now_ns=system.clock.now_ns,
                on_state=states.append,
            )
            assert await transport.prepare() is expect
            peers = Peers()
            with Remoting(
                system, node=incarnation, name=name, peers=peers, transport=transport
            ) as remoting:
                member = Member(system, remoting, transport, peers, states)
                if run:
                    group.start_soon(transport.run)
                    if expect:
                        await member.until_up()
                self.members[incarnation] = member
                self._meet()
                yield member
            group.cancel_scope.cancel()

    def _meet(self) -> None:
        names = {node: member.remoting.name for node, member in self.members.items()}
        for node, member in self.members.items():
            member.peers.update(
                Peer(incarnation=other, name=name) for other, name in names.items() if other != node
            )


async def until(condition: Callable[[], Any], what: str, within_s: float = 60.0) -> None:
    """Return once it holds."""
    with anyio.move_on_after(within_s):
        while not condition():  # noqa: ASYNC110 - the broker is another process
            await anyio.sleep(0.01)
        return
    raise AssertionError(f"{what}: not within {within_s:g} s")


@pytest.fixture
def kafka_settings(kafka_server):
    return KafkaSettings(bootstrap_servers=(kafka_server.bootstrap,))


@pytest.fixture
def cluster(kafka_settings):
    return Cluster(kafka_settings)


@pytest.fixture
def lost_cluster():
    """Of nodes whose Kafka is not there."""
    return Cluster(KafkaSettings(bootstrap_servers=("127.0.0.1:9",)))
