"""How each state looks, the same in every picture: a sign, a sign in ASCII, colours."""

from typing import Final

import msgspec


class Sign(msgspec.Struct, frozen=True):
    """A state's sign, one column wide; its style on a terminal; its colours in SVG and dot."""

    text: str
    ascii: str
    style: str
    fill: str
    edge: str


SIGNS: Final = {
    "succeeded": Sign("✓", "+", "green", "#dcf5e3", "#1a7f37"),
    "failed": Sign("✗", "x", "bold red", "#ffdcd9", "#c62828"),
    "running": Sign("●", "*", "cyan", "#d6ecff", "#0b6bcb"),
    "ready": Sign("◌", "~", "cyan", "#e6f2ff", "#5b8db8"),
    "scheduled": Sign("◌", "~", "blue", "#e6f2ff", "#5b8db8"),
    "waiting": Sign("◷", "w", "yellow", "#fff3cd", "#9a6700"),
    "blocked": Sign("○", ".", "dim", "#f3f4f6", "#8b949e"),
    "cancelled": Sign("⊘", "c", "magenta", "#f3e2f7", "#8e3b9e"),
    "skipped": Sign("-", "-", "dim", "#eceff1", "#78909c"),
}
PLAIN: Final = Sign("", "", "", "#eef2f7", "#57606a")
"""Of a task in the picture of a definition."""


def sign_of(state: str | None) -> Sign:
    """The sign of a state; one that is not known looks like none."""
    return PLAIN if state is None else SIGNS.get(state, PLAIN)
