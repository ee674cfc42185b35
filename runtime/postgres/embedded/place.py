"""Where a node's PostgreSQL keeps what it keeps: in the data directory, or, as root, elsewhere.

    HOME/                 DATA_DIR/postgres, or /var/lib/tickwright/nodes/ID behind a link there
      postgresql.conf     ours, written at every start
      pg_hba.conf         ours: a password, or nothing
      local.conf          the user's own settings, never written by us
      postgres.log        bounded, with one predecessor
      data/               the cluster; the unprivileged user's, 0700
      run/                the socket; the unprivileged user's, 0700

HOME itself belongs to the node: what runs PostgreSQL cannot change how it is run.
"""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

from runtime.postgres.embedded import owner
from runtime.postgres.embedded.errors import DataDirUnusableError, unusable
from runtime.postgres.embedded.files import PASSAGE_FOLDER, PRIVATE_FOLDER, PUBLIC_FOLDER
from runtime.postgres.embedded.process import Account

OUTSIDE = Path("/var/lib/tickwright")
LINK = "postgres"


def prepare_data_dir(data_dir: Path) -> Path:
    """Make the node's data directory where there is none; leave the modes of one that exists.

    As root a new one is 0711, so that the user who runs PostgreSQL can walk to its own folder and
    see nothing else; otherwise 0700.

    Returns:
        Its absolute path, without symbolic links.

    Raises:
        DataDirUnusableError: it cannot be made, or is not a folder.
    """
    try:
        path = data_dir.expanduser().resolve()
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir(exist_ok=True)
            path.chmod(PASSAGE_FOLDER if os.geteuid() == 0 else PRIVATE_FOLDER)
        elif not path.is_dir():
            raise DataDirUnusableError(f"{path} is not a folder: choose another --data-dir")
    except OSError as error:
        raise unusable(data_dir, error) from error
    except RuntimeError as error:  # a loop of links, or a ~user that nobody is
        raise DataDirUnusableError(f"{data_dir} cannot be resolved: {error}") from error
    return path


class Place:
    """A home that exists, and the paths in it."""

    def __init__(self, home: Path, account: Account | None) -> None:
        self.home = home
        self.account = account
        self.data = home / "data"
        self.run = home / "run"
        self.log = home / "postgres.log"
        self.config = home / "postgresql.conf"
        self.own_config = home / "local.conf"
        self.access = home / "pg_hba.conf"


def settle(data_dir: Path, *, outside: Path) -> Place:
    """Find the home of this data directory's PostgreSQL, or choose and make it.

    Once there is a cluster its home is never chosen again: a home that has become out of reach is
    an error, not a reason for an empty second one.

    Args:
        data_dir: what `prepare_data_dir` returned.
        outside: the one other place that may be written, and only as root.

    Raises:
        DataDirUnusableError: nothing fits, with the reason.
    """
    link = data_dir / LINK
    try:
        home = _follow(link, outside=outside) if link.is_symlink() else link
        account = owner.choose(home / "data", data_dir)
        settled = (home / "data").exists()
        place = _make(home, account)
        if owner.reaches(account, place.run, writable=True):
            return place
        if account is None or settled or link.is_symlink():
            who = "this user" if account is None else f"user {account.name}"
            raise DataDirUnusableError(
                f"{who}, who runs PostgreSQL, cannot reach {home}: "
                "give the folders above it back their modes, or choose another --data-dir"
            )
        return _move_out(link, account, outside=outside)
    except OSError as error:
        raise unusable(link, error) from error


def _make(home: Path, account: Account | None) -> Place:
    place = Place(home, account)
    if not home.exists():
        home.mkdir()
        home.chmod(PRIVATE_FOLDER if account is None else PASSAGE_FOLDER)
    if not place.run.exists():
        place.run.mkdir()
    if account is not None and place.run.stat().st_uid != account.uid:
        try:
            os.chown(place.run, account.uid, account.gid)
        except PermissionError:
            return place  # a network folder that squashes root: out of reach, and found to be so
    place.run.chmod(PRIVATE_FOLDER)
    return place


def _move_out(link: Path, account: Account, *, outside: Path) -> Place:
    """Make a home under `outside`, and a link to it where the home would have been.

    The link is the record: it moves with the data directory, and people find it.
    """
    shelf = outside / "nodes"
    for folder in (outside, shelf):
        if not folder.exists():
            folder.mkdir(parents=True)
            folder.chmod(PUBLIC_FOLDER)
    home = shelf / secrets.token_hex(8)
    place = _make(home, account)
    if not owner.reaches(account, place.run, writable=True):
        shutil.rmtree(home)
        raise DataDirUnusableError(
            f"user {account.name}, who runs PostgreSQL as root may not, can reach neither "
            f"{link.parent} nor {outside}: choose a --data-dir that this user can enter"
        )
    for entry in link.iterdir():  # a local.conf that was there before the first start
        if entry.name == place.run.name:
            shutil.rmtree(entry)
        else:
            shutil.move(entry, home / entry.name)
    link.rmdir()
    link.symlink_to(home, target_is_directory=True)
    return place


def _follow(link: Path, *, outside: Path) -> Path:
    home = link.readlink()
    if home.parent != outside / "nodes":
        raise DataDirUnusableError(
            f"{link} is a link to {home}, which is not a folder of {outside}/nodes: "
            "put the folder itself there, or choose another --data-dir"
        )
    if not home.is_dir():
        raise DataDirUnusableError(
            f"{link} says that this node's PostgreSQL is in {home}, which is gone: put it back, "
            f"or remove {link} to start with an empty one"
        )
    return home
