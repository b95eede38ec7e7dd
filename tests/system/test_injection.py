"""Hostile names in real output: on a terminal, in the log and in CSV."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from tagsync.emulator import Emulator
from tests.support.commands import (
    Finished,
    configure,
    events_of,
    run_on_terminal,
    tagsync,
)

pytestmark = pytest.mark.processes

HOSTILE = "\x1b[2J\x1b]0;owned\x07\u202e\x9b2J=cmd()"
REPOSITORY = f"team/{HOSTILE}"
QUESTIONS = (
    "tags",
    "log --baseline",
    "status --all",
    "coverage",
    "diff * --from 2000-01-01",
    "sync",
)


@pytest.fixture(scope="module")
def polled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Emulator, Finished]]:
    """A pass over a discovered repository with a hostile name, and one that fails."""
    folder = tmp_path_factory.mktemp("injection")
    with Emulator() as swr:
        swr.push(REPOSITORY, "v1", "one", path=HOSTILE, internal_path=f"={HOSTILE}")
        configure(folder, swr.url, "team/*", "team/missing")
        yield folder, swr, tagsync("sync", cwd=folder)


def test_discovered_name_forges_no_log_line(
    polled: tuple[Path, Emulator, Finished],
) -> None:
    """Each log line is ASCII JSON and has the exact name that the registry sent."""
    _, _, finished = polled
    assert finished.stderr.isascii()
    assert f"swr/{REPOSITORY}" in {event.get("repository") for event in events_of(finished)}


@pytest.mark.parametrize("words", QUESTIONS)
def test_discovered_name_does_not_control_a_terminal(
    words: str, polled: tuple[Path, Emulator, Finished]
) -> None:
    """On a terminal, output, log and progress contain no escape of the name."""
    folder, _, _ = polled
    _, shown = run_on_terminal(*words.split(), cwd=folder, columns=200)
    assert "team/" in shown
    for part in ("\x1b[2J", "\x1b]0;", "\x07", "\u202e", "\x9b"):
        assert part not in shown


@pytest.mark.parametrize("words", QUESTIONS)
def test_discovered_name_is_not_a_formula(
    words: str, polled: tuple[Path, Emulator, Finished]
) -> None:
    """In CSV no cell begins like a formula or holds a control character."""
    folder, _, _ = polled
    finished = tagsync(*words.split(), "--format", "csv", cwd=folder)
    rows = list(csv.reader(io.StringIO(finished.stdout)))
    assert len(rows) > 1
    assert all(cell.isprintable() and cell[:1] not in set("=+@\t") for row in rows for cell in row)


def test_error_message_does_not_control_a_terminal(tmp_path: Path) -> None:
    """The registry's error message is escaped in the row, the log and in status."""
    message = {"errors": [{"errorCode": HOSTILE, "errorMessage": f"{HOSTILE}\r\nforged"}]}
    with Emulator() as swr:
        configure(tmp_path, swr.url, "team/api")
        swr.answer_next(400, message, times=10)
        failed = tagsync("--log-format", "console", "sync", cwd=tmp_path)
    status = tagsync("status", cwd=tmp_path)
    assert failed.returncode == 1
    for text in (failed.stdout, failed.stderr, status.stdout):
        assert "owned" in text
        assert all(line.isprintable() for line in text.split("\n"))
        assert not any(line.startswith("forged") for line in text.split("\n"))
