"""Which node is to lead which group of shards: even, and moved as little as can be.

Every node computes this of the same facts and so comes to the same answer; where two see
different facts for a moment, the coordinator's key decides, and both look again.
"""

import hashlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Final

_SCORES_KEPT: Final = 16_384
"""256 groups on 64 nodes: a plan is made again at each change of the cluster."""


@lru_cache(maxsize=_SCORES_KEPT)
def score(number: int, name: str, incarnation: int) -> int:
    """How much a node wants a group: rendezvous hashing (Thaler and Ravishankar, 1998)."""
    wish = f"{number}:{incarnation}:{name}".encode()
    return int.from_bytes(hashlib.blake2b(wish, digest_size=8).digest(), "big")


def plan(
    numbers: Iterable[int], members: Mapping[int, str], holders: Mapping[int, int]
) -> dict[int, int]:
    """Give each group to a member, by incarnation; no group to anyone where there is no member.

    Of two members, one has at most one group more than the other. Who holds a group keeps it
    unless that is against evenness. Doing the plan one group at a time, in any order, changes
    nothing in what is left of it.

    Args:
        numbers: the groups.
        members: names of the nodes fit to lead, by incarnation.
        holders: incarnations of those who lead now, by group; others than members count for none.
    """
    wanted = sorted(set(numbers))
    if not members:
        return {}
    held: dict[int, list[int]] = {incarnation: [] for incarnation in members}
    for number in wanted:
        if (holder := holders.get(number)) in held:
            held[holder].append(number)
    room = _quotas(len(wanted), members, {who: len(has) for who, has in held.items()})
    placed: dict[int, int] = {}
    for who, has in held.items():
        keep = sorted(has, key=lambda number: (-_wish(number, who, members), number))[: room[who]]
        placed.update(dict.fromkeys(keep, who))
        room[who] -= len(keep)
    for number in wanted:
        if number not in placed:
            able = [who for who, left in room.items() if left]
            placed[number] = max(able, key=lambda who: (_wish(number, who, members), who))
            room[placed[number]] -= 1
    return placed


def _wish(number: int, who: int, members: Mapping[int, str]) -> int:
    return score(number, members[who], who)


def _quotas(count: int, members: Mapping[int, str], has: Mapping[int, int]) -> dict[int, int]:
    """How many each may have: those that hold more than the even share have one more first."""
    share, over = divmod(count, len(members))
    first = sorted(members, key=lambda who: (has[who] <= share, -_wish(-1, who, members), who))
    return {who: share + (place < over) for place, who in enumerate(first)}
