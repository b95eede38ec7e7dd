"""``tagsync verify`` on a terminal: rows, progress and the conclusion."""

import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tagsync.emulator import Emulator
from tests.support.commands import configure, run_on_terminal, screen, tagsync
from tests.support.record import query

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration and a recorded database."""
    folder = tmp_path_factory.mktemp("recorded")
    with Emulator() as swr:
        for number in range(40):
            swr.push("team/api", f"v{number}", str(number))
        configure(folder, swr.url, "team/api")
        assert tagsync("sync", cwd=folder).returncode == 0
    return folder


@pytest.mark.parametrize("columns", [80, 120])
def test_verification_on_a_terminal(columns: int, recorded: Path) -> None:
    """Each check has a row, progress leaves nothing behind, and the last sentence concludes."""
    status, written = run_on_terminal("verify", cwd=recorded, columns=columns)
    assert status == 0
    assert re.search(r"chain  0/\d+ rows  0 %", written)
    lines = screen(written)
    assert lines[0].split() == ["check", "rows", "result", "detail"]
    assert {line.split()[0] for line in lines if re.search(r"\d  ok", line)} >= {
        *("schema", "chain", "images", "tags", "observations")
    }
    assert all(len(line) <= columns for line in lines)
    text = " ".join(lines)
    assert re.search(
        r"All \d checks passed: .* up to change 40 \(\d{4}-\d\d-\d\d \d\d:\d\d UTC\)", text
    )
    assert "--head HASH." in text

    (head,) = query(recorded / "tagsync.db", "SELECT hash FROM changes WHERE id = 40")
    _, written = run_on_terminal("-q", "verify", "--head", head[0], cwd=recorded, columns=columns)
    assert " rows  " not in written
    assert "the given head proves that the record has not been" in " ".join(screen(written))


def test_fault_on_a_terminal(recorded: Path, tmp_path: Path) -> None:
    """A fault is named in its row and in the last sentence, and the exit status is 1."""
    (tmp_path / "config.toml").write_text((recorded / "config.toml").read_text())
    (tmp_path / "tagsync.db").write_bytes((recorded / "tagsync.db").read_bytes())
    with closing(sqlite3.connect(tmp_path / "tagsync.db")) as connection, connection:
        connection.execute("UPDATE tags SET size = 7 WHERE tag = 'v3'")
    status, written = run_on_terminal("verify", cwd=tmp_path)
    assert status == 1
    text = " ".join(screen(written))
    assert "team/api tag 'v3' has 7 as size in tags" in text
    assert re.search(r"1 of \d checks found a fault \(tags\): the record was altered", text)


def test_conclusion_is_for_people_only(recorded: Path) -> None:
    """The table ends with the conclusion also without a terminal; data has only rows."""
    table = tagsync("verify", cwd=recorded)
    assert re.search(r"^All \d checks passed: ", table.stdout, re.MULTILINE)
    assert table.stderr == ""
    for output_format in ("json", "jsonl", "csv"):
        finished = tagsync("verify", "--format", output_format, cwd=recorded)
        assert "passed" not in finished.stdout + finished.stderr
