"""One simulated house: its clock, its network, its one store, and what happened in it."""

import random
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from runtime.kernel.testkit import Network, TestSystem, VirtualClock
from tests.sim.faults import Faults
from tests.sim.ledger import Ledger
from tests.sim.model_books import Books
from tests.sim.model_store import ModelStore

if TYPE_CHECKING:
    from tests.sim.node import SimNode

START = datetime(2026, 12, 1, 8, tzinfo=UTC)
TTL_S = 2.0


class World:
    """Everything that the nodes of one run share."""

    def __init__(self, seed: int, *, store_class: type[ModelStore] = ModelStore) -> None:
        self.seed = seed
        self.faults = Faults(seed)
        self.clock = VirtualClock(start=START)
        self.network = Network(self.clock)
        self.network.plan = self.faults.carry
        self.books = Books()
        self.store = store_class(self.books, self.clock.now)
        self.ledger = Ledger(self.books, self.clock)
        self.peers: dict[str, TestSystem] = {}
        self.nodes: dict[str, SimNode] = {}
        self.trace: list[tuple[float, str, str, Any]] = []
        self._outages: list[tuple[str | None, float]] = []
        self._healed_at: float | None = None

    def dice(self, purpose: str) -> random.Random:
        """Randomness of its own, repeatable under the seed."""
        return random.Random(f"{self.seed}/{purpose}")

    def note(self, who: str, what: str, detail: Any = None) -> None:
        """Remember what happened, for whoever reads the trace of a seed."""
        self.trace.append((self.clock.monotonic(), who, what, detail))

    def told(self) -> str:
        """The trace as text."""
        return "\n".join(
            f"{at:10.4f} {who:6} {what} {detail}" for at, who, what, detail in self.trace
        )

    # --- the database ---------------------------------------------------------------------

    def outage(self, who: str | None, lasts_s: float) -> None:
        """Nobody, or one node not, reaches the database for so long."""
        self._outages.append((who, self.clock.monotonic() + lasts_s))

    def down(self, who: str) -> bool:
        """Whether `who` cannot reach it now."""
        now = self.clock.monotonic()
        return any(whom in (None, who) and now < until for whom, until in self._outages)

    def heal(self) -> None:
        """End all that is wrong; what is on its way comes as it was sent."""
        self.faults.healed = True
        self._healed_at = self.clock.monotonic()
        self._outages.clear()

    @property
    def healed_for_s(self) -> float:
        """How long nothing has gone wrong any more; 0 until then."""
        return 0.0 if self._healed_at is None else self.clock.monotonic() - self._healed_at

    def run(self, who: str, name: str, args: tuple, kwargs: dict) -> tuple[Any, Exception | None]:
        """Run one statement, whole, now; its answer, or what it raised."""
        value, error = None, None
        self.ledger.before(name, args)
        statement = getattr(self.store, name)(*args, **kwargs)
        try:
            statement.send(None)
        except StopIteration as done:
            value = done.value
        except Exception as raised:  # noqa: BLE001 - the caller gets it, over the line
            error = raised
        else:
            raise AssertionError("a statement of the model never waits")
        self.note(who, name, (args, value if error is None else error))
        if error is None:
            self.ledger.after(name, args, value)
        return value, error
