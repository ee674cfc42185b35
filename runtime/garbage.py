"""Garbage collection for a process that is a node and nothing else: seldom, and not of its code."""

import gc
from typing import Final

_YOUNG_OBJECTS: Final = 20_000


def collect_seldom() -> None:
    """Set the collector up, once the modules are imported.

    A drain at full speed makes hundreds of objects a millisecond and next to no cycles. By the
    defaults of CPython it ran 160 times in 40,000 jobs and found 20 objects: 2 to 4 us of 20 a job,
    and once a pause of 40 to 60 ms. With these thresholds it ran once, for 8 to 17 ms. Freezing
    showed no gain of its own there: it is for the rare full collection, which would else walk the
    65,000 objects of the imported modules.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 20, 20)
