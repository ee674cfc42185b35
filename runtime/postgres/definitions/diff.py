"""What differs between two versions of a job, field by field, for people to read."""

from typing import Any

import msgspec

from protocols.jobs import JobSpec
from protocols.views import FieldChange


def differences(old: JobSpec, new: JobSpec) -> tuple[FieldChange, ...]:
    """Fields whose values differ, by dotted path, in the order of the paths.

    A field at its default counts as absent. Lists are compared as wholes, since a place in a
    list means little to a reader.
    """
    found: list[FieldChange] = []
    _compare("", msgspec.to_builtins(old), msgspec.to_builtins(new), found)
    return tuple(found)


def _compare(path: str, old: Any, new: Any, found: list[FieldChange]) -> None:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}, key=str):
            below = f"{path}.{key}" if path else str(key)
            _compare(below, old.get(key), new.get(key), found)
    elif old != new:
        found.append(FieldChange(path, old, new))
