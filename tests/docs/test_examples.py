"""The examples in the documentation: configurations, commands and a Python script."""

import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from tagsync.config import Config, load
from tagsync.config.tables import RegistryTable
from tagsync.database.store import Store
from tagsync.polling.jobs import Job, Options
from tagsync.polling.poll import poll
from tagsync.registries.credentials import NoCredential
from tests.support.clock import FakeClock
from tests.support.documents import PAGES, fenced_blocks, read_page, section
from tests.support.paths import ROOT
from tests.support.registries import INTERVAL, REPOSITORY, Scripted

TOML = [block for path in PAGES for block in fenced_blocks(path.read_text(), "toml")]
CONFIGURATIONS = [block for block in TOML if "[[registries" in block]
DESTINATIONS = [block for block in TOML if "[[notify]]" in block]
CREDENTIALS = [
    (kind, block)
    for title, kind in (("SWR", "swr"), ("OCI registries", "oci"))
    for block in fenced_blocks(section("docs/credentials.md", title), "toml")
]


def test_readme_configuration_is_valid(tmp_path: Path) -> None:
    """The README's first configuration is valid and watches the named repositories."""
    shown, *_ = fenced_blocks(read_page("README.md"), "toml")
    (tmp_path / "config.toml").write_text(shown)
    config = load(tmp_path / "config.toml", {})
    assert [watch.repositories for watch in config.watches] == [("team-a/*", "team-b/web/frontend")]


def test_each_example_in_toml_is_tested() -> None:
    """Each TOML block is a configuration, a credential or a destination, and none is missing."""
    names = [re.search(r'^name = "(\w+)"', block, re.MULTILINE) for block in CONFIGURATIONS]
    assert {name[1] for name in names if name} == {"swr", "hub", "ghcr", "harbor", "internal"}
    kinds = [re.match(r'kind = "(\w+)"', block) for _, block in CREDENTIALS]
    assert [kind[1] for kind in kinds if kind] == [
        *("aksk", "password", "token", "ecs", "basic", "docker", "token")
    ]
    kinds = [re.search(r'^kind = "(\w+)"', block, re.MULTILINE) for block in DESTINATIONS]
    assert [kind[1] for kind in kinds if kind] == ["webhook", "apprise", "command"]
    others = [*DESTINATIONS, *(block for _, block in CREDENTIALS)]
    assert sorted(TOML) == sorted([*CONFIGURATIONS, *others])


@pytest.mark.parametrize(("kind", "auth"), CREDENTIALS)
def test_each_documented_credential_is_valid(tmp_path: Path, kind: str, auth: str) -> None:
    """Each documented credential is valid without any edit."""
    registry = f'[[registries]]\nname = "one"\nkind = "{kind}"\nendpoint = "https://example.com"\n'
    (tmp_path / "config.toml").write_text(f"{registry}[registries.auth]\n{auth}")
    config = load(tmp_path / "config.toml", {})
    assert not isinstance(config.registries["one"].auth, NoCredential)


@pytest.mark.parametrize("shown", DESTINATIONS)
def test_each_documented_destination_is_valid(tmp_path: Path, shown: str) -> None:
    """Each documented destination is valid without any edit."""
    (tmp_path / "config.toml").write_text(shown)
    (table,) = load(tmp_path / "config.toml", {}).file.notify
    assert (table.kind == "command") == (table.argv is not None)


@pytest.mark.parametrize("shown", CONFIGURATIONS)
def test_each_documented_registry_is_valid(tmp_path: Path, shown: str) -> None:
    """Each documented registry is valid; `swr` is of kind swr, all others are oci."""
    (tmp_path / "config.toml").write_text(shown)
    config = load(tmp_path / "config.toml", {})
    assert config.watches
    assert {table.kind for table in config.registries.values()} == {
        "swr" if "swr" in config.registries else "oci"
    }


def test_example_configuration_shows_the_defaults(tmp_path: Path) -> None:
    """The example is valid, and uncommenting its keys changes nothing."""
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


def run_demo(folder: Path) -> Path:
    """Run the demo and return the folder that it creates."""
    subprocess.run(
        [sys.executable, "-m", "tagsync", "demo"],
        cwd=folder,
        capture_output=True,
        check=True,
        timeout=30,
    )
    return folder / "tagsync-demo"


@pytest.mark.processes
def test_each_command_of_the_audit_page_has_an_answer(tmp_path: Path) -> None:
    """Each command in the audit page's table has an answer after the demo."""
    commands = re.findall(
        r"^\| [^|]+ \| `(tagsync [^`]*)` \|$", read_page("docs/audit.md"), re.MULTILINE
    )
    assert {command.split()[1] for command in commands} >= {
        *("tags", "log", "diff", "find", "coverage", "verify", "report")
    }
    folder = run_demo(tmp_path)
    for command in commands:
        finished = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
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


@pytest.mark.processes
def test_check_in_plain_python(tmp_path: Path, clock: FakeClock, scripted: Scripted) -> None:
    """The check in plain Python prints both heads, and finds each kind of alteration."""
    (script,) = fenced_blocks(read_page("docs/database.md"), "python")
    database = run_demo(tmp_path) / "tagsync.db"

    def check() -> subprocess.CompletedProcess[str]:
        # -I and a folder without tagsync, so that the script cannot import tagsync.
        return subprocess.run(
            [sys.executable, "-I", "-S", "-c", script, str(database)],
            cwd=tmp_path,
            capture_output=True,
            check=False,
            text=True,
            timeout=30,
        )

    with Store.open(database) as store:
        for name in ("v1", "schlüssel\x7f\u2028"):
            scripted.then(name)
            poll(Job(REPOSITORY, scripted, INTERVAL), store, Options(accept_deletions=True), clock)
            clock.advance(hours=12)
        store.end_past_observations("2999-01-01")
        heads = store.heads()
    assert (heads.changes.change_id > 10, heads.observations.ended > 4) == (True, True)
    honest = check()
    printed = f"change {heads.changes.hash}\nobservation {heads.observations.hash}\n"
    assert (honest.returncode, honest.stdout, honest.stderr) == (0, printed, "")
    assert len(script.splitlines()) == 28
    for sql, fault in (
        ("UPDATE repositories SET failures = 7 WHERE id = 2", "repository 2 does not fit"),
        ("UPDATE observations SET polls = 7 WHERE ended = 2", "observation 2 does not fit"),
        ("UPDATE changes SET tag = 'other' WHERE id = 3", "change 3 does not fit"),
    ):
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("DROP TRIGGER IF EXISTS changes_are_never_updated")
            connection.execute(sql)
        altered = check()
        assert altered.returncode == 1
        assert altered.stderr.endswith(f"{fault}\n")


@pytest.mark.processes
def test_commands_after_the_demo_print_what_is_shown(tmp_path: Path) -> None:
    """Each command shown after the demo works, and prints the output shown."""
    (shown,) = fenced_blocks(section("docs/audit.md", "First commands"), "console")
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
        # Indented lines continue the command; the rest is its output.
        match = re.fullmatch(r"(.*\n(?: +.*\n)*)((?:.*\n)*)", example)
        assert match
        output = run(match[1])
        assert output
        assert not match[2] or output == match[2]
