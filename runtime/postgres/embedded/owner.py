"""Which operating-system user runs PostgreSQL, and what that user can reach.

PostgreSQL refuses to run as root. As root we run it as a user that exists already, and never
make one; as anybody else we run it as ourselves.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Sequence
from pathlib import Path

from runtime.postgres.embedded.errors import DataDirUnusableError
from runtime.postgres.embedded.process import Account, spawn

# First one that exists. `tickwright` where an administrator made it, `postgres` where the
# distribution did, `nobody` everywhere else.
UNPRIVILEGED_NAMES = ("tickwright", "postgres", "nobody")
_REACH_TIMEOUT_S = 30.0


def choose(data: Path, data_dir: Path, names: Sequence[str] = UNPRIVILEGED_NAMES) -> Account | None:
    """Choose who runs PostgreSQL.

    As root: whoever owns the cluster there is; else whoever owns the data directory, unless that
    is root; else the first of `names` that exists.

    Args:
        data: the cluster's own folder, which need not exist.
        data_dir: the node's data directory, which exists.
        names: whom to try.

    Returns:
        The account to switch to, or None where we are not root and stay who we are.

    Raises:
        DataDirUnusableError: the cluster belongs to somebody we cannot become, or nobody is left.
    """
    owner = data.stat().st_uid if data.exists() else None
    me = os.geteuid()
    if me != 0:
        if owner is not None and owner != me:
            raise DataDirUnusableError(
                f"{data} belongs to user {_name_of(owner)}, and this node runs as {_name_of(me)}: "
                "start it as the owner, or choose another --data-dir"
            )
        return None
    if owner == 0:
        raise DataDirUnusableError(
            f"{data} belongs to root, as whom PostgreSQL refuses to run: "
            "give it back with `chown -R USER` to the user it was made by"
        )
    uid = owner if owner is not None else data_dir.stat().st_uid
    if uid != 0:
        return _account_of(uid)
    for name in names:
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        if found.pw_uid != 0:
            return Account(name, found.pw_uid, found.pw_gid)
    raise DataDirUnusableError(
        "PostgreSQL refuses to run as root, and none of the users "
        f"{', '.join(names)} exists here: start the node as an ordinary user"
    )


def reaches(account: Account | None, folder: Path, *, writable: bool = False) -> bool:
    """Tell whether `account` can enter and read `folder`, by trying it as that user.

    Trying beats reading mode bits: access lists, mount options and squashed network folders all
    have their say.
    """
    test = 'cd -- "$1" && test -r . && test -x .' + (" && test -w ." if writable else "")
    return _answers(account, ["/bin/sh", "-c", test, "reach", str(folder)])


def runs(account: Account | None, program: Path) -> bool:
    """Tell whether `account` can execute `program --version`, its libraries included."""
    return _answers(account, [str(program), "--version"])


def _answers(account: Account | None, command: list[str]) -> bool:
    try:
        process = spawn(command, account=account, output=subprocess.DEVNULL)
    except OSError:
        return False
    with process:
        try:
            return process.wait(_REACH_TIMEOUT_S) == 0
        except BaseException:
            process.kill()
            raise


def _account_of(uid: int) -> Account:
    try:
        found = pwd.getpwuid(uid)
    except KeyError:
        return Account(str(uid), uid, uid)
    return Account(found.pw_name, found.pw_uid, found.pw_gid)


def _name_of(uid: int) -> str:
    return _account_of(uid).name
