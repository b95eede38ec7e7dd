"""Errors on the command line: expected ones are a sentence, and bugs have a traceback."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import IO

import click
import pytest

from tagsync import cli
from tagsync.cli import tables
from tagsync.cli.exit_status import BUG, FAILED, REFUSED, report
from tagsync.database.store import Store
from tagsync.errors import (
    AddressUnavailable,
    ConfigError,
    Forbidden,
    StoreError,
    TagsyncError,
    UnusableDatabase,
)

BUG_SENTENCE = "tagsync: this is a bug in tagsync: please report it with the traceback above"

Run = Callable[..., int]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run ``main`` in this process, in a folder with a new database; return the exit status."""
    (tmp_path / "config.toml").write_text('[store]\npath = "tagsync.db"\n')
    Store.open(tmp_path / "tagsync.db").close()
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["tagsync", *arguments])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        assert isinstance(exit_.value.code, int)
        return exit_.value.code

    return run


def raising(error: BaseException) -> Callable[..., None]:
    def function(*_args: object, **_options: object) -> None:
        raise error

    return function


# --- bugs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["tags", "log"])
def test_a_bug_in_the_table_printer(
    command: str, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unexpected exception is status 70, its traceback, and a request to report it."""
    monkeypatch.setattr(tables.View, "show", raising(KeyError("a wrong column")))
    assert run(command) == BUG == 70
    printed, said = capsys.readouterr()
    assert printed == ""
    first, *_, error, sentence = said.splitlines()
    assert first == "Traceback (most recent call last):"
    assert error == "KeyError: 'a wrong column'"
    assert sentence == BUG_SENTENCE
    assert "in function" in said


def test_a_traceback_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters in a traceback are escaped; its lines stay lines."""
    assert report(ValueError("\x1b[2J\r\u2028")) == BUG
    *_, error, sentence = capsys.readouterr().err.split("\n")[:-1]
    assert error == r"ValueError: \x1b[2J\r\u2028"
    assert sentence == BUG_SENTENCE


def test_an_error_of_the_system_that_names_nothing_is_a_bug(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without a name, only the traceback says what failed."""
    assert report(OSError(errno.ENOTCONN, "Transport endpoint is not connected")) == BUG
    assert "Traceback" not in capsys.readouterr().err.splitlines()[-1]


def test_a_broken_pipe_of_another_stream_is_a_bug(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only standard output may end quietly if its reader is gone."""
    monkeypatch.setattr(tables.View, "show", raising(BrokenPipeError(errno.EPIPE, "Broken pipe")))
    assert run("tags") == BUG
    assert capsys.readouterr().err.endswith(f"{BUG_SENTENCE}\n")


# --- expected errors -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ConfigError("a mistake"), REFUSED),
        (AddressUnavailable("a mistake"), FAILED),
        (UnusableDatabase("a mistake"), FAILED),
        (StoreError("a mistake"), FAILED),
        (Forbidden("a mistake"), FAILED),
        (TagsyncError("a mistake"), FAILED),
        (click.UsageError("a mistake."), REFUSED),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_expected_error_is_one_sentence(
    error: Exception, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """An expected error has no traceback, and the status of its kind."""
    assert report(error) == status
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("tagsync: a mistake")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "standard output"),
            "standard output cannot be written: No space left on device",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/etc/tagsync/\x1b[2J"),
            r"/etc/tagsync/\x1b[2J cannot be used: Permission denied; check the permissions",
        ),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory", b"bytes"),
            "bytes cannot be used: No such file or directory; check the path",
        ),
        (
            OSError(errno.EXDEV, "Invalid cross-device link", "new", None, "old"),
            "new and old cannot be used: Invalid cross-device link; choose two places",
        ),
    ],
)
def test_an_error_of_the_system_names_what_failed(
    error: OSError, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sentence names the stream or the files, and says what to do."""
    assert report(error) == FAILED
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"tagsync: {sentence}")


def test_a_file_that_cannot_be_read_is_named(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """An error while a command reads a file is not reported as one of the output."""

    def read(*_arguments: object) -> None:
        (tmp_path / "missing").read_text()

    monkeypatch.setattr(tables.View, "show", read)
    assert run("tags") == FAILED
    assert capsys.readouterr().err == (
        f"tagsync: {tmp_path / 'missing'} cannot be used: No such file or directory;"
        " check the path, and create its folder if that is missing\n"
    )


# --- processes -----------------------------------------------------------------------------------


def start(
    folder: Path,
    *arguments: str,
    before: str = "",
    stdout: IO[bytes] | int = subprocess.PIPE,
    options: tuple[str, ...] = ("-X", "dev"),
    **variables: str,
) -> subprocess.CompletedProcess[bytes]:
    """Run tagsync in a process of its own, after some statements."""
    program = f"{before}\nfrom tagsync.cli import main\nmain()"
    return subprocess.run(
        [sys.executable, *options, "-c", program, *arguments],
        cwd=folder,
        env={"PATH": os.environ["PATH"], **variables},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        timeout=30,
        check=False,
    )


UNBUFFERED = ("-X", "dev", "-u")
BUFFERING = [("-X", "dev"), UNBUFFERED]


@pytest.mark.processes
@pytest.mark.parametrize("options", BUFFERING, ids=" ".join)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("command", ["--help", "verify", "verify --format csv"])
def test_a_full_disk_under_standard_output(
    command: str, encoding: str, options: tuple[str, ...], run: Run, tmp_path: Path
) -> None:
    """The sentence names standard output, whatever buffers and encodes it."""
    del run  # only its folder is needed
    with Path("/dev/full").open("wb") as full:
        finished = start(
            tmp_path, *command.split(), stdout=full, options=options, PYTHONIOENCODING=encoding
        )
    assert (
        finished.stderr == b"tagsync: standard output cannot be written: No space left on device\n"
    )
    assert finished.returncode == FAILED


@pytest.mark.processes
@pytest.mark.parametrize("options", BUFFERING, ids=" ".join)
def test_a_closed_pipe_ends_quietly(options: tuple[str, ...], run: Run, tmp_path: Path) -> None:
    """A reader that has seen enough, such as head, causes no message."""
    del run
    reading, writing = os.pipe()
    os.close(reading)
    try:
        finished = start(tmp_path, "verify", stdout=writing, options=options)
    finally:
        os.close(writing)
    assert (finished.returncode, finished.stderr) == (FAILED, b"")


@pytest.mark.processes
def test_the_output_is_complete(run: Run, tmp_path: Path) -> None:
    """A result that is larger than all buffers reaches a slow reader as a whole."""
    del run
    before = "import tagsync.cli.answers as a; a.render = lambda *_: ['x' * 1_000_000]"
    reading, writing = os.pipe()
    read: list[bytes] = []

    def drain() -> None:
        with os.fdopen(reading, "rb") as pipe:
            read.append(pipe.read())

    reader = Thread(target=drain)
    reader.start()
    try:
        finished = start(tmp_path, "tags", before=before, stdout=writing)
    finally:
        os.close(writing)
        reader.join(10)
    assert (finished.returncode, finished.stderr) == (0, b"")
    assert read == [b"x" * 1_000_000 + b"\n"]


@pytest.mark.processes
def test_a_bug_in_a_thread_of_sync(tmp_path: Path) -> None:
    """An unexpected exception in a thread that polls ends the pass as a bug, with its traceback."""
    (tmp_path / "config.toml").write_text(
        '[[registries]]\nname = "swr"\nendpoint = "http://127.0.0.1:9"\n'
        '[[registries.watch]]\nrepositories = ["team/api"]\n'
    )
    before = """
from tagsync.registries.swr.api import Swr
def bug(*arguments, **options):
    raise LookupError("a wrong name")
Swr.list_tags = bug
"""
    finished = start(tmp_path, "sync", before=before)
    assert finished.returncode == BUG
    assert finished.stdout == b""
    lines = finished.stderr.decode().splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-2:] == ["LookupError: a wrong name", BUG_SENTENCE]
    assert ", in bug" in finished.stderr.decode()


@pytest.mark.processes
def test_a_working_directory_that_is_gone(tmp_path: Path) -> None:
    """Where the system names nothing, the sentence still names the working directory."""
    before = "import os; os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')"
    finished = start(tmp_path, "demo", "--directory", str(tmp_path / "demo"), before=before)
    assert finished.returncode == FAILED
    assert finished.stderr.endswith(
        b"tagsync: the working directory cannot be used: No such file or directory;"
        b" change to one that exists\n"
    )
