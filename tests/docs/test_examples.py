"""The README's promises that no command of its own proves."""

import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from tagsync.config import Config, RegistryTable, load
from tagsync.store import Store

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_configuration_shown_is_accepted(tmp_path: Path) -> None:
    """The configuration in the README is one that tagsync takes."""
    shown, *_ = blocks("toml")
    (tmp_path / "config.toml").write_text(shown)
    config = load(tmp_path / "config.toml", {})
    assert [watch.repositories for watch in config.watches] == [("team-a/*", "team-b/web/frontend")]


@pytest.mark.parametrize("auth", [each for each in blocks("toml") if "[[" not in each])
def test_each_credential_shown_is_accepted(tmp_path: Path, auth: str) -> None:
    """Each section on credentials shows one that tagsync takes as it stands."""
    registry = '[[registries]]\nname = "swr"\nendpoint = "https://swr-api.example.com"\n'
    (tmp_path / "config.toml").write_text(f"{registry}[registries.auth]\n{auth}")
    assert load(tmp_path / "config.toml", {}).registries["swr"].auth


@pytest.mark.parametrize("shown", [each for each in blocks("toml") if "[[" in each])
def test_each_registry_shown_is_accepted(tmp_path: Path, shown: str) -> None:
    """Each registry that is shown is a configuration as it stands; those of kind oci by name."""
    (tmp_path / "config.toml").write_text(shown)
    config = load(tmp_path / "config.toml", {})
    assert config.watches
    assert {table.kind for table in config.registries.values()} == {
        "swr" if "swr" in config.registries else "oci"
    }


def test_the_example_configuration_says_the_defaults(tmp_path: Path) -> None:
    """The example is accepted, and uncommenting what it shows changes nothing."""
    text = (ROOT / "config.example.toml").read_text()
    path = tmp_path / "config.toml"
    path.write_text(text)
    plain = load(path, {})
    uncommented = re.sub(r"^# (?!kind = )(?=\w+ = )", "", text, flags=re.MULTILINE)
    path.write_text(uncommented)
    explicit = load(path, {})
    assert explicit.watches == plain.watches
    assert [_without_watches(config) for config in (explicit, plain)] == [
        _without_watches(plain)
    ] * 2
    assert uncommented != text


def _without_watches(config: Config) -> list[RegistryTable]:
    return [msgspec.structs.replace(table, watch=[]) for table in config.registries.values()]


def recorded_by_the_demo(folder: Path) -> Path:
    subprocess.run(
        [sys.executable, "-m", "tagsync", "demo"],
        cwd=folder,
        capture_output=True,
        check=True,
        timeout=30,
    )
    return folder / "tagsync-demo"


def test_the_questions_of_the_audit_are_answered(tmp_path: Path) -> None:
    """Each command in the table of the audit is answered after the demo, as it stands."""
    commands = re.findall(r"^\| [^|]+ \| `(tagsync [^`]*)` \|$", README, re.MULTILINE)
    asked = [command for command in commands if "[" not in command and "--dry" not in command]
    assert {command.split()[1] for command in asked} >= {
        *("tags", "log", "diff", "find", "coverage", "verify")
    }
    folder = recorded_by_the_demo(tmp_path)
    for command in asked:
        finished = subprocess.run(
            ["bash", "-c", command],
            env={
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "TAGSYNC_CONFIG": str(folder / "config.toml"),
            },
            capture_output=True,
            check=True,
            text=True,
            timeout=30,
        )
        assert finished.stdout
        assert finished.stderr == ""


def test_the_check_without_tagsync(tmp_path: Path) -> None:
    """The check in plain Python prints the head, and finds what was altered."""
    (script,) = blocks("python")
    database = recorded_by_the_demo(tmp_path) / "tagsync.db"

    def check() -> subprocess.CompletedProcess[str]:
        # -I and a folder without tagsync: nothing of ours can be imported.
        return subprocess.run(
            [sys.executable, "-I", "-S", "-c", script, str(database)],
            cwd=tmp_path,
            capture_output=True,
            check=False,
            text=True,
            timeout=30,
        )

    with Store.open_for_reading(database) as store:
        head = store.head()
    honest = check()
    assert (honest.returncode, honest.stdout, honest.stderr) == (0, f"{head.hash}\n", "")
    assert len([line for line in script.splitlines() if line]) == 10
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("DROP TRIGGER changes_are_never_updated")
        connection.execute("UPDATE changes SET tag = 'other' WHERE id = 3")
    altered = check()
    assert altered.returncode == 1
    assert altered.stderr.endswith("change 3 does not fit\n")


def test_the_commands_shown_after_the_demo_run(tmp_path: Path) -> None:
    """Each command that follows the demo works as it stands, and the output shown is real."""
    (shown,) = blocks("console")
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def run(command: str) -> str:
        return subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            check=True,
            text=True,
            timeout=30,
        ).stdout

    run("tagsync demo")
    for example in re.split(r"^\$ ", shown, flags=re.MULTILINE)[1:]:
        # A command goes on for as long as its lines are indented; the rest is what it prints.
        match = re.fullmatch(r"(.*\n(?: +.*\n)*)((?:.*\n)*)", example)
        assert match
        output = run(match[1])
        assert output
        assert not match[2] or output == match[2]
