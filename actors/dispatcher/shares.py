"""How much a claim may take from each lane: the most urgent lanes first, tenants alike."""

from collections.abc import Sequence

from protocols.ports.store import Budget, Lane


def budgets(lanes: Sequence[Lane], free: int, *, turn: int = 0) -> list[Budget]:
    """Split `free` slots over the most urgent lanes among `lanes`.

    Only lanes of the lowest priority number get any; what they leave is for the next call, with
    the exhausted ones left out. Slots that do not divide go round by `turn`.
    """
    if not lanes or free <= 0:
        return []
    urgent = min(lane.priority for lane in lanes)
    level = [lane for lane in lanes if lane.priority == urgent]
    share, rest = divmod(free, len(level))
    return [
        Budget(lane, count)
        for i, lane in enumerate(level)
        if (count := share + ((i - turn) % len(level) < rest)) > 0
    ]
