"""An upgrade: a newer tagsync takes the database over, and the older one refuses it."""

import tomllib
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from tagsync.emulator import Emulator
from tests.support.commands import error_line, rows_of, run_command
from tests.support.installed import Environment, build, unpack
from tests.support.paths import ROOT
from tests.support.processes import Process, configure, free_port, registry

pytestmark = pytest.mark.processes

MIGRATION: Final = """

def _add_notes(db: sqlite3.Connection) -> None:
    db.execute("ALTER TABLE changes ADD COLUMN note TEXT")
    db.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, note TEXT NOT NULL)")


_MIGRATIONS = {**_MIGRATIONS, "notes": _add_notes}
"""
"""The migration that the newer tagsync has in addition."""

Run = Callable[..., Process]


class Release(NamedTuple):
    """A wheel and its version."""

    wheel: Path
    version: str


def older_and_newer(folder: Path) -> tuple[Release, Release]:
    """Build this tree, and a copy with a higher version and one more migration."""
    source = unpack(build(ROOT, folder / "sdist", "sdist"), folder)
    project = source / "pyproject.toml"
    version = tomllib.loads(project.read_text())["project"]["version"]
    older = Release(build(source, folder / "older", "wheel"), version)

    higher = f"{int(version.partition('.')[0]) + 1}.0.0"
    line = '\nversion = "{}"\n'
    changed = project.read_text().replace(line.format(version), line.format(higher))
    project.write_text(changed)
    with (source / "tagsync/database/migrations.py").open("a") as migrations:
        migrations.write(MIGRATION)
    return older, Release(build(source, folder / "newer", "wheel"), higher)


def assert_version(environment: Environment, version: str, folder: Path) -> None:
    """Check that the command and the package tell the version that is installed."""
    shown = run_command(environment.command("--version"), folder)
    assert shown.stdout == f"tagsync, version {version}\n"
    program = "import tagsync; print(tagsync.__version__, tagsync.__file__)"
    told = run_command([str(environment.python), "-c", program], folder).stdout
    assert told.startswith(f"{version} {environment.python.parent.parent}/")


def metrics(port: int) -> str:
    """Return what the daemon serves to Prometheus."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def assert_refused(environment: Environment, folder: Path) -> None:
    """Check that each command refuses the database in one line, and leaves it as it is."""
    before = (folder / "tagsync.db").read_bytes()
    for name in ("run", "sync", "status", "verify"):
        line = error_line(run_command(environment.command(name), folder), 1)
        assert "probably a newer one (it has the migration notes): upgrade tagsync" in line
    assert (folder / "tagsync.db").read_bytes() == before


def test_an_upgrade_migrates_the_database_and_has_no_way_back(tmp_path: Path, run: Run) -> None:
    """The newer daemon goes on with the record, and the older tagsync refuses it."""
    older, newer = older_and_newer(tmp_path)
    environment = Environment(tmp_path / "environment")

    def rows(*arguments: object) -> list[dict[str, Any]]:
        command = environment.command(*arguments, "--format", "json")
        return rows_of(run_command(command, tmp_path))

    with Emulator() as swr:
        port = free_port()
        listen = f'[metrics]\nlisten = "127.0.0.1:{port}"'
        configure(tmp_path, registry("swr", swr.url, "team/api"), more=listen)
        swr.push("team/api", "v1", "one")

        environment.install(older.wheel)
        assert_version(environment, older.version, tmp_path)
        daemon = run(python=environment.python)
        assert daemon.await_event("daemon.started")["version"] == older.version
        daemon.await_event("repository.baselined")
        swr.push("team/api", "v1", "two")
        daemon.await_event("tag.updated", tag="v1")
        assert daemon.stop() == 0
        heads = [option for row in rows("head") for option in ("--head", row["hash"])]

        environment.install(newer.wheel)
        assert_version(environment, newer.version, tmp_path)
        swr.push("team/api", "v2", "three")
        daemon = run(python=environment.python)
        assert daemon.await_event("daemon.started")["version"] == newer.version
        daemon.await_event("tag.added", tag="v2")
        assert f'tagsync_build_info{{version="{newer.version}"}} 1.0' in metrics(port)
        assert daemon.stop() == 0

    verified = run_command(environment.command("verify", *heads), tmp_path)
    assert verified.returncode == 0, verified
    history = [(row["tag"], row["kind"]) for row in rows("log")]
    assert history == [("v1", "added"), ("v1", "updated"), ("v2", "added")]

    environment.install(older.wheel)
    assert_refused(environment, tmp_path)
