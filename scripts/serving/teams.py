"""Which servers a folder holds, and on which ports: kept from one `up` to the next."""

import fcntl
import os
import secrets
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import msgspec

from runtime.postgres.embedded.files import PRIVATE_FILE, write_whole
from scripts.serving.processes import ServiceError

LOOPBACK = "127.0.0.1"
# Below what kernels hand out to clients (Linux 32768, macOS 49152 and up): while a killed server
# is away, nobody's outgoing connection takes its port.
PORTS = range(20_000, 32_000)
BLOCK = 16
# Within a block of ports: those for clients, then as many for peers.
OFFSETS = {"postgres": 0, "etcd": 4, "kafka": 10}
MOST = {"postgres": 2, "etcd": 3, "kafka": 3}


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One server: its name, its number from 1, and where it listens."""

    name: str
    number: int
    port: int
    peer_port: int

    @property
    def address(self) -> str:
        """Where its clients reach it."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def peer_address(self) -> str:
        """Where its fellows reach it."""
        return f"{LOOPBACK}:{self.peer_port}"


class Team(msgspec.Struct, frozen=True, kw_only=True):
    """The servers of one kind; `token` keeps them from joining another folder's."""

    kind: str
    token: str
    members: tuple[Member, ...]

    def member(self, name: str) -> Member:
        """The member of that name."""
        return next(member for member in self.members if member.name == name)

    def addresses(self) -> str:
        """Where clients reach all of them, with commas."""
        return ",".join(member.address for member in self.members)


def load(folder: Path, kind: str) -> Team | None:
    """Read a team, or None where the folder has none of that kind.

    Raises:
        ServiceError: The file is damaged.
    """
    path = folder / f"{kind}.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Team)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise ServiceError(f"{path} cannot be read ({error}): remove {folder}") from None


def load_or_make(folder: Path, kind: str, count: int | None) -> Team:
    """Read a team, or make one of `count` members with free ports.

    Raises:
        ServiceError: There is one of another size already.
    """
    team = load(folder, kind)
    if team is not None:
        if count not in {None, len(team.members)}:
            raise ServiceError(
                f"{folder} has {len(team.members)} of {kind}, not {count}: "
                "`down --purge` first, or choose another --dir"
            )
        return team
    count = count or 1
    first = _block(folder) + OFFSETS[kind]
    members = tuple(
        Member(
            name=kind if count == 1 else f"{kind}-{number}",
            number=number,
            port=first + number - 1,
            peer_port=first + MOST[kind] + number - 1,
        )
        for number in range(1, count + 1)
    )
    team = Team(kind=kind, token=secrets.token_urlsafe(16), members=members)
    write_whole(folder / f"{kind}.json", msgspec.json.encode(team) + b"\n", mode=PRIVATE_FILE)
    return team


@contextmanager
def locked(folder: Path, names: Sequence[str]) -> Iterator[None]:
    """Hold these servers' locks, which the kernel frees however we end."""
    with ExitStack() as stack:
        for name in sorted(set(names)):
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(folder / f".{name}.lock", flags, PRIVATE_FILE)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def release(folder: Path) -> None:
    """Give the folder's ports back."""
    block = folder / "ports"
    with suppress(FileNotFoundError):
        claim = _claims() / block.read_text()
        if claim.is_symlink() and claim.readlink() == folder:
            claim.unlink()
        with suppress(OSError):  # others have claims there
            claim.parent.rmdir()
        block.unlink()


def _block(folder: Path) -> int:
    """A block of ports that no other folder of this user has, all of them free now.

    A claim is a symbolic link, which is made in one step with what it says: its name is the first
    port, its target the folder. It is void when that folder does not say the same.
    """
    kept = folder / "ports"
    with suppress(FileNotFoundError):
        return int(kept.read_text())
    starts = list(PORTS[::BLOCK])
    secrets.SystemRandom().shuffle(starts)
    for start in starts:
        claim = _claims() / str(start)
        with suppress(OSError):
            owner = claim.readlink()
            void = owner == folder or not (owner / "ports").is_file()
            if void or (owner / "ports").read_text() != str(start):
                claim.unlink()
        if not all(_free(port) for port in range(start, start + BLOCK)):
            continue
        try:
            claim.symlink_to(folder)
        except (FileExistsError, FileNotFoundError):  # the last claim was just given back
            continue
        write_whole(kept, str(start).encode(), mode=PRIVATE_FILE)
        return start
    raise ServiceError(f"no {BLOCK} free ports in a row from {PORTS.start} to {PORTS.stop}")


def _claims() -> Path:
    folder = Path(tempfile.gettempdir()) / f"tickwright-ports-{os.geteuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
