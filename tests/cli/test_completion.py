"""Completion: the protocol of each shell, and real shells on a pseudo-terminal."""

import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tagsync import cli
from tests.support.commands import configure, contents, environment, tagsync
from tests.support.record import insert_names

pytestmark = pytest.mark.processes

HOSTILE = ("$(touch pwned)", "a;touch pwned", "*", "a b", "`touch pwned`")
COMMANDS = cli.tagsync.list_commands(click.Context(cli.tagsync))
QUIET = {"PS1": "", "TERM": "dumb", "HISTFILE": ""}


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A folder with a configuration, and a database with ordinary and hostile names."""
    configure(tmp_path, "http://127.0.0.1:9", "team/api")
    repositories = ["team/api", "team/web/frontend", *(f"team/{odd}" for odd in HOSTILE)]
    insert_names(tmp_path / "tagsync.db", repositories, ["v1.0", "v1.1", "latest", *HOSTILE])
    insert_names(tmp_path / "tagsync.db", ["other/tool"], ["edge"])
    return tmp_path


def variables(shell: str, line: str) -> dict[str, str]:
    """Return the variables that a shell's script sets when the cursor is at the line's end."""
    *complete, last = line.split(" ")
    if shell == "bash":
        words = {"COMP_LINE": line}
    elif shell == "zsh":
        words = {"COMP_WORDS": line, "COMP_CWORD": str(len(complete))}
    else:
        words = {"COMP_WORDS": line, "COMP_CWORD": last}
    return {"_TAGSYNC_COMPLETE": f"{shell}_complete", **words}


def complete(shell: str, line: str, folder: Path, **more: str) -> list[str]:
    """Return the values that tagsync prints for a shell; it prints nothing else."""
    finished = tagsync(cwd=folder, **variables(shell, line), **more)
    assert (finished.returncode, finished.stderr) == (0, "")
    lines = finished.stdout.strip("\n").splitlines()  # without names, there is an empty line
    if shell == "zsh":
        assert set(lines[::3]) <= {"plain"}
        return [value.replace("\\:", ":") for value in lines[1::3]]
    assert all(line.startswith("plain,") for line in lines)
    return [line.removeprefix("plain,").split("\t")[0] for line in lines]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("tagsync ", COMMANDS),
        ("tagsync co", ["config", "coverage", "completion"]),
        ("tagsync --color ", ["auto", "always", "never"]),
        ("tagsync --no", ["--no-pager"]),
        ("tagsync sync --dr", ["--dry-run"]),
        ("tagsync log --kind a", ["added"]),
        ("tagsync completion z", ["zsh"]),
        ("tagsync tags ", ["r/other/tool", "r/team/api", "r/team/web/frontend"]),
        ("tagsync tags r/team/w", ["r/team/web/frontend"]),
        ("tagsync diff r/team/w", ["r/team/web/frontend"]),
        ("tagsync report r/team/api:v1.0", ["r/team/api:v1.0"]),
        ("tagsync tags r/team/api:v", ["r/team/api:v1.0", "r/team/api:v1.1"]),
        (
            "tagsync tags r/team/api:",
            [f"r/team/api:{tag}" for tag in ("latest", "v1.0", "v1.1")],
        ),
        ("tagsync tags r/team/none:", []),
        ("tagsync log r/team/api --tag ", ["latest", "v1.0", "v1.1"]),
        ("tagsync log r/other/* --tag ", ["edge"]),
        ("tagsync log r/other/tool:x r/none --kind added --tag e", ["edge"]),
        ("tagsync log --tag v1.", ["v1.0", "v1.1"]),
        ("tagsync no-such-command ", COMMANDS),
    ],
)
def test_each_shell_gets_the_same_names(
    shell: str, line: str, expected: list[str], recorded: Path
) -> None:
    """Commands, options, values, repositories and tags are completed; odd names are left out."""
    before = contents(recorded)
    assert complete(shell, line, recorded) == expected
    assert contents(recorded) == before


@pytest.mark.parametrize("shell", ["zsh", "fish"])
@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("--tag=v", ["--tag=v1.0", "--tag=v1.1"]),
        ("--tag=", ["--tag=edge", "--tag=latest", "--tag=v1.0", "--tag=v1.1"]),
        ("--kind=d", ["--kind=deleted"]),
        ("r/team/a", ["r/team/api"]),
    ],
)
def test_value_keeps_its_option(shell: str, word: str, expected: list[str], recorded: Path) -> None:
    """A shell that replaces the whole word gets the option together with its value."""
    assert complete(shell, f"tagsync log {word}", recorded) == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_silent_without_a_record(shell: str, tmp_path: Path) -> None:
    """Without a configuration or a database, or with wrong ones, nothing is printed or created."""
    for text in (None, "{", "[store]\npath = 'gone/tagsync.db'\n", "[store]\npath = 'text'\n"):
        if text is not None:
            (tmp_path / "config.toml").write_text(text)
            (tmp_path / "text").write_text("no database")
        before = contents(tmp_path)
        assert complete(shell, "tagsync tags ", tmp_path) == []
        assert complete(shell, "tagsync log a --tag ", tmp_path) == []
        assert contents(tmp_path) == before


def test_completion_uses_the_configuration_on_the_line(recorded: Path, tmp_path: Path) -> None:
    """--config, and $TAGSYNC_CONFIG, say which database has the names."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    path = recorded / "config.toml"
    assert complete("bash", f"tagsync --config {path} tags r/team/a", folder) == ["r/team/api"]
    found = complete("bash", "tagsync tags r/team/a", folder, TAGSYNC_CONFIG=str(path))
    assert found == ["r/team/api"]
    assert complete("bash", "tagsync tags r/team/a", folder) == []


