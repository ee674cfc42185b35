"""What a dispatcher and its worker say to each other; both live on one node."""

from collections.abc import Sequence

import msgspec

from protocols.ports.store import Claimed


class Assign(msgspec.Struct, frozen=True, gc=False):
    """Run these; `session` (it grows) and `sent` (of that session, these included) number the work.

    By that number a doubled message is known, and dropped.
    """

    claimed: Sequence[Claimed]
    session: int
    sent: int


class Demand(msgspec.Struct, frozen=True, gc=False):
    """So many slots are free, when `received` of `session` had arrived.

    Absolute, so that a lost or doubled one does no harm.
    """

    free: int
    session: int
    received: int


class DemandWanted(msgspec.Struct, frozen=True):
    """A dispatcher has (re)started and asks for the demand."""


class Unimportable(msgspec.Struct, frozen=True):
    """This node cannot run that version; leave it to others."""

    job_key: int
    version: int


class Reconcile(msgspec.Struct, frozen=True):
    """A claim's answer may have been lost: compare what is held with the books."""


class Cease(msgspec.Struct, frozen=True):
    """Claim nothing from here on: the node is to leave once what runs has ended."""
