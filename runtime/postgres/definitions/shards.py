"""Which of the fixed shards a job falls into, for as long as it lives."""

from hashlib import blake2b

from protocols.ports.store import SHARDS


def shard_of(tenant: str, job_id: str) -> int:
    """A job's shard, the same on every node and in every release: BLAKE2b of its name."""
    digest = blake2b(f"{tenant}\0{job_id}".encode(), digest_size=2).digest()
    return int.from_bytes(digest, "big") % SHARDS
