"""The exit status of each command for each kind of error."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tagsync.cli.exit_status import FAILED, REFUSED
from tagsync.database.store import Store
from tests.support.command_tree import leaf_commands
from tests.support.commands import tagsync

DIGEST = f"sha256:{'a' * 64}"

RECORDING = {"sync": ["sync"], "run": ["run"], "check": ["check"]}
QUERYING = {
    "status": ["status"],
    "tags": ["tags"],
    "tags --at": ["tags", "--at", "1s"],
    "log": ["log"],
    "diff": ["diff", "*", "--from", "1s"],
    "find": ["find", DIGEST],
    "coverage": ["coverage"],
    "verify": ["verify"],
    "head": ["head"],
    "report": ["report", "*", "-o", "report.html"],
    "web": ["web", "--port", "0"],
    "backup": ["backup", "new.db"],
    "accept": ["accept", "1", "--reason", "x"],
}
NOTIFYING = {
    "notify test": ["notify", "test", "ops"],
    "notify preview": ["notify", "preview"],
    "notify replay": ["notify", "replay", "ops", "--since", "1"],
    "notify status": ["notify", "status"],
}
RESTORE = ["restore", "backup.db"]
CONFIGURED = RECORDING | QUERYING
INIT = ["init", "--kind", "oci", "--endpoint", "http://127.0.0.1:9", "team/api"]
READING = RECORDING | QUERYING | NOTIFYING | {"config": ["config"], "restore": RESTORE}
HEALTHCHECK = {"healthcheck": ["healthcheck"]}
ALL = READING | {"demo": ["demo"], "init": INIT, "completion": ["completion", "bash"]} | HEALTHCHECK

REGISTRY = """
[[registries]]
name = "swr"
endpoint = "http://127.0.0.1:9"
retry_for = "1ms"
[[registries.watch]]
repositories = ["team/api"]
"""
WITH_DESTINATION = f"""{REGISTRY}
[[notify]]
name = "ops"
kind = "command"
argv = ["/bin/false"]
"""
WITH_SECRET = REGISTRY.replace(
    "[[registries.watch]]",
    '[registries.auth]\nkind = "token"\ntoken = "env:TAGSYNC_TEST_MISSING"\n[[registries.watch]]',
)

Arrange = Callable[[Path], None]


def configure(text: str) -> Arrange:
    """Return a function that writes this configuration, and makes a new database."""

    def arrange(folder: Path) -> None:
        (folder / "config.toml").write_text(text)
        Store.open(folder / "tagsync.db").close()

    return arrange


def without_configuration(folder: Path) -> None:
    del folder


def without_database(folder: Path) -> None:
    (folder / "config.toml").write_text(REGISTRY)


def with_destination(folder: Path) -> None:
    (folder / "config.toml").write_text(WITH_DESTINATION)


def without_folder(folder: Path) -> None:
    (folder / "config.toml").write_text(f'[store]\npath = "gone/tagsync.db"\n{REGISTRY}')


def with_folder_as_database(folder: Path) -> None:
    without_database(folder)
    (folder / "tagsync.db").mkdir()


def with_text_as_database(folder: Path) -> None:
    without_database(folder)
    (folder / "tagsync.db").write_text("no database at all " * 100)


def with_foreign_database(folder: Path) -> None:
    without_database(folder)
    with closing(sqlite3.connect(folder / "tagsync.db")) as connection:
        connection.execute("CREATE TABLE theirs (id)")


def _only(*names: str) -> dict[str, list[str]]:
    """Return these of the commands ``notify``."""
    return {f"notify {name}": NOTIFYING[f"notify {name}"] for name in names}


TABLE: list[tuple[str, dict[str, list[str]], Arrange, int]] = [
    ("no configuration", READING | HEALTHCHECK, without_configuration, REFUSED),
    ("no address of the daemon", HEALTHCHECK, configure(REGISTRY), REFUSED),
    ("no daemon", HEALTHCHECK, configure(f'[metrics]\nlisten = ":1"\n{REGISTRY}'), FAILED),
    ("unknown key", READING, configure("colour = 1"), REFUSED),
    ("not TOML", READING, configure("{"), REFUSED),
    ("no destination", _only("test", "preview", "replay"), configure(REGISTRY), REFUSED),
    ("no database", _only("preview", "replay", "status"), with_destination, FAILED),
    ("a destination that refuses", _only("test"), with_destination, FAILED),
    ("no such event", _only("replay"), configure(WITH_DESTINATION), REFUSED),
    (
        "unknown destination",
        {
            **{
                f"notify {name}": ["notify", name, "nope"] for name in ("test", "preview", "status")
            },
            "notify replay": ["notify", "replay", "nope", "--since", "1"],
        },
        configure(WITH_DESTINATION),
        REFUSED,
    ),
    ("nothing watched", RECORDING, configure(""), REFUSED),
    ("secret missing", RECORDING, configure(WITH_SECRET), REFUSED),
    ("no database", QUERYING, without_database, FAILED),
    ("no folder", CONFIGURED, without_folder, FAILED),
    ("a folder as database", CONFIGURED, with_folder_as_database, FAILED),
    ("text as database", CONFIGURED, with_text_as_database, FAILED),
    ("a foreign database", CONFIGURED, with_foreign_database, FAILED),
    ("registry unreachable", {"sync": ["sync"], "check": ["check"]}, without_database, FAILED),
    ("an unknown shell", {"completion": ["completion", "tcsh"]}, without_database, REFUSED),
    (
        "a file that exists",
        {"init": INIT, "backup": ["backup", "config.toml"]},
        configure(REGISTRY),
        REFUSED,
    ),
    ("no backup", {"restore": RESTORE}, configure(REGISTRY), REFUSED),
    ("text as backup", {"restore": ["restore", "config.toml"]}, configure(REGISTRY), FAILED),
    ("no folder for a file", {"backup": ["backup", "gone/new"]}, configure(REGISTRY), FAILED),
    ("registry unreachable", {"init": INIT}, without_configuration, FAILED),
    ("no folder for a file", {"init": [*INIT, "-o", "gone/new"]}, without_database, FAILED),
    (
        "a secret itself",
        {"init": [*INIT, "--auth", "token", "--token", "hunter2"]},
        without_configuration,
        REFUSED,
    ),
    (
        "unknown repository",
        {name: [name, "swr/nope"] for name in ("sync", "status", "tags", "log", "coverage")}
        | {"diff": ["diff", "swr/nope", "--from", "1s"]}
        | {"report": ["report", "swr/nope", "-o", "report.html"]},
        configure(REGISTRY),
        REFUSED,
    ),
    (
        "an unknown change",
        {"accept": ["accept", "1", "--reason", "x"]},
        configure(REGISTRY),
        REFUSED,
    ),
    (
        "a wrong time",
        {
            "tags": ["tags", "--at", "noon"],
            "log": ["log", "--since", "noon"],
            "diff": ["diff", "*", "--from", "noon"],
            "coverage": ["coverage", "--until", "noon"],
            "notify preview": ["notify", "preview", "--since", "noon"],
            "report": ["report", "*", "--to", "2999-01-01", "-o", "report.html"],
        },
        configure(WITH_DESTINATION),
        REFUSED,
    ),
    (
        "a wrong name of a file",
        {"report": ["report", "*", "-o", "report.pdf"]},
        configure(REGISTRY),
        REFUSED,
    ),
    (
        "a wrong digest",
        {
            "find": ["find", "v1"],
            "verify": ["verify", "--head", "v1"],
            "restore": [*RESTORE, "--head", "v1"],
        },
        configure(REGISTRY),
        REFUSED,
    ),
    (
        "a wrong address",
        {"web": ["web", "--host", "192.0.2.1"], "demo": ["demo", "--directory", "."]},
        configure(REGISTRY),
        REFUSED,
    ),
    (
        "an unknown option",
        {name: [*arguments, "--nope"] for name, arguments in ALL.items()},
        configure(REGISTRY),
        REFUSED,
    ),
    (
        "an unknown format",
        {
            name: [*arguments, "--format", "xml"]
            for name, arguments in ALL.items()
            if name
            not in {
                *("run", "report", "web", "demo", "init", "completion", "restore", "healthcheck"),
                *("accept", "notify test", "notify replay"),
            }
        },
        configure(REGISTRY),
        REFUSED,
    ),
]
CASES = [
    pytest.param(arguments, arrange, status, id=f"{name}: {error}")
    for error, commands, arrange, status in TABLE
    for name, arguments in commands.items()
]


@pytest.mark.processes
@pytest.mark.parametrize(("arguments", "arrange", "status"), CASES)
def test_each_error_has_its_exit_status(
    arguments: list[str], arrange: Arrange, status: int, tmp_path: Path
) -> None:
    """A wrong command line, configuration or secret is 2; any other expected error is 1."""
    arrange(tmp_path)
    ended = tagsync(*arguments, cwd=tmp_path)
    assert ended.returncode == status, ended.stderr
    assert "Traceback" not in ended.stderr
    if ended.stdout:
        assert arguments[0] in {"sync", "check", "init"}, "only these show results beside an error"
    else:
        assert len(ended.stderr.splitlines()) == 1


def test_the_table_has_each_command() -> None:
    """No command is missing in the table of errors."""
    commands = leaf_commands()
    assert {words.partition(" --")[0] for words in ALL} == set(commands)
    assert all(
        arguments[: len(words.split())] == words.split()
        for words, arguments in ALL.items()
        if words in commands
    )
