"""A set of servers under one folder: up, down, and each hurt and mended by its name."""

import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from scripts.serving import processes, teams
from scripts.serving.etcd import Etcd
from scripts.serving.kafka import Kafka
from scripts.serving.postgres import Postgres
from scripts.serving.processes import ServiceError
from scripts.serving.teams import Member, Team

KINDS = {"postgres": Postgres, "etcd": Etcd, "kafka": Kafka}
COUNTS = {kind: range(1, most + 1) for kind, most in teams.MOST.items()}
START_S = 90.0
_POLL_S = 0.05
# Beside a server's data: it is meant to run; `down` takes it away.
_WANTED = "wanted"


class Set:
    """The servers of one folder, which is absolute and without symbolic links."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def up(self, counts: Mapping[str, int | None]) -> list[tuple[str, str]]:
        """Start what does not run yet, wait until all answer; names and values of settings.

        Args:
            counts: By kind how many; None for what there is, or one.

        Raises:
            ServiceError: A program is missing, and nothing was started; or a server does not come
                up, and what runs stays.
        """
        kinds = {kind: KINDS[kind]() for kind in counts}
        for kind in kinds.values():
            kind.locate()
            if advice := kind.advice():
                say(advice)
        with teams.locked(self.folder, ["set"]):
            found = {
                kind: teams.load_or_make(self.folder, kind, count) for kind, count in counts.items()
            }
        members = [(kind, member) for kind, team in found.items() for member in team.members]
        with teams.locked(self.folder, [_lock(kind, member) for kind, member in members]):
            began_s = time.monotonic()
            for name, member in members:
                self._start(kinds[name], found[name], member)
            for name, member in members:
                kind = kinds[name]
                self._wait(kind, found[name], member)
                spent_s = time.monotonic() - began_s
                say(f"{member.name} {kind.version} answers on port {member.port} ({spent_s:.1f} s)")
            for name, kind in kinds.items():
                kind.complete(self.folder, found[name])
        return [
            (kind.setting, kind.export(self.folder, found[name])) for name, kind in kinds.items()
        ]

    def down(self, *, purge: bool) -> None:
        """End all servers, those of an `up` that was killed as well; their data stay, or go."""
        if not self.folder.is_dir():
            return
        found = self._teams()
        members = [(team, member) for team in found for member in team.members]
        names = [_lock(team.kind, member) for team, member in members]
        with teams.locked(self.folder, ["set"]), teams.locked(self.folder, names):
            for team, member in members:
                kind, folder = KINDS[team.kind](), self.folder / member.name
                (folder / _WANTED).unlink(missing_ok=True)
                home = kind.home(folder)
                if processes.kill(home) if purge else processes.end(home, kind.steps):
                    say(f"{member.name} has ended")
                if purge:
                    shutil.rmtree(home, ignore_errors=True)
                    shutil.rmtree(folder, ignore_errors=True)
            if purge:
                teams.release(self.folder)
                for team in found:
                    (self.folder / f"{team.kind}.json").unlink()
        if purge:
            shutil.rmtree(self.folder)

    def status(self) -> list[dict[str, object]]:
        """How every server is: running, silent (it does not answer), paused, dead, stopped."""
        return [self._row(team, member) for team in self._teams() for member in team.members]

    def restart(self, name: str) -> None:
        """End a server if it runs, start it, and wait until it answers.

        Raises:
            ServiceError: There is none of that name, or it does not come up.
        """
        team, member = self._find(name)
        kind, folder = KINDS[team.kind](), self.folder / name
        kind.locate()
        with teams.locked(self.folder, [_lock(team.kind, member)]):
            processes.end(kind.home(folder), kind.steps)
            self._start(kind, team, member)
            self._wait(kind, team, member)
            kind.complete(self.folder, team)

    def kill(self, name: str) -> None:
        """Kill -9.

        Raises:
            ServiceError: It does not run.
        """
        self._hurt(name, processes.kill)

    def pause(self, name: str) -> None:
        """SIGSTOP, to the server and all its processes.

        Raises:
            ServiceError: It does not run.
        """
        self._hurt(name, processes.pause)

    def resume(self, name: str) -> None:
        """SIGCONT.

        Raises:
            ServiceError: It does not run.
        """
        self._hurt(name, processes.resume)

    def _hurt(self, name: str, how) -> None:  # noqa: ANN001 - one of the three above
        team, _ = self._find(name)
        if not how(KINDS[team.kind]().home(self.folder / name)):
            raise ServiceError(f"{name} does not run")

    def _start(self, kind, team: Team, member: Member) -> None:  # noqa: ANN001 - one of KINDS
        folder = self.folder / member.name
        folder.mkdir(exist_ok=True)
        home = kind.home(folder)
        if (running := processes.main(home)) is not None:
            if processes.paused(running):
                processes.resume(home)
            return
        (folder / _WANTED).touch()
        kind.start(folder, team, member)

    def _wait(self, kind, team: Team, member: Member) -> None:  # noqa: ANN001 - one of KINDS
        folder = self.folder / member.name
        home = kind.home(folder)
        deadline_s = time.monotonic() + START_S
        while not kind.answers(folder, team, member):
            if processes.main(home) is None:
                said = processes.last_words(folder / "log")
                raise ServiceError(f"{member.name} ended before it answered:\n  {said}")
            if time.monotonic() > deadline_s:
                said = processes.last_words(folder / "log")
                raise ServiceError(f"{member.name} does not answer for {START_S:.0f} s:\n  {said}")
            time.sleep(_POLL_S)

    def _row(self, team: Team, member: Member) -> dict[str, object]:
        kind, folder = KINDS[team.kind](), self.folder / member.name
        process = processes.main(kind.home(folder))
        if process is None:
            state = "dead" if (folder / _WANTED).exists() else "stopped"
        elif processes.paused(process):
            state = "paused"
        else:
            state = "running" if kind.answers(folder, team, member) else "silent"
        return {
            "name": member.name,
            "pid": None if process is None else process.pid,
            "port": member.port,
            "state": state,
            "log": str(folder / "log"),
        }

    def _teams(self) -> list[Team]:
        found = [teams.load(self.folder, kind) for kind in KINDS]
        return [team for team in found if team is not None]

    def _find(self, name: str) -> tuple[Team, Member]:
        found = [(team, member) for team in self._teams() for member in team.members]
        for team, member in found:
            if member.name == name:
                return team, member
        names = ", ".join(member.name for _, member in found) or "none"
        raise ServiceError(f"{self.folder} has no server {name} (it has: {names})")


def _lock(kind: str, member: Member) -> str:
    """The servers of a PostgreSQL pair depend on each other: one lock for both."""
    return kind if kind == "postgres" else member.name


def say(text: str) -> None:
    print(f"services: {text}", file=sys.stderr, flush=True)
