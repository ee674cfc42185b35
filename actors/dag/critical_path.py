"""What a finished run's length came of, and how much later each task could have ended.

The critical path method (Kelley and Walker, 1959), read backwards from what happened: a task
begins to count when the last of its parents has ended, and takes until its own end, time in the
queue included. A parent that ended after its child had begun held nothing up (`one_succeeded`).
"""

from collections.abc import Sequence

import msgspec


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """One task as it went, in microseconds of any clock; parents come before their children.

    Without `started_us` it took no time: it was skipped. One without `finished_us` has no place in
    the books, and neither holds up others nor is held up; nor has one that was skipped and that
    nothing which ran has waited for.
    """

    parents: tuple[int, ...] = ()
    """Places of its parents in the list."""
    started_us: int | None = None
    finished_us: int | None = None


class Critical(msgspec.Struct, frozen=True):
    """The critical path, as places in the list, first one first; and each task's slack."""

    path: tuple[int, ...]
    slack_us: tuple[int | None, ...]


def holding(spans: Sequence[Span], place: int) -> list[int]:
    """The parents that a task had to wait for: they ended before it began."""
    task = spans[place]
    begun = task.finished_us if task.started_us is None else task.started_us
    found = []
    for parent in task.parents:
        ended = spans[parent].finished_us
        if ended is not None and begun is not None and ended <= begun:
            found.append(parent)
    return found


def critical(spans: Sequence[Span]) -> Critical:
    """The path from the task that ended last back to the first one that it waited for.

    Of several that ended in the same moment, the first in the list. Slack: what each task's end
    could be late by, all else taking the time it took, before the last end of all would be later.
    """
    held = [holding(spans, n) for n in range(len(spans))]
    counts = [span.started_us is not None and span.finished_us is not None for span in spans]
    for n in range(len(spans) - 1, -1, -1):
        if counts[n]:
            for parent in held[n]:
                counts[parent] = True
    ended = [(-(span.finished_us or 0), n) for n, span in enumerate(spans) if counts[n]]
    if not ended:
        return Critical((), (None,) * len(spans))
    last = -min(ended)[0]
    latest: list[int | None] = [last if counts[n] else None for n in range(len(spans))]
    for n in range(len(spans) - 1, -1, -1):
        end, limit = spans[n].finished_us, latest[n]
        if end is None or limit is None or not held[n]:
            continue
        ready = max(spans[parent].finished_us or 0 for parent in held[n])
        for parent in held[n]:
            known = latest[parent]
            assert known is not None, "what holds others up has ended"
            latest[parent] = min(known, limit - (end - ready))
    slack = tuple(
        None if limit is None or span.finished_us is None else limit - span.finished_us
        for span, limit in zip(spans, latest, strict=True)
    )
    path = [min(ended)[1]]
    while held[path[-1]]:
        path.append(min(held[path[-1]], key=lambda p: (-(spans[p].finished_us or 0), p)))
    return Critical(tuple(reversed(path)), slack)
