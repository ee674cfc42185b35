"""Makes .venv hold exactly what the lock file pins, and says what it is doing: run | dev.

Safe to be called by many at once and to be killed at any line: a lock of the kernel's lets one
work while others wait, and a stamp, written last, says what the environment was made of. Runs on
the bare standard library of Python 3.11.
"""

import fcntl
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / ".venv"
PYTHON = HOME / "bin" / "python"
PLACE = HOME / ".place"
LOCKS = {"run": "requirements.lock", "dev": "requirements-dev.lock"}
SHOWN = ("Collecting ", "Installing collected", "Building ", "ERROR", "error:", "WARNING: Retrying")


def main() -> int:
    kind = " ".join(sys.argv[1:]) or "run"
    if kind not in LOCKS:
        say(f'"{kind}" cannot be installed: give run (the default) or dev')
        return 2
    lock = ROOT / LOCKS[kind]
    stamp = HOME / f".installed-{kind}"
    wanted = fingerprint(lock)
    with alone():
        if read(stamp) == wanted:
            return 0
        if not usable() and not make_environment():
            return 1
        # The run lock is a part of the dev lock: what dev installed serves start as well.
        for old in HOME.glob(".installed-*"):
            old.unlink()
        say(f"installing what {lock.name} pins; the first time takes a minute or so")
        if not pip("--require-hashes", "-r", str(lock)):
            return failed("the packages could not be installed: is a package index reachable?")
        if not pip("--no-deps", "--no-build-isolation", "-e", str(ROOT)):
            return failed("Tickwright itself could not be installed")
        for done in ("run", kind):
            write(HOME / f".installed-{done}", fingerprint(ROOT / LOCKS[done]))
        say("installed")
    return 0


def fingerprint(lock: Path) -> str:
    """What the environment is made of: pins, our metadata, this place (it cannot be moved)."""
    digest = hashlib.sha256()
    for part in (lock.read_bytes(), (ROOT / "pyproject.toml").read_bytes(), str(ROOT).encode()):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


@contextmanager
def alone() -> Iterator[None]:
    """Let one install at a time into this folder; the kernel frees the lock of who is killed."""
    descriptor = os.open(ROOT, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another installation is under way here: waiting for it")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def usable() -> bool:
    """Whether there is an environment of this place whose Python is recent enough and has pip.

    Programs in an environment name it by its path, so one that was moved or copied is made anew.
    """
    if read(PLACE) not in {None, str(ROOT)}:
        return False
    question = "import sys, pip; sys.exit(sys.version_info < (3, 11))"
    command = [str(PYTHON), "-I", "-c", question]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def make_environment() -> bool:
    say(f"making a virtual environment in {HOME} (Python {sys.version.split()[0]})")
    command = [sys.executable, "-I", "-m", "venv", "--clear", str(HOME)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode == 0:
        write(PLACE, str(ROOT))
        return True
    said = (made.stderr + made.stdout).strip()
    if "ensurepip" in said:
        failed("this Python comes without venv: `apt-get install python3-venv`, then start again")
    else:
        failed(f"no virtual environment could be made in {HOME}: {said.splitlines()[-1:]}")
    return False


def pip(*arguments: str) -> bool:
    """Run `pip install`, passing on the lines that show how it goes."""
    command = [str(PYTHON), "-I", "-m", "pip", "install", "--no-input", "--progress-bar", "off"]
    command += ["--disable-pip-version-check", "--root-user-action", "ignore", *arguments]
    environment = {**os.environ, "PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"}
    with subprocess.Popen(
        command,
        env=environment,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip().startswith(SHOWN):
                say(f"  {line.strip().split(' (from')[0][:150]}")
    return process.returncode == 0


def read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


def write(path: Path, text: str) -> None:
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    new.replace(path)


def failed(reason: str) -> int:
    print(f"tickwright: {reason}", file=sys.stderr)
    return 1


def say(text: str) -> None:
    print(f"tickwright: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        sys.exit(failed(f"{error.filename or ROOT}: {error.strerror}"))
