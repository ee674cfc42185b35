"""Whom a job waits for and who triggers it: unknown names and cycles are refused by name."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from protocols.durations import shown
from protocols.errors import Problem
from protocols.jobs import JobSpec
from protocols.nearest import Nearest


def unknown_names(
    jobs: Sequence[JobSpec], known: Collection[str], candidates: Iterable[str]
) -> list[Problem]:
    """A problem for each job id named by `dependencies` or `on` that is not known.

    Args:
        jobs: what is applied; a problem's path begins with `jobs` and its place here.
        known: ids that exist, or will when all is applied.
        candidates: ids among which the nearest is looked for.
    """
    nearest = Nearest(candidates)
    problems = []
    for number, spec in enumerate(jobs):
        places: list[tuple[tuple[str | int, ...], str]] = [
            (("dependencies", i), name) for i, name in enumerate(spec.dependencies)
        ]
        places += [(("on", i, "job"), on.job) for i, on in enumerate(spec.on) if on.job is not None]
        problems += [
            Problem(("jobs", number, *path), unknown_job(name, nearest))
            for path, name in places
            if name not in known
        ]
    return problems


def unknown_job(name: str, nearest: Nearest) -> str:
    """One sentence for a job id that is neither given nor applied, with the nearest that is."""
    near = nearest.to(name)
    hint = f": did you mean {shown(near)}?" if near else ""
    return f"there is no job {shown(name)}{hint}"


def find_cycle(parents: Mapping[str, Collection[str]]) -> tuple[str, ...] | None:
    """A cycle in a graph of job ids, as its members in order with the first one repeated.

    Args:
        parents: for each job, the jobs that it depends on.
    """
    try:
        TopologicalSorter(parents).prepare()
    except CycleError as error:
        # graphlib walks from a parent to its child; people read "a needs b".
        found: list[str] = error.args[1]
        return tuple(reversed(found))
    return None


def cycle_problem(jobs: Sequence[JobSpec], cycle: tuple[str, ...]) -> Problem:
    """The problem of a cycle, placed at the first job in it that is being applied."""
    members = set(cycle)
    number = next((i for i, spec in enumerate(jobs) if spec.job_id in members), 0)
    text = f"the jobs wait for each other in a circle: {' -> '.join(cycle)}"
    return Problem(("jobs", number, "dependencies"), text)
