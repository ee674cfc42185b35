"""What crossed, what was refused going out, and what was dropped coming in: for metrics."""

from collections import Counter
from typing import Literal, TypeAlias

from protocols.actor import RejectReason
from protocols.envelopes import Kind

Dropped: TypeAlias = Literal[
    "garbage", "newer", "misdirected", "ghost", "repeated", "expired", "late", "unreadable",
    "unsendable", "too_many_watches",
]  # fmt: skip
"""Why an envelope that arrived, or an answer that was owed, went no further.

`garbage`: no envelope; `newer`: of a layout this release cannot read; `misdirected`: for another
incarnation of this node's name; `ghost`: of a node, or a session, that is over; `repeated`: it or
a later one had come before; `expired`: its deadline had passed; `late`: nobody waits for that
answer any more; `unreadable`: its message is of a type unknown here; `unsendable`: an answer, or
a word about a watch, that found no way; `too_many_watches`: other nodes hold as many as may be.
"""


class Traffic:
    """Counters of one node's remoting, in messages since it was made."""

    def __init__(self) -> None:
        self.sent: Counter[tuple[Kind, str]] = Counter()
        """By kind and name of the message's type; handed to the transport."""
        self.received: Counter[tuple[Kind, str]] = Counter()
        """The same; of types that are known here, others as `?`."""
        self.refused: Counter[RejectReason] = Counter()
        """Tells, puts and asks that their sender was told of at once."""
        self.dropped: Counter[Dropped] = Counter()
