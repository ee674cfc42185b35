"""The rules the embedded PostgreSQL is started and understood by, without starting one."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.postgres.embedded import ConnectionSettings, DataDirUnusableError
from runtime.postgres.embedded.cluster import SETTINGS, sync_method
from runtime.postgres.embedded.credentials import load_or_make
from runtime.postgres.embedded.diagnosis import explain
from runtime.postgres.embedded.files import write_whole
from runtime.postgres.embedded.log import ServerLog
from runtime.postgres.embedded.postmaster import Progress, read

LOG = Path("/data/postgres.log")


def test_recovery_is_waited_for_as_long_as_it_advances() -> None:
    progress = Progress(patience_s=10.0, now_s=0.0)
    for minute in range(600):  # ten hours, a step a minute, is slow but is progress
        assert not progress.stalled(("log", minute // 2), now_s=minute * 5.0)


def test_a_standstill_ends_after_the_patience_and_not_before() -> None:
    progress = Progress(patience_s=10.0, now_s=0.0)
    assert not progress.stalled("same", now_s=1.0)
    assert not progress.stalled("same", now_s=11.0)
    assert progress.stalled("same", now_s=11.1)
    assert not progress.stalled("other", now_s=11.2)


@pytest.mark.parametrize(
    ("said", "means"),
    [
        ('FATAL:  could not write lock file "postmaster.pid": No space left on device', "full"),
        ("FATAL:  could not map anonymous shared memory: Cannot allocate memory", "memory"),
        ("initdb: error: could not look up effective user ID 4711: user does not exist", "entry"),
        ('FATAL:  data directory "/data" has invalid permissions', "modes"),
        ("FATAL:  configuration file contains errors", "local.conf"),
        ("PANIC:  could not locate a valid checkpoint record at 0/1", "damaged"),
        ("FATAL:  something new", "the reason is in"),
        ("", "the reason is in"),
    ],
)
def test_last_words_become_one_sentence_with_its_log(said: str, means: str) -> None:
    sentence = explain(f"LOG:  starting\n{said}\nLOG:  shutting down\n", log=LOG)
    assert means in sentence
    assert str(LOG) in sentence
    assert "\n" not in sentence


def test_the_log_is_cut_past_its_bound_and_keeps_one_predecessor(tmp_path: Path) -> None:
    log = ServerLog(tmp_path / "postgres.log", size_bytes_max=10)
    log.path.write_text("0123456789")
    assert not log.bound()
    with log.path.open("a") as held:  # as PostgreSQL does, over the cut
        held.write("x")
        held.flush()
        assert log.bound()
        held.write("after")
    assert log.path.read_text() == "after"
    assert (tmp_path / "postgres.log.1").read_text() == "0123456789x"
    assert log.since(100) == "after"  # an offset from before the cut


@pytest.mark.parametrize(
    ("content", "status"),
    [
        ("17\n/data\n1\n5432\n../run\n\n 1 2\nready   \n", "ready"),
        ("17\n/data\n1\n5432\n../run\n", ""),
        ("17", ""),
    ],
)
def test_the_pid_file_is_read_also_while_it_is_written(
    tmp_path: Path, content: str, status: str
) -> None:
    (tmp_path / "postmaster.pid").write_text(content)
    found = read(tmp_path)
    assert found is not None
    assert (found.pid, found.status) == (17, status)


@pytest.mark.parametrize("content", ["", "garbage\n", "\x00" * 100])
def test_a_pid_file_that_names_nobody_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "postmaster.pid").write_text(content)
    assert read(tmp_path) is None


def test_a_file_is_replaced_whole_and_a_link_in_the_way_is_not_followed(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_text("untouched")
    ours = tmp_path / "ours"
    ours.symlink_to(theirs)
    write_whole(ours, b"new", mode=0o600)
    assert ours.read_bytes() == b"new"
    assert not ours.is_symlink()
    assert theirs.read_text() == "untouched"
    assert {path.name for path in tmp_path.iterdir()} == {"ours", "theirs"}


def test_passwords_are_made_once_kept_private_and_never_shown(tmp_path: Path) -> None:
    made = load_or_make(tmp_path, may_make=True)
    file = tmp_path / "secrets.json"
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o644)
    assert load_or_make(tmp_path, may_make=False) == made
    assert file.stat().st_mode & 0o777 == 0o600
    assert len({made.owner, made.node, made.api}) == 3
    assert made.owner not in repr(made)
    assert made.owner not in repr(
        ConnectionSettings(host="/run", user="u", password=made.owner, database="d")
    )
    file.unlink()
    with pytest.raises(DataDirUnusableError):
        load_or_make(tmp_path, may_make=False)


@pytest.mark.parametrize(
    ("system", "kernel", "method"),
    [
        ("linux", "6.18.44-generic", "syncfs"),
        ("linux", "5.8.0", "syncfs"),
        ("linux", "5.7.19", "fsync"),
        ("linux", "4.18.0-553.el8", "fsync"),
        ("linux", "unknown", "fsync"),
        ("darwin", "23.1.0", "fsync"),
    ],
)
def test_recovery_syncs_in_one_call_only_where_its_errors_are_told(
    system: str, kernel: str, method: str
) -> None:
    assert sync_method(system, kernel) == method


def test_no_setting_of_ours_touches_durability() -> None:
    assert not {"fsync", "full_page_writes", "synchronous_commit"} & set(SETTINGS)
