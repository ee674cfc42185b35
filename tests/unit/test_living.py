"""Who lives: an outage that silenced all is nobody's death; who is silent beside others is dead."""

from protocols.ports.store import Peer
from runtime.cluster.living import Living

TTL_S = 5.0
B, C = Peer(incarnation=2, name="b"), Peer(incarnation=3, name="c")


def beaten(living: Living, *peers: Peer, until_s: int, from_s: int = 0) -> None:
    for beat in range(from_s, until_s + 1):
        living.judge(peers, float(beat))


def test_who_is_silent_beside_others_is_dead_at_once():
    living = Living(TTL_S)
    beaten(living, B, C, until_s=10)
    assert living.judge([C], 11.0) == (C,)


def test_an_outage_kills_nobody():
    living = Living(TTL_S)
    beaten(living, B, C, until_s=10)
    assert living.judge([], 60.0) == (B, C)
    assert living.judge([C], 61.0) == (C, B)
    assert living.judge([B, C], 62.0) == (B, C)
    beaten(living, B, C, until_s=66, from_s=63)
    assert living.judge([B], 67.0) == (B,)


def test_who_does_not_come_back_after_an_outage_is_dead_a_ttl_after_it():
    living = Living(TTL_S)
    beaten(living, B, C, until_s=10)
    lives = [B in living.judge([C], 60.0 + beat) for beat in range(7)]
    assert lives == [True] * 5 + [False] * 2


def test_a_successor_ends_its_predecessor():
    living = Living(TTL_S)
    beaten(living, B, until_s=10)
    successor = Peer(incarnation=9, name="b")
    assert living.judge([successor], 60.0) == (successor,)
