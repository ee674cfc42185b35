"""What a kind of server has to say for itself, so that one set of verbs serves all three."""

import signal
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import msgspec

from scripts.serving.teams import Member, Team


class Seat(msgspec.Struct, frozen=True):
    """A member of a team, and the folder of the set that it lives in."""

    set_folder: Path
    team: Team
    member: Member

    @property
    def folder(self) -> Path:
        """The member's own folder."""
        return self.set_folder / self.member.name

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self.folder / "log"


class Kind(ABC):
    """One kind of server; `locate` comes before anything that starts one."""

    setting: ClassVar[str]
    # Signals that ask for an end, each with the seconds it is given.
    steps: ClassVar[tuple[tuple[signal.Signals, float], ...]]
    advice: str | None = None
    version: str = ""

    @abstractmethod
    def locate(self) -> None:
        """Find the programs and their version.

        Raises:
            MissingError: There are none; the message has the line that gets them.
        """

    def home(self, seat: Seat) -> Path:
        """The folder that the server's command line names."""
        return seat.folder

    @abstractmethod
    def start(self, seat: Seat) -> None:
        """Start a server, on data that are made where there are none.

        Raises:
            ServiceError: It cannot be started.
        """

    @abstractmethod
    def answers(self, seat: Seat) -> bool:
        """Whether it serves: not just that it listens."""

    def order(self, seats: Sequence[Seat]) -> list[Seat]:
        """The order to start the members in."""
        return list(seats)

    def complete(self, seats: Sequence[Seat]) -> None:  # noqa: B027 - most kinds have nothing to do
        """Do what is left once all that were started answer; again as often as one is."""

    @abstractmethod
    def export(self, seats: Sequence[Seat]) -> str:
        """What the setting is to be."""
