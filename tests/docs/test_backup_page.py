"""The commands for backups, restores and a new file, run as the pages show them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tagsync.emulator import Emulator
from tests.support.commands import Finished, configure, environment, tagsync
from tests.support.docker_registry import require
from tests.support.documents import fenced_blocks, section
from tests.support.record import assert_history_is_whole, query

pytestmark = pytest.mark.processes

PAGE = "docs/backup.md"


class Host:
    """A folder in which the paths of the page are, with a configuration and a database.

    ``systemctl`` does nothing there, and ``tagsync`` uses the configuration.
    """

    def __init__(self, folder: Path, endpoint: str) -> None:
        self._folder = folder
        for name in (
            "backup",
            "bin",
            "etc/tagsync",
            "mnt/witness",
            "opt/tagsync",
            "var/backups",
            "var/lib/tagsync",
        ):
            (folder / name).mkdir(parents=True)
        (folder / "opt/tagsync/bin").symlink_to(folder / "bin")
        self._write("systemctl", "exit 0")
        self._write("tagsync", f'exec "{sys.executable}" -m tagsync "$@"')
        config = configure(folder / "etc/tagsync", endpoint, "team/api")
        config.write_text(config.read_text().replace('[store]\npath = "tagsync.db"\n', ""))
        (folder / "etc/tagsync/restic-password").write_text("a password\n")
        self.database = folder / "var/lib/tagsync/tagsync.db"
        self.variables = {
            "PATH": f"{folder}/bin:/usr/bin:/bin",
            "HOME": str(folder),
            "TAGSYNC_CONFIG": str(config),
            "STATE_DIRECTORY": str(self.database.parent),
        }

    def sync(self) -> None:
        """Poll once."""
        assert tagsync("sync", cwd=self._folder, **self.variables).returncode == 0

    def run(self, block: str) -> Finished:
        """Run a block of the page, with its paths below the folder."""
        script = re.sub(r"(?<![\w./])/(?=backup|etc|mnt|opt|var)", f"{self._folder}/", block)
        script = script.replace("restored/var", f"restored{self._folder}/var")
        finished = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self._folder,
            env=environment(**self.variables),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert finished.returncode == 0, finished
        return finished

    def _write(self, name: str, text: str) -> None:
        program = self._folder / "bin" / name
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)


@pytest.fixture
def host(swr: Emulator, tmp_path: Path) -> Host:
    """A host on which one repository was polled."""
    swr.push("team/api", "v1", "one")
    made = Host(tmp_path, swr.url)
    made.sync()
    return made


def test_commands_of_backup_and_restore_work(host: Host, tmp_path: Path) -> None:
    """The commands for a service make a backup, which the shown restore puts back."""
    first, as_root = fenced_blocks(section(PAGE, "Backup"), "sh")
    (restore,) = fenced_blocks(section(PAGE, "Restore"), "sh")
    printed = host.run(first).stdout
    assert host.run(as_root).stdout == printed
    changes = printed.splitlines()[1].split()
    assert changes[:2] == ["changes", "1"]
    (tmp_path / "mnt/witness/heads").write_text(f"{changes[2]}\n")
    old = query(host.database, "SELECT database_id FROM info")
    assert "has 1 change and 0 ended observations from" in host.run(restore).stdout
    assert query(host.database, "SELECT database_id FROM info") != old
    assert_history_is_whole(host.database)


def test_recipe_for_restic_works(swr: Emulator, host: Host) -> None:
    """The recipe backs up twice, and the newest backup is restored after the database is lost."""
    require("restic")
    prepare, daily, restore = fenced_blocks(section(PAGE, "With restic"), "sh")
    host.run(prepare)
    host.run(daily)
    swr.push("team/api", "v2", "two")
    host.sync()
    host.run(daily)
    host.database.unlink()
    host.run(restore)
    assert query(host.database, "SELECT tag FROM tags ORDER BY tag") == [("v1",), ("v2",)]
    assert_history_is_whole(host.database)
    host.sync()


def test_new_file_continues_an_old_one(swr: Emulator, host: Host, tmp_path: Path) -> None:
    """The commands for a new file keep the old one, and show what changed in between."""
    begin, compare = fenced_blocks(section("docs/database.md", "Disk space"), "sh")
    host.run(begin)
    assert not host.database.exists()
    changes, observations, checksum = (
        (tmp_path / "backup/tagsync-2026.heads").read_text().splitlines()[1:]
    )
    assert (changes.split(",")[1], observations.split(",")[1]) == ("1", "0")
    assert checksum.endswith("/backup/tagsync-2026.db")
    swr.push("team/api", "v1", "two")
    swr.push("team/api", "v2", "one")
    host.sync()
    found = query(host.database, "SELECT id, tag, kind, not_before FROM changes")
    assert found == [(1, "v1", "added", None), (2, "v2", "added", None)]
    printed = host.run(compare).stdout
    assert "and the given head proves that the record has not been altered" in printed
    assert len(re.findall("^< swr/team/api,v1,", printed, re.MULTILINE)) == 1
    assert len(re.findall("^> swr/team/api,v[12],", printed, re.MULTILINE)) == 2
    assert_history_is_whole(tmp_path / "var/lib/tagsync/tagsync-2026.db")
