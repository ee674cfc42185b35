"""Apache Kafka on loopback: real brokers in KRaft mode, each of them a controller as well."""

import hashlib
import signal
import socket
import struct
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from pathlib import Path
from shutil import rmtree

from scripts.serving import jars
from scripts.serving.kinds import Kind, Seat
from scripts.serving.processes import finish, launch
from scripts.serving.teams import LOOPBACK

JVM = ("-Xms128m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", jars.NO_TRACE)
_ANSWER_S = 2.0
_METADATA = 3
_METADATA_VERSION = 4


class Kafka(Kind):
    """What is particular to Kafka."""

    setting = "RUNTIME_KAFKA__BOOTSTRAP_SERVERS"
    # A clean end hands leadership over; where all end at once there is nobody to take it.
    steps = ((signal.SIGTERM, 6.0),)

    def __init__(self) -> None:
        self._java: list[str] = []

    def locate(self) -> None:
        """Find Java and the jars, which are fetched where they are missing."""
        java = jars.java()
        folder, self.version = jars.libs()
        quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
        self._java = [str(java), *JVM, quiet, "-cp", f"{folder}/*"]

    def start(self, seat: Seat) -> None:
        """Start a broker, on a formatted folder."""
        self._format(seat)
        file = _configure(seat, data=seat.folder / "data")
        launch([*self._java, "kafka.Kafka", str(file)], log=seat.log)

    def _format(self, seat: Seat) -> None:
        """Make a formatted folder that gets its name when it is whole."""
        if (seat.folder / "data").is_dir():
            return
        making = seat.folder / "data.making"
        rmtree(making, ignore_errors=True)
        file = _configure(seat, data=making)
        # All of a team derive the same cluster id, 16 bytes in base64 as Kafka wants it.
        digest = hashlib.sha256(seat.team.token.encode()).digest()[:16]
        command = [
            *(*self._java, "kafka.tools.StorageTool", "format", "--config", str(file)),
            *("--cluster-id", urlsafe_b64encode(digest).decode().rstrip("=")),
        ]
        finish(command, log=seat.log, what="formatting Kafka's folder")
        making.rename(seat.folder / "data")

    def answers(self, seat: Seat) -> bool:
        """Ask this broker for the cluster's metadata, and find the broker itself among them."""
        try:
            return seat.member.number in alive_brokers(seat.member.port)
        except (OSError, struct.error):
            return False

    def export(self, seats: Sequence[Seat]) -> str:
        """The address of every broker."""
        return ",".join(seat.member.address for seat in seats)


def _configure(seat: Seat, *, data: Path) -> Path:
    team, member = seat.team, seat.member
    copies = min(3, len(team.members))
    voters = ",".join(f"{one.number}@{one.peer_address}" for one in team.members)
    settings = {
        "process.roles": "broker,controller",
        "node.id": member.number,
        "controller.quorum.voters": voters,
        "listeners": f"PLAINTEXT://{member.address},CONTROLLER://{member.peer_address}",
        "advertised.listeners": f"PLAINTEXT://{member.address}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": data,
        "default.replication.factor": copies,
        "offsets.topic.replication.factor": copies,
        "transaction.state.log.replication.factor": copies,
        "share.coordinator.state.topic.replication.factor": copies,
        # What was acknowledged by all is on two of three: one may go.
        "min.insync.replicas": min(2, copies),
        "transaction.state.log.min.isr": min(2, copies),
        "share.coordinator.state.topic.min.isr": min(2, copies),
        # Internal topics have 50 partitions elsewhere; here they are made at first use, in no time.
        "num.partitions": 1,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.num.partitions": 4,
        "group.initial.rebalance.delay.ms": 0,
        # A topic is made by who owns it: one that a typing error made would hide the error.
        "auto.create.topics.enable": "false",
        # A killed broker is noticed in 3 s, and may come back as soon.
        "broker.session.timeout.ms": 3000,
        "broker.heartbeat.interval.ms": 500,
    }
    file = seat.folder / ("server.properties" if data.name == "data" else "format.properties")
    file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    return file


def alive_brokers(port: int) -> set[int]:
    """Ask a broker which brokers are alive, in Kafka's own protocol (Metadata, version 4).

    Raises:
        OSError: It does not answer.
        struct.error: The answer is cut short.
    """
    client = b"tickwright"
    header = struct.pack(">hhih", _METADATA, _METADATA_VERSION, 1, len(client)) + client
    question = header + struct.pack(">ib", 0, 0)  # of no topic, and none is to be made
    with socket.create_connection((LOOPBACK, port), timeout=_ANSWER_S) as talk:
        talk.sendall(struct.pack(">i", len(question)) + question)
        with talk.makefile("rb") as reading:
            (size,) = struct.unpack(">i", reading.read(4))
            answer = reading.read(size)
    _correlation, _throttle_ms, count = struct.unpack_from(">iii", answer)
    place, found = 12, set()
    for _ in range(count):
        number, host_size = struct.unpack_from(">ih", answer, place)
        place += 6 + host_size + 4
        (rack_size,) = struct.unpack_from(">h", answer, place)
        place += 2 + max(0, rack_size)
        found.add(number)
    return found
