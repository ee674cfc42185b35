"""What the doctor finds: one line for each thing looked at, and the way to mend it."""

from collections.abc import Iterable
from typing import Final, Literal

import msgspec

State = Literal["ok", "warning", "degraded", "wrong"]

WARN_OFFSET_S: Final = 0.010
DEGRADED_OFFSET_S: Final = 1.0
_ORDER: Final[tuple[State, ...]] = ("ok", "warning", "degraded", "wrong")


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing looked at; `mend` says what to do where it is not ok."""

    name: str
    state: State
    said: str
    mend: str = ""


def worst(checks: Iterable[Check]) -> State:
    """The state of the whole."""
    return max((check.state for check in checks), key=_ORDER.index, default="ok")


def check_clock(offset_s: float) -> Check:
    """How far this machine's wall clock is from the database's."""
    said = f"this machine's clock is {abs(offset_s) * 1000:.1f} ms {_side(offset_s)} the database's"
    if abs(offset_s) < WARN_OFFSET_S:
        return Check(name="clock", state="ok", said=said)
    return Check(
        name="clock",
        state="degraded" if abs(offset_s) > DEGRADED_OFFSET_S else "warning",
        said=said,
        mend="keep both machines in step (chrony, ntpd); jobs fire by the database's clock",
    )


def _side(offset_s: float) -> str:
    return "behind" if offset_s < 0 else "ahead of"
