"""The named trials: which faults, on what, how often; each repeats one sentence of the promises."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

import msgspec

from scripts.faults.plan import Fault, Shape

ALL: Final = ("postgres", "etcd", "kafka")
_RESTARTED_S: Final = (5.0, 20.0)
_RESTARTS_S: Final = 180.0
_BETWEEN_S: Final = 9.0
_AWAY_S: Final = 120.0
_SETTLES_S: Final = 4.0


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """What to build and the lanes of faults for it; see `run.Lanes`."""

    lanes: tuple[tuple[Fault, ...], ...]
    counts: dict[str, int] = msgspec.field(default_factory=dict)
    shards: int = 3

    @property
    def lasts_s(self) -> float:
        """Until the last fault is over, and some health after it."""
        last_s = max((f.at_s + f.for_s for lane in self.lanes for f in lane), default=0.0)
        return last_s + _BETWEEN_S


def leader_kills(seed: int, shape: Shape, times: int) -> Scenario:
    """The leader is killed with -9, and comes back after as long as its lease lasts."""
    del seed
    step_s = shape.ttl_s * 2 + _BETWEEN_S
    return _one_lane(
        Fault(at_s=5 + n * step_s, kind="kill", target="leader", for_s=shape.ttl_s)
        for n in range(times)
    )


def pauses(seed: int, shape: Shape, times: int) -> Scenario:
    """The leader stands still for 0.5, 1, 3 and 20 times its lease."""
    del seed
    found, at_s = [], 5.0
    for n in range(times):
        for_s = shape.ttl_s * (0.5, 1.0, 3.0, 20.0)[n % 4]
        found.append(Fault(at_s=at_s, kind="pause", target="leader", for_s=for_s))
        at_s += for_s + _BETWEEN_S
    return _one_lane(found)


def restarts(seed: int, shape: Shape, times: int) -> Scenario:
    """Each server is restarted every 5 to 20 s, for three minutes (or `times` restarts of each)."""
    rng = random.Random(seed)
    lanes = []
    for server in shape.servers:
        found, at_s = [], 0.0
        while at_s < _RESTARTS_S and len(found) < times:
            at_s += rng.uniform(*_RESTARTED_S)
            found.append(Fault(at_s=round(at_s, 3), kind="restart", target=server))
        lanes.append(tuple(found))
    return Scenario(lanes=tuple(lanes))


def failover(seed: int, shape: Shape, times: int) -> Scenario:
    """The primary is killed and its standby promoted; a broker and a member of etcd are killed."""
    del seed, shape, times
    return Scenario(
        lanes=(
            (
                Fault(at_s=5, kind="kill", target="kafka-1", for_s=10),
                Fault(at_s=30, kind="kill", target="etcd-1", for_s=10),
                Fault(at_s=55, kind="kill", target="1", for_s=5),
                Fault(at_s=80, kind="promote", target="postgres-1", detail="postgres-2"),
            ),
        ),
        counts={"postgres": 2, "etcd": 3, "kafka": 3},
    )


def etcd_away(seed: int, shape: Shape, times: int) -> Scenario:
    """There is no etcd for two minutes."""
    del seed, shape, times
    return _one_lane([Fault(at_s=5, kind="kill", target="etcd", for_s=_AWAY_S)])


def leader_cut(seed: int, shape: Shape, times: int) -> Scenario:
    """The leader is cut from etcd, with PostgreSQL in reach: both ways, one way, and refused."""
    del seed
    ways = ("both", "up", "down", "refuse")
    step_s = shape.ttl_s * 3 + _BETWEEN_S
    return _one_lane(
        Fault(
            at_s=5 + n * step_s, kind="cut", target="leader", for_s=shape.ttl_s * 3,
            detail=f"etcd:{ways[n % len(ways)]}",
        )
        for n in range(times)
    )  # fmt: skip


def rolling(seed: int, shape: Shape, times: int) -> Scenario:
    """Node after node is ended in good order and started again."""
    del seed
    return _one_lane(
        Fault(at_s=5 + n * 2 * _BETWEEN_S, kind="rolling", target=str(n % shape.nodes))
        for n in range(max(times, shape.nodes))
    )


def kafka_hint(seed: int, shape: Shape, times: int) -> Scenario:
    """What one node is asked for and only another can run starts by a hint, or by the poll."""
    del seed, shape, times
    return Scenario(
        lanes=(
            (
                Fault(at_s=5, kind="hints", target="0", detail="with kafka"),
                Fault(at_s=30, kind="hints", target="0", detail="without kafka"),
            ),
            (Fault(at_s=20, kind="kill", target="kafka", for_s=60),),
        )
    )


def takeovers(seed: int, shape: Shape, times: int) -> Scenario:
    """A ghost takes over from a node that stands still and then goes on: for one node alone."""
    del seed
    step_s = shape.ttl_s + _SETTLES_S
    return _one_lane(
        Fault(at_s=1 + n * step_s, kind="ghost", target="leader", for_s=shape.ttl_s)
        for n in range(times)
    )


def clock_steps(seed: int, shape: Shape, times: int) -> Scenario:
    """A node's wall clock jumps ahead or back, by seconds or hours, and later jumps back."""
    del seed
    by_s = (3, -3, 7200, -7200)
    return _one_lane(
        Fault(
            at_s=5 + n * 2 * _BETWEEN_S, kind="clock", target=str(n % shape.nodes),
            for_s=_BETWEEN_S, detail=f"{by_s[n % len(by_s)]:+d}s",
        )
        for n in range(times)
    )  # fmt: skip


def _one_lane(faults) -> Scenario:  # noqa: ANN001 - faults, in order
    return Scenario(lanes=(tuple(faults),))


class Named(msgspec.Struct, frozen=True):
    """How a scenario is made, and how often its fault happens unless told otherwise."""

    make: Callable[[int, Shape, int], Scenario]
    times: int


SCENARIOS: Final[dict[str, Named]] = {
    "leader-kills": Named(leader_kills, 20),
    "pauses": Named(pauses, 20),
    "restarts": Named(restarts, 1000),
    "failover": Named(failover, 1),
    "etcd-away": Named(etcd_away, 1),
    "leader-cut": Named(leader_cut, 4),
    "rolling": Named(rolling, 3),
    "kafka-hint": Named(kafka_hint, 1),
    "takeovers": Named(takeovers, 3),
    "clock-steps": Named(clock_steps, 8),
}
