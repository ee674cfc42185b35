"""What goes wrong in a run, and when: drawn from the seed before it begins, or as it goes."""

import random
from collections.abc import Sequence
from typing import Literal

import msgspec

from runtime.kernel.testkit import Parcel

Kind = Literal["crash", "pause", "restart", "kill", "outage", "cut", "trigger", "cancel"]
AS_IT_IS = (0.0,)
SLOW_S = 3.0
"""The longest that a slow line takes, each way."""
SLOWEST_S = 2 * SLOW_S + 0.01
"""After so long a statement has its answer, however it went."""


class Fault(msgspec.Struct, frozen=True):
    """One thing that happens `at_s` after the start; `lasts_s` where it has a length."""

    at_s: float
    kind: Kind
    node: str | None = None
    lasts_s: float = 0.0


class Way(msgspec.Struct, frozen=True):
    """How one statement goes: out to the database, and its answer back.

    `lost`: `before` it was run, `after` it was committed; `early`: its caller gives up while it
    is still on its way, and it is committed later all the same.
    """

    out_s: float
    back_s: float
    lost: Literal["before", "after", "early"] | None = None


class Faults:
    """The dice of one run."""

    def __init__(self, seed: int) -> None:
        self._lines = random.Random(f"{seed}/lines")
        self._messages = random.Random(f"{seed}/messages")
        script = random.Random(f"{seed}/script")
        self.healed = False
        self.chaos_s = script.uniform(8.0, 18.0)
        self.nodes = script.choice((1, 2, 3, 3))
        self.loss = script.choice((0.0, 0.01, 0.05))
        """The share of statements whose answer is lost."""
        self.slow = script.choice((0.0, 0.02, 0.1))
        """The share of statements that take far longer than usual."""
        self.noise = script.choice((0.0, 0.05, 0.2))
        """The share of messages that are lost, doubled or delayed."""
        self.split = script.random() < 0.5
        """Whether leaders trust an election that is long over."""
        self.offsets = [-script.choice((0.0, 0.002, 0.3)) for _ in range(self.nodes)]
        self.script = sorted(self._script(script), key=lambda fault: fault.at_s)

    def _script(self, dice: random.Random) -> Sequence[Fault]:
        names = [f"n{number}" for number in range(self.nodes)]

        def some(kind: Kind, most: int, longest_s: float = 0.0, *, all_too: bool = False):
            for _ in range(dice.randint(0, most)):
                whom = None if all_too and dice.random() < 0.5 else dice.choice(names)
                lasts_s = dice.choice((0.1, 0.3, 1.0)) * longest_s
                yield Fault(dice.uniform(0.5, self.chaos_s), kind, whom, lasts_s)

        return [
            *some("crash", 2, 5.0),
            *some("pause", 2, 9.0),
            *some("restart", 1),
            *some("kill", 3),
            *some("outage", 2, 6.0, all_too=True),
            *some("cut", 3, 8.0),
            *some("trigger", 12),
            *some("cancel", 2),
        ]

    def way(self) -> Way:
        """How the next statement goes."""
        dice = self._lines
        out_s, back_s = 0.001 + 0.004 * dice.random(), 0.001 + 0.004 * dice.random()
        if self.healed:
            return Way(out_s, back_s)
        if dice.random() < self.slow:
            out_s += dice.choice((0.0, 0.5, SLOW_S)) * dice.random()
            back_s += dice.choice((0.0, 0.5, SLOW_S)) * dice.random()
        if dice.random() >= self.loss:
            return Way(out_s, back_s)
        lost = dice.choice(("before", "after", "early"))
        if lost == "early":
            out_s += dice.choice((0.3, 2.0, 6.0)) * dice.random()
        return Way(out_s, back_s, lost)

    def carry(self, parcel: Parcel) -> Sequence[float]:
        """What becomes of a message: the network's plan."""
        dice = self._messages
        if self.healed or dice.random() >= self.noise * (2 if parcel.between_nodes else 1):
            return AS_IT_IS
        delay_s = dice.choice((0.01, 0.3, 3.0)) * dice.random()
        match dice.randrange(3):
            case 0:
                return ()
            case 1:
                return (0.0, delay_s)
            case _:
                return (delay_s,)