def type_into(shell: list[str], lines: str, folder: Path) -> list[str]:
    """Type lines into an interactive shell, and return what its command ``echo RESULT:`` prints."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    outer, inner = pty.openpty()
    try:
        with subprocess.Popen(
            shell,
            cwd=folder,
            env={**environment(**QUIET), "PATH": path, "HOME": str(folder)},
            stdin=inner,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        ) as process:
            os.write(outer, lines.encode())
            try:
                out, _ = process.communicate(timeout=30)
            finally:
                process.kill()
    finally:
        os.close(outer)
        os.close(inner)
    return [
        line.partition("RESULT: ")[2].strip() for line in out.splitlines() if "RESULT: " in line
    ]


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("tagsync cov", "tagsync coverage"),
        ("tagsync tags r/team/w", "tagsync tags r/team/web/frontend"),
        ("tagsync tags r/team/api:l", "tagsync tags r/team/api:latest"),
        ("tagsync tags r/team/api:v", "tagsync tags r/team/api:v1."),
        ("tagsync tags r/team/api:", "tagsync tags r/team/api:"),
        ("tagsync tags 'r/team/api:l", "tagsync tags r/team/api:latest"),
        ("tagsync log r/team/api --tag=l", "tagsync log r/team/api --tag=latest"),
        ("tagsync -q log --kind d", "tagsync -q log --kind deleted"),
        ("tagsync --config conf", "tagsync --config config.toml"),
        ("tagsync tags r/team/*", "tagsync tags r/team/*"),
    ],
)
def test_bash_completes_a_line(typed: str, completed: str, recorded: Path) -> None:
    """In a real Bash, Tab completes the word, also behind a colon."""
    bash = shutil.which("bash")
    assert bash
    script = tagsync("completion", "bash", cwd=recorded)
    assert (script.returncode, script.stderr) == (0, "")
    (recorded / "script").write_text(script.stdout)
    # Control-A goes to the beginning of the line; `echo` then shows the words.
    lines = f". ./script\n{typed}\t\x01echo RESULT: \nexit\n"
    found = type_into([bash, "--norc", "--noprofile", "-i"], lines, recorded)
    assert found == [completed]
    assert not (recorded / "pwned").exists()
