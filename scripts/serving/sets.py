"""A set of servers under one folder: up, down, and each hurt and mended by its name."""

import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from scripts.serving import processes, teams
from scripts.serving.etcd import Etcd
from scripts.serving.kafka import Kafka
from scripts.serving.kinds import Kind, Seat
from scripts.serving.postgres import Postgres
from scripts.serving.processes import ServiceError

KINDS: dict[str, type[Kind]] = {"postgres": Postgres, "etcd": Etcd, "kafka": Kafka}
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
        began_s = time.monotonic()
        kinds = {name: _located(name) for name in counts}
        with teams.locked(self.folder, ["set"]):
            for name, count in counts.items():
                teams.load_or_make(self.folder, name, count)
        seats = {name: self._seats(name) for name in counts}
        locks = [_lock(seat) for team in seats.values() for seat in team]
        with teams.locked(self.folder, locks):
            started: list[tuple[Kind, Seat]] = []
            for name, kind in kinds.items():
                for number, seat in enumerate(kind.order(seats[name])):
                    if number > 0 and name == "postgres":  # it may be made as a copy of the first
                        self._wait(*started[-1])
                    self._start(kind, seat)
                    started.append((kind, seat))
            for kind, seat in started:
                self._wait(kind, seat)
                spent_s = time.monotonic() - began_s
                name = seat.member.name
                say(f"{name} {kind.version} on port {seat.member.port} answers ({spent_s:.1f} s)")
            for name, kind in kinds.items():
                kind.complete(seats[name])
        return [(kind.setting, kind.export(seats[name])) for name, kind in kinds.items()]

    def down(self, *, purge: bool) -> None:
        """End all servers, those of an `up` that was killed as well; their data stay, or go."""
        if not self.folder.is_dir():
            return
        with teams.locked(self.folder, ["set"]):
            seats = [seat for name in KINDS for seat in KINDS[name]().order(self._seats(name))]
            with teams.locked(self.folder, [_lock(seat) for seat in seats]):
                for seat in seats:
                    self._end(seat, purge=purge)
                if purge and seats:
                    teams.release(self.folder)
                    shutil.rmtree(self.folder)

    def _end(self, seat: Seat, *, purge: bool) -> None:
        kind = KINDS[seat.team.kind]()
        home = kind.home(seat)
        (seat.folder / _WANTED).unlink(missing_ok=True)
        if processes.kill(home) if purge else processes.end(home, kind.steps):
            say(f"{seat.member.name} has ended")
        if purge and home != seat.folder:  # as root it may be outside of the set's folder
            shutil.rmtree(home, ignore_errors=True)

    def status(self) -> list[dict[str, object]]:
        """How every server is: running, silent (it does not answer), paused, dead, stopped."""
        return [_row(seat) for name in KINDS for seat in self._seats(name)]

    def restart(self, name: str) -> None:
        """End a server if it runs, start it, and wait until it answers.

        Raises:
            ServiceError: There is none of that name, or it does not come up.
        """
        seat = self._find(name)
        kind = _located(seat.team.kind)
        with teams.locked(self.folder, [_lock(seat)]):
            processes.end(kind.home(seat), kind.steps)
            self._start(kind, seat)
            self._wait(kind, seat)
            kind.complete(self._seats(seat.team.kind))

    def promote(self) -> str:
        """Make the PostgreSQL standby the primary, and end the old one first; the new one's name.

        Raises:
            ServiceError: There is no standby, it does not answer, or it may lack something.
        """
        kind = Postgres()
        kind.locate()
        seats = self._seats("postgres")
        if not seats:
            raise ServiceError(f"{self.folder} has no PostgreSQL")
        with teams.locked(self.folder, [_lock(seats[0])]):
            successor = kind.successor(seats)
            if successor is not None:
                old = kind.order(seats)[0]
                if _paused(kind.home(old)):
                    processes.kill(kind.home(old))
                processes.end(kind.home(old), kind.steps)
                kind.succeed(successor)
            primary = kind.order(seats)[0]
            self._start(kind, primary)
            self._wait(kind, primary)
            kind.complete(seats)
        return primary.member.name

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

    def _hurt(self, name: str, how: Callable[[Path], bool]) -> None:
        seat = self._find(name)
        if not how(KINDS[seat.team.kind]().home(seat)):
            raise ServiceError(f"{name} does not run")

    def _start(self, kind: Kind, seat: Seat) -> None:
        seat.folder.mkdir(exist_ok=True)
        home = kind.home(seat)
        processes.end_helpers(home)
        if processes.main(home) is not None:
            if _paused(home):
                processes.resume(home)
            return
        (seat.folder / _WANTED).touch()
        kind.start(seat)

    def _wait(self, kind: Kind, seat: Seat) -> None:
        name, home = seat.member.name, kind.home(seat)
        deadline_s = time.monotonic() + START_S
        while not kind.answers(seat):
            if processes.main(home) is None:
                said = processes.last_words(seat.log)
                raise ServiceError(f"{name} ended before it answered:\n  {said}")
            if time.monotonic() > deadline_s:
                said = processes.last_words(seat.log)
                raise ServiceError(f"{name} does not answer for {START_S:.0f} s:\n  {said}")
            time.sleep(_POLL_S)

    def _seats(self, kind: str) -> list[Seat]:
        team = teams.load(self.folder, kind)
        return [] if team is None else [Seat(self.folder, team, one) for one in team.members]

    def _find(self, name: str) -> Seat:
        found = [seat for kind in KINDS for seat in self._seats(kind)]
        for seat in found:
            if seat.member.name == name:
                return seat
        names = ", ".join(seat.member.name for seat in found) or "none"
        raise ServiceError(f"{self.folder} has no server {name} (it has: {names})")


def _located(name: str) -> Kind:
    kind = KINDS[name]()
    kind.locate()
    if kind.advice:
        say(kind.advice)
    return kind


def _row(seat: Seat) -> dict[str, object]:
    kind = KINDS[seat.team.kind]()
    process = processes.main(kind.home(seat))
    if process is None:
        state = "dead" if (seat.folder / _WANTED).exists() else "stopped"
    elif processes.paused(process):
        state = "paused"
    else:
        state = "running" if kind.answers(seat) else "silent"
    return {
        "name": seat.member.name,
        "pid": None if process is None else process.pid,
        "port": seat.member.port,
        "state": state,
        "log": str(seat.log),
    }


def _paused(home: Path) -> bool:
    process = processes.main(home)
    return process is not None and processes.paused(process)


def _lock(seat: Seat) -> str:
    """The servers of a PostgreSQL pair depend on each other: one lock for both."""
    return "postgres" if seat.team.kind == "postgres" else seat.member.name


def say(text: str) -> None:
    print(f"services: {text}", file=sys.stderr, flush=True)
