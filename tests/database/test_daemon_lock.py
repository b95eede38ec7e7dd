"""The lock by which one daemon at a time has a database."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tagsync.database.daemon_lock import DaemonLock
from tagsync.database.store import Store
from tagsync.errors import DatabaseInUse, UnusableDatabase


def test_second_daemon_is_refused(database: Path) -> None:
    """A second lock is refused, names the first one's process, and is free again after it."""
    with (
        DaemonLock(database),
        pytest.raises(DatabaseInUse, match=f"in use by a daemon, process {os.getpid()}: stop"),
        DaemonLock(database),
    ):
        pass
    assert DaemonLock(database).path.read_text() == ""
    with DaemonLock(database) as lock:
        assert lock.path.read_text() == f"{os.getpid()}\n"


def test_another_name_of_the_database_is_the_same_lock(database: Path) -> None:
    """A symbolic link to the database leads to the lock of the database itself."""
    database.touch()
    link = database.with_name("link.db")
    link.symlink_to(database)
    with DaemonLock(database), pytest.raises(DatabaseInUse), DaemonLock(link):
        pass


@pytest.mark.processes
def test_file_of_a_dead_daemon_does_not_block(database: Path) -> None:
    """The lock of a process that was killed is free, although its file has its process id."""
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from tagsync.database.daemon_lock import DaemonLock\n"
        "with DaemonLock(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", program, str(database)], timeout=30, check=False)
    assert int(DaemonLock(database).path.read_text()) != os.getpid()
    with DaemonLock(database) as lock:
        assert lock.path.read_text() == f"{os.getpid()}\n"


def test_other_processes_write_beside_a_daemon(database: Path) -> None:
    """The lock of the daemon keeps no writer out."""
    with DaemonLock(database), Store.open(database, busy_timeout=0.05) as store:
        store.end_past_observations("2026-01-01")


def test_missing_folder_is_reported(tmp_path: Path) -> None:
    """A lock in a missing folder is one sentence that names the folder's file."""
    with (
        pytest.raises(UnusableDatabase, match=r"its lock .*gone/tagsync\.db\.daemon-lock"),
        DaemonLock(tmp_path / "gone" / "tagsync.db"),
    ):
        pass
