"""Garbage collection for a process that is a node and nothing else: seldom, and not of its code."""

import gc
from typing import Final

_YOUNG_OBJECTS: Final = 20_000


def collect_seldom() -> None:
    """Set the collector up, once the modules are imported.

    A drain at full speed makes hundreds of objects a millisecond and no cycles. By CPython's
    defaults the collector ran 195 times in 40,000 jobs, for 3 to 4 us a job, and a full collection
    walked the 65,000 objects of the imported modules, in 10 to 25 ms that every instant then due
    was late.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 20, 20)
