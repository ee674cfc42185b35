"""What a version of a DAG looks like to progress: its tasks by number, and who waits for whom."""

from collections.abc import Iterable, Mapping, Sequence

from actors.dag.values import Needs, needs_of
from protocols.dags import DagTaskSpec, OnFailure, TaskRole, TaskTrigger


class TaskShape:
    """One task of a version; `key` is that of its hidden job."""

    def __init__(
        self,
        *,
        number: int,
        task_id: str,
        key: int,
        trigger: TaskTrigger,
        role: TaskRole,
        spec: DagTaskSpec,
    ) -> None:
        self.number = number
        self.task_id = task_id
        self.key = key
        self.trigger = trigger
        self.role = role
        self.spec = spec
        self.parents: tuple[int, ...] = ()
        self.children: tuple[int, ...] = ()

        self.needs = Needs()
        """What it refers to, once that was read."""
        self._read = False

    def read_needs(self) -> None:
        """Find out what it refers to, before it first starts; raises `values.ValuesError`."""
        if not self._read:
            self.needs, self._read = needs_of(self.spec), True

    @property
    def may_cost(self) -> bool:
        """Whether it has expressions, as far as was read."""
        return self.needs.any or not self._read


class Shape:
    """A version, immutable once made; tasks are numbered in topological order, handlers last."""

    __slots__ = ("_numbers", "handlers", "on_failure", "tasks", "waiting_for")

    def __init__(
        self,
        *,
        on_failure: OnFailure,
        tasks: Sequence[TaskShape],
        edges: Iterable[tuple[int, int]],
    ) -> None:
        self.on_failure = on_failure
        self.tasks = tuple(tasks)
        parents: dict[int, list[int]] = {}
        children: dict[int, list[int]] = {}
        for parent, child in edges:
            parents.setdefault(child, []).append(parent)
            children.setdefault(parent, []).append(child)
        for number, found in parents.items():
            self.tasks[number].parents = tuple(found)
        for number, found in children.items():
            self.tasks[number].children = tuple(found)
        self.handlers = tuple(t.number for t in self.tasks if t.role != "task")
        self._numbers: Mapping[str, int] = {t.task_id: t.number for t in self.tasks}
        self.waiting_for: dict[str, list[int]] = {}
        """Tasks that wait for a signal, by its name."""
        for task in self.tasks:
            if task.spec.wait is not None and task.spec.wait.signal is not None:
                self.waiting_for.setdefault(task.spec.wait.signal, []).append(task.number)

    def number_of(self, task_id: str) -> int | None:
        """The number of the task of that id."""
        return self._numbers.get(task_id)

    def descendants(self, numbers: Iterable[int]) -> set[int]:
        """All that comes after these tasks, themselves not among it."""
        found: set[int] = set()
        left = list(numbers)
        while left:
            for child in self.tasks[left.pop()].children:
                if child not in found:
                    found.add(child)
                    left.append(child)
        return found
