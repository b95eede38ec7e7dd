"""The command `report`: the file that it writes, its errors and its exit status."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from tagsync.cli.exit_status import FAILED, REFUSED
from tagsync.emulator import Emulator
from tagsync.report.content import Report
from tests.support.commands import configure, contents, error_line, run_on_terminal, tagsync
from tests.support.record import without_triggers

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the record of a tag that moved."""
    folder = tmp_path_factory.mktemp("report")
    with Emulator() as swr:
        configure(folder, swr.url, "team-a/api")
        for content in ("one", "two"):
            swr.push("team-a/api", "latest", content)
            assert tagsync("sync", cwd=folder).returncode == 0
        yield folder


def test_it_writes_a_file_and_says_which(recorded: Path) -> None:
    """The command prints the name of the file, which has the answer."""
    finished = tagsync("report", "swr/team-a/api:latest", "-o", "a.json", cwd=recorded)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "wrote a.json\n", "")
    report = msgspec.json.decode((recorded / "a.json").read_bytes(), type=Report)
    assert [(answer.tag, answer.moves) for answer in report.answers] == [("latest", 1)]
    assert report.proof is None


def test_verify_puts_its_rows_into_the_report(recorded: Path) -> None:
    """With `--verify`, the report has the rows of `tagsync verify`, and its last sentence."""
    tagsync("report", "swr/team-a/api", "--verify", "-o", "b.json", cwd=recorded)
    report = msgspec.json.decode((recorded / "b.json").read_bytes(), type=Report)
    verified = tagsync("verify", cwd=recorded, COLUMNS="1000").stdout.splitlines()
    assert report.proof is not None
    assert (report.proof.fault, report.proof.conclusion) == (False, verified[-1])
    checks = [line.split()[0] for line in verified[1:-1] if not line.startswith(" ")]
    assert [row.check for row in report.proof.checks] == checks


def test_verify_shows_its_progress_on_a_terminal(recorded: Path) -> None:
    """On a terminal, `--verify` shows which check runs, and erases that at the end."""
    status, written = run_on_terminal(
        *("report", "swr/team-a/api", "--verify", "-o", "c.html"), cwd=recorded
    )
    assert (status, "chain  0/" in written) == (0, True)
    assert written.endswith("wrote c.html\n")


def test_a_fault_fails_and_is_in_the_report(recorded: Path, tmp_path: Path) -> None:
    """A report on an altered record is written, says so first, and the exit status is 1."""
    for name, content in contents(recorded).items():
        (tmp_path / Path(name).name).write_bytes(content)
    with (
        closing(sqlite3.connect(tmp_path / "tagsync.db")) as connection,
        connection,
        without_triggers(connection),
    ):
        connection.execute("UPDATE changes SET observed_at = not_before WHERE id = 2")
    finished = tagsync("report", "*", "--verify", "-o", "d.md", cwd=tmp_path)
    assert (finished.returncode, finished.stdout) == (FAILED, "wrote d.md\n")
    _, _, second, *_ = (tmp_path / "d.md").read_text().splitlines()
    assert second.startswith("> **Fault:** Do not rely on this report. ")
    assert "chain" in second


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["swr/team-a/apo"], REFUSED, "the nearest is swr/team-a/api"),
        (["swr/team-a/api:latst"], REFUSED, "the nearest is latest"),
        (["*", "--from", "2999-01-01"], REFUSED, "is in the future"),
        (["*", "--to", "2999-01-01"], REFUSED, "is in the future"),
        (["*", "--from", "1s", "--to", "1h"], REFUSED, "give the earlier time first"),
        (["*", "-o", "x.pdf"], REFUSED, "end the name of the report with .html, .md or .json"),
        (["*", "-o", "gone/x.md"], FAILED, "gone/x.md cannot be used: No such file or directory"),
    ],
)
def test_each_error_is_one_sentence(
    arguments: list[str], status: int, message: str, recorded: Path
) -> None:
    """An error names what is wrong, and leaves no file."""
    before = contents(recorded)
    output = [] if "-o" in arguments else ["-o", "x.html"]
    assert message in error_line(tagsync("report", *arguments, *output, cwd=recorded), status)
    assert contents(recorded) == before
