"""Jitter: a delay that spreads jobs out, the same each time it is asked for one job and instant."""

from hashlib import blake2b


def jitter_us(salt: bytes, instant_us: int, at_most_us: int) -> int:
    """Return a delay in [0, at_most_us), in microseconds, uniform over jobs and instants.

    Args:
        salt: names the job; the same on every node and after every restart.
        instant_us: the due instant, microseconds since the epoch.
        at_most_us: the schedule's `jitter`.
    """
    digest = blake2b(b"%b:%d" % (salt, instant_us), digest_size=8).digest()
    return int.from_bytes(digest, "big") * at_most_us >> 64
