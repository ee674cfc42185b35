"""How long each failure took to get over, from what the ledger and the commits of leaders show."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from scripts.faults.breaking import Outcome
from scripts.faults.plan import Shape
from scripts.faults.story import Story

_DATABASE_S: Final = 30.0
_QUEUE_S: Final = 10.0
_REACT_S: Final = 2.0
_LEAVES_S: Final = 1.0


class Recovery(msgspec.Struct, frozen=True, kw_only=True):
    """A kind of failure: each time of it in seconds, beside the bound that it is held to."""

    failure: str
    what: str
    bound_s: float | None
    times_s: tuple[float, ...]

    @property
    def held(self) -> bool:
        """Whether every time is within the bound."""
        return self.bound_s is None or all(one <= self.bound_s for one in self.times_s)


def recoveries(
    outcomes: Sequence[Outcome], story: Story, shape: Shape, asked_at: Mapping[str, float]
) -> list[Recovery]:
    """By failure: scheduler, worker, database, queue, in this order; those that occurred."""
    reader = _Reader(story, asked_at)
    bound_s = None if shape.alone else shape.ttl_s + _REACT_S
    found: dict[tuple[str, str, float | None], list[float]] = defaultdict(list)
    for outcome in outcomes:
        kind, target = outcome.fault.kind, outcome.fault.target.partition("-")[0]
        longest = outcome.fault.for_s >= shape.ttl_s
        ends = kind == "kill" or (kind == "pause" and longest)
        if target in shape.servers:
            failure = "database" if target == "postgres" else "queue"
            many = target != outcome.fault.target and kind != "promote"
            since_us = outcome.begin_us if many else outcome.end_us
            bound = _DATABASE_S if failure == "database" else _QUEUE_S
            fired = reader.fired_after(since_us)
            begun = reader.begun_after(since_us)
            found[failure, f"{outcome.fault.name}: next fire", bound] += fired
            found[failure, f"{outcome.fault.name}: next triggered start", bound] += begun
            continue
        since_us = outcome.end_us if shape.alone else outcome.begin_us
        if outcome.led and (ends or kind in {"rolling", "ghost"}):
            limit = _LEAVES_S if kind == "rolling" and not shape.alone else bound_s
            for number, epoch in outcome.led.items():
                found["scheduler", f"{kind} of a leader: next fire of its shards", limit] += (
                    reader.led_again(number, 0 if shape.alone else epoch, since_us)
                )
        if outcome.running and ends:
            found["worker", f"{kind} of a node: its work runs again", bound_s] += [
                max(reader.run_again(outcome.running, outcome.begin_us, since_us), default=0.0)
            ]
    order = ("scheduler", "worker", "database", "queue")
    return [
        Recovery(failure=failure, what=what, bound_s=bound, times_s=tuple(times))
        for (failure, what, bound), times in sorted(
            found.items(), key=lambda item: (order.index(item[0][0]), item[0][1])
        )
        if times
    ]


class _Reader:
    """Looks up what came first after an instant."""

    def __init__(self, story: Story, asked_at: Mapping[str, float]) -> None:
        self._fires = story.fires
        self._fire_us = sorted(fire.at_us for fire in story.fires)
        self._starts: dict[str, list[int]] = defaultdict(list)
        for line in story.lines:
            if line.word == "start":
                self._starts[line.execution].append(line.at_us)
        self._asked = sorted(
            (int(asked_at[key] * 1e6), execution)
            for key, execution in story.acknowledged.items()
            if key in asked_at
        )

    def fired_after(self, since_us: int) -> list[float]:
        """Seconds to the first fire of all."""
        at = bisect_right(self._fire_us, since_us)
        return [(self._fire_us[at] - since_us) / 1e6] if at < len(self._fire_us) else []

    def led_again(self, number: int, epoch: int, since_us: int) -> list[float]:
        """Seconds to the first fire of a leadership by an epoch later than `epoch`."""
        found = (
            fire.at_us
            for fire in self._fires
            if fire.number == number and fire.epoch > epoch and fire.at_us >= since_us
        )
        first_us = min(found, default=None)
        return [] if first_us is None else [(first_us - since_us) / 1e6]

    def begun_after(self, since_us: int) -> list[float]:
        """Seconds to the first start of something acknowledged after that."""
        at = bisect_right(self._asked, (since_us, ""))
        begun = [
            starts[0] for _, name in self._asked[at : at + 50] if (starts := self._starts.get(name))
        ]
        return [(min(begun) - since_us) / 1e6] if begun else []

    def run_again(self, names: Sequence[str], begin_us: int, since_us: int) -> list[float]:
        """Seconds to the next start of each that was running, where there was one."""
        found = []
        for name in names:
            later = [at for at in self._starts.get(name, ()) if at > begin_us]
            if later:
                found.append(max(0.0, (min(later) - since_us) / 1e6))
        return found
