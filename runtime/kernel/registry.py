"""Finds living actors, by a registered name or by path; a dead one is never found."""

from typing import TYPE_CHECKING

from protocols.actor import NameTaken

if TYPE_CHECKING:
    from runtime.kernel.vitals import Vitals


class Registry:
    """The names of one system. Paths need no entry: the tree itself is walked."""

    def __init__(self) -> None:
        self._names: dict[str, Vitals] = {}

    def register(self, name: str, cell: "Vitals") -> None:
        """Give a living actor a name, kept over restarts and gone with it.

        Raises:
            NameTaken: Another living actor has it.
            ValueError: It begins with a slash, as a path does.
        """
        if name.startswith("/"):
            raise ValueError(f"a name does not begin with a slash: {name!r}")
        holder = self._names.get(name)
        if holder is not None and holder is not cell:
            raise NameTaken(f"{name} is {holder.path}")
        if holder is None:
            self._names[name] = cell
            cell.aliases = [*(cell.aliases or ()), name]

    def forget(self, cell: "Vitals") -> None:
        """Take its names from one that has ended."""
        for name in cell.aliases or ():
            self._names.pop(name, None)
        cell.aliases = None

    def find(self, name: str, root: "Vitals") -> "Vitals | None":
        """The living actor of that name, else at that path (with or without a leading slash)."""
        cell: Vitals | None = self._names.get(name)
        if cell is not None:
            return cell
        cell = root
        for part in name.strip("/").split("/"):
            if part:
                cell = None if cell.family is None else cell.family.children.get(part)
            if cell is None:
                return None
        return None if cell.closed else cell
