"""The schedule of faults: the same for the same seed, length and kind of cluster, always.

Who leads is known only when the time has come, so a fault names its target as `leader`, or as the
number of a node, and the run resolves it.
"""

from __future__ import annotations

import random
from typing import Final

import msgspec

STATEMENTS: Final = {
    "fire": "UPDATE schedules s SET cursor",
    "claim": "nextval('fencing_tokens')",
    "finish": "'finished', array_agg",
    "beat": "SET\n        last_beat_at",
    "trigger": "COMMIT",
}
"""What a connection may be cut at, by a word of its statement; see `wire`."""
FIRST_S: Final = 6.0
QUIET_S: Final = (5.0, 9.0)
"""Between a heal and the next fault."""
LAST_S: Final = 6.0
"""Before the end there is no fault, so that the end begins in health."""


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that goes wrong.

    `at_s` counts from the start of the schedule, `for_s` until it is healed; `target` is `leader`,
    the number of a node, or the name of a server; `detail` is the kind's own.
    """

    at_s: float
    kind: str
    target: str
    for_s: float = 0.0
    detail: str = ""

    @property
    def name(self) -> str:
        """How it stands in the table."""
        return " ".join(part for part in (self.kind, self.target, self.detail) if part)


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to break."""

    nodes: int
    ttl_s: float
    servers: tuple[str, ...]
    """Of `postgres`, `etcd`, `kafka`."""

    @property
    def alone(self) -> bool:
        """One node on a PostgreSQL, with nobody to take over."""
        return self.servers == ("postgres",)


def plan(seed: int, minutes: float, shape: Shape) -> tuple[Fault, ...]:
    """Faults one after another, each healed before the next begins, for that many minutes."""
    rng = random.Random(seed)
    found: list[Fault] = []
    deck: list[str] = []
    at_s = FIRST_S
    while True:
        if not deck:
            deck = kinds(shape)
            rng.shuffle(deck)
        fault = draw(rng, deck.pop(), round(at_s, 3), shape)
        ends_s = fault.at_s + fault.for_s
        if ends_s > minutes * 60 - LAST_S:
            return tuple(found)
        found.append(fault)
        at_s = ends_s + rng.uniform(*QUIET_S)


def kinds(shape: Shape) -> list[str]:
    """One round of the deck; the commonest bad days stand in it more than once."""
    deck = ["kill", "kill", "pause", "commit", "commit", "commit", "cut", "cut", "slow"]
    deck += [f"{way} {server}" for server in shape.servers for way in ("restart", "kill")]
    deck += [f"pause {server}" for server in shape.servers]
    deck += ["ghost", "ghost"] if shape.alone else ["pause", "kill", "cut etcd", "cut etcd"]
    return deck


def draw(  # noqa: PLR0911 - one a kind
    rng: random.Random, kind: str, at_s: float, shape: Shape
) -> Fault:
    """One fault of a kind, with all that chance decides of it."""
    verb, _, server = kind.partition(" ")
    ttl_s = shape.ttl_s
    leader = rng.random() < 0.6
    who = "leader" if leader else str(rng.randrange(shape.nodes))

    def fault(target: str, for_s: float = 0.0, detail: str = "") -> Fault:
        return Fault(at_s=at_s, kind=verb, target=target, for_s=round(for_s, 3), detail=detail)

    match verb:
        case "kill" if not server:
            return fault(who, rng.uniform(0.0, ttl_s))
        case "pause" if not server:
            return fault(who, ttl_s * rng.choice((0.5, 1.0, 3.0)))
        case "pause":
            return fault(server, rng.uniform(1.0, 8.0))
        case "kill":
            return fault(server, rng.uniform(0.5, 6.0))
        case "restart":
            return fault(server)
        case "commit":
            return fault(who, 3.0, rng.choice(sorted(STATEMENTS)))
        case "cut":
            way = rng.choice(("both", "up", "down", "reset", "refuse"))
            for_s = 0.0 if way == "reset" else rng.uniform(1.0, 2.0 * ttl_s)
            return fault(who, for_s, f"{server or 'postgres'}:{way}")
        case "slow":
            return fault(who, rng.uniform(3.0, 8.0), f"postgres:{rng.choice((5, 50, 200))}ms")
        case _:
            return fault(who, rng.uniform(0.5, 1.5) * ttl_s)
