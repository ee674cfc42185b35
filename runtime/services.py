"""What the HTTP API and an embedding program may use of a running node."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from actors.outbox import OutboxStatus
from protocols.ports.hints import Hints
from runtime.clock import DatabaseClock
from runtime.health import Health
from runtime.hosts.executor import HostExecutor
from runtime.hosts.locks import LockKeeper
from runtime.kernel.system import ActorSystem
from runtime.postgres.pool import Pool
from runtime.postgres.store import PostgresStore
from runtime.settings import Settings

if TYPE_CHECKING:
    from runtime.cluster.member import Member


class Services(Protocol):
    """A node, as seen from its surface."""

    settings: Settings
    clock: DatabaseClock
    health: Health
    token: str
    url: str
    store: PostgresStore
    api: Pool
    """Connections of the role that sees one tenant at a time."""
    keeping: Pool

    @property
    def hints(self) -> Hints:
        """Where hints are sent, once what they tell of is durable."""
        ...

    @property
    def incarnation(self) -> int:
        """This life's number in the books."""
        ...

    @property
    def executors(self) -> Mapping[str, HostExecutor]:
        """By pool."""
        ...

    @property
    def locks(self) -> LockKeeper:
        """What the attempts of this node lock."""
        ...

    @property
    def outbox(self) -> OutboxStatus | None:
        """How telling Kafka goes; None where there is none."""
        ...

    @property
    def leads(self) -> Mapping[int, int]:
        """The epochs of the leaderships it holds, by their numbers."""
        ...

    @property
    def member(self) -> "Member | None":
        """Its part in the cluster; None where it is alone."""
        ...

    @property
    def system(self) -> ActorSystem:
        """The living actors."""
        ...

    def shut_down(self) -> None:
        """Begin to end."""
        ...
