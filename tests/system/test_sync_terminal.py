"""``tagsync sync`` on a terminal: progress, the log, and what a person sees at the end."""

import os
import pty
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tagsync.emulator import Emulator
from tests.support.commands import (
    command,
    configure,
    contents,
    environment,
    events_of,
    read_terminal,
    rows_of,
    run_on_terminal,
    screen,
    tagsync,
)

pytestmark = pytest.mark.processes

COLUMNS = (80, 120)
MANY = 300


def fill(swr: Emulator, repositories: int, tags: int = 1) -> list[str]:
    """Push tags to many repositories, and return their names."""
    names = [f"team-{number % 7}/service-{number:03}" for number in range(repositories)]
    for name in names:
        for tag in range(tags):
            swr.push(name, f"v{tag}", f"{name} {tag}")
    return names


@pytest.fixture
def closed() -> Iterator[str]:
    """The address of a registry that cannot be reached."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize("columns", COLUMNS)
def test_first_pass_over_many_repositories(columns: int, swr: Emulator, tmp_path: Path) -> None:
    """A first pass shows progress, and then a few lines; a second one shows one line."""
    names = fill(swr, 60)
    configure(tmp_path, swr.url, *names)
    status, written = run_on_terminal("sync", cwd=tmp_path, columns=columns)
    assert status == 0
    drawn = re.findall(r"(\d+)/60  0 failed  0 moved", written)
    assert drawn == [str(number) for number in range(61)]
    listing, summary, end = screen(written)
    assert listing == "first listing of 60 repositories, with 60 tags (--all shows each)"
    assert re.fullmatch(r"60 repositories in \d+\.\d s: 60 changed \(\+60 tags\)", summary)
    assert end == ""

    status, written = run_on_terminal("sync", cwd=tmp_path, columns=columns)
    summary, end = screen(written)
    assert re.fullmatch(r"60 repositories in \d+\.\d s: no change", summary)
    assert end == ""


@pytest.mark.parametrize("columns", COLUMNS)
def test_pass_shows_what_changed_and_what_is_wrong(
    columns: int, swr: Emulator, tmp_path: Path
) -> None:
    """Changed, held and failed repositories are shown once, in the table."""
    names = fill(swr, 30, tags=3)
    configure(tmp_path, swr.url, *names, "team-0/absent")
    assert tagsync("sync", cwd=tmp_path).returncode == 1
    swr.push(names[3], "v1", "moved")
    for tag in range(3):
        swr.delete(names[9], f"v{tag}")
    status, written = run_on_terminal("sync", cwd=tmp_path, columns=columns)
    assert status == 1
    assert "31/31  1 failed  1 held  1 moved" in written
    result = screen(written)
    assert all(len(line) <= columns for line in result)
    for said in ("would delete 3 of 3 tags", "the repository does not exist"):
        assert " ".join(line.strip() for line in result).count(said) == 1
    assert result[0].split() == ["repository", "tags", "added", "updated", "deleted"]
    assert result[1].split() == [f"swr/{names[3]}", "3", "0", "1", "0"]
    assert result[2] == f"held  swr/{names[9]}"
    assert "failed  swr/team-0/absent" in result
    assert re.fullmatch(
        r"31 repositories in \d+\.\d s: 1 changed \(~1 tags, 1 moved\), 1 held, 1 failed",
        result[-2],
    )


@pytest.mark.parametrize("columns", COLUMNS)
def test_log_on_a_terminal_is_short(columns: int, swr: Emulator, tmp_path: Path) -> None:
    """What no table shows is logged in short lines, which do not tear the progress."""
    names = fill(swr, 5, tags=3)
    configure(tmp_path, swr.url, *names, "team-0/absent", "empty/*")
    assert tagsync("sync", cwd=tmp_path).returncode == 1
    for tag in range(3):
        swr.delete(names[3], f"v{tag}")
    status, written = run_on_terminal("sync", "--format", "csv", cwd=tmp_path, columns=columns)
    assert status == 1
    assert "6/6  1 failed  1 held  0 moved" in written
    lines = screen(written)
    log = lines[: lines.index("repository,outcome,tags,added,updated,deleted,detail")]
    assert all(len(line) <= columns for line in log)
    begins = [line for line in log if not line.startswith("  ")]
    assert sorted(re.sub(r"^\d\d:\d\d (\S+ \S+ [^:]+):?.*", r"\1", line) for line in begins) == [
        "error sync.failed swr/team-0/absent",
        "error watch.empty swr/empty/*",
        f"warning sync.held swr/{names[3]}",
    ]
    assert not re.search(r"requests|bytes|seconds|reasons", " ".join(log))


def test_without_a_result_the_log_says_why(swr: Emulator, tmp_path: Path) -> None:
    """If a pass ends with an error, the failures that the table would show are logged."""
    configure(tmp_path, swr.url, "team/*")
    swr.answer_next(500, b"", times=1000)
    status, written = run_on_terminal("sync", "nope", cwd=tmp_path)
    assert status == 2
    lines = screen(written)
    assert re.match(r"\d\d:\d\d error discovery.failed swr/team/\*:", lines[0])
    assert "no repository matches 'nope'" in written
    assert lines[-1] == ""


@pytest.mark.parametrize("columns", COLUMNS)
def test_unreachable_registry_is_one_line(
    columns: int, closed: str, swr: Emulator, tmp_path: Path
) -> None:
    """A registry of 300 repositories that cannot be reached takes a few lines, not 300."""
    names = fill(swr, MANY)
    configure(tmp_path, swr.url, "team-*/*", *names, more="concurrency = 32")
    assert tagsync("sync", cwd=tmp_path).returncode == 0
    configure(tmp_path, closed, "team-*/*", *names, more="concurrency = 32")
    status, written = run_on_terminal("sync", cwd=tmp_path, columns=columns)
    assert status == 1
    lines = screen(written)
    assert [line for line in lines if line.startswith("failed")] == [
        f"failed  swr ({MANY} repositories, 1 pattern)"
    ]
    assert "sync.failed" not in written
    assert len(lines) < 10
    assert f"{MANY}/{MANY}  {MANY} failed  0 moved" in written

    _, written = run_on_terminal("sync", "--format", "csv", cwd=tmp_path, columns=columns)
    assert written.count("sync.failed") == 1

    finished = tagsync("sync", "--format", "json", cwd=tmp_path)
    assert len(rows_of(finished)) == MANY + 1
    assert len([event for event in events_of(finished) if event["event"] == "sync.failed"]) == MANY


@pytest.mark.parametrize(
    ("options", "shown", "table", "progress"),
    [
        ((), {"warning", "error"}, set(), True),
        (("-v",), {"debug", "info", "warning", "error"}, None, True),
        (("--log-level", "info"), {"info", "warning", "error"}, None, True),
        (("--log-format", "console"), {"warning", "error"}, None, True),
        (("-q",), {"error"}, set(), False),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_options_choose_the_log_on_a_terminal(
    options: tuple[str, ...],
    shown: set[str],
    table: set[str] | None,
    progress: bool,
    swr: Emulator,
    tmp_path: Path,
) -> None:
    """A terminal shows warnings and errors that the table lacks; -v shows all, -q only errors.

    ``table`` are the levels beside a table, if they differ from those beside data.
    """
    names = fill(swr, 3, tags=3)
    configure(tmp_path, swr.url, *names, "team-0/absent")
    assert tagsync("sync", cwd=tmp_path).returncode == 1
    for tag in range(3):
        swr.delete(names[0], f"v{tag}")
    swr.push(names[1], "v9", "new")
    _, written = run_on_terminal(*options, "sync", "--dry-run", cwd=tmp_path)
    assert levels(written) == (shown if table is None else table)
    assert f"swr/{names[1]}" in written
    _, written = run_on_terminal(*options, "sync", "--format", "csv", cwd=tmp_path)
    assert levels(written) == shown
    assert ("4/4  1 failed" in written) is progress


def levels(written: str) -> set[str]:
    """Return the levels of the log lines on a terminal, whole and short ones."""
    form = re.compile(r"\d{4}-\S+ \[(\w+) *\]|\d\d:\d\d (\w+) ")
    matches = filter(None, map(form.match, screen(written)))
    return {match[1] or match[2] for match in matches}


def test_progress_goes_to_standard_error(swr: Emulator, tmp_path: Path) -> None:
    """On a terminal the table goes to stdout, and progress and log go to stderr."""
    swr.push("team/api", "v1", "one")
    configure(tmp_path, swr.url, "team/api")
    out, out_end = pty.openpty()
    err, err_end = pty.openpty()
    try:
        process = subprocess.Popen(
            command("-v", "sync"),
            cwd=tmp_path,
            env=environment(TERM="xterm-256color", COLUMNS="120"),
            stdin=out_end,
            stdout=out_end,
            stderr=err_end,
        )
        os.close(out_end)
        os.close(err_end)
        result, progress = read_terminal(out), read_terminal(err)
        assert process.wait(30) == 0
    finally:
        os.close(out)
        os.close(err)
    assert "swr/team/api" in result
    assert "1/1  0 failed  0 moved" in progress
    assert screen(progress.replace("\r\n", "\n"))[-1] == ""
    assert "repository.baselined" in progress
    assert not re.search(r"\x1b\[(\?25|\d*[AKJ])", result)
    assert "repository.baselined" not in result


def test_table_elsewhere_leaves_the_log_on_the_terminal(swr: Emulator, tmp_path: Path) -> None:
    """If the table goes to a file, the terminal shows the failures in its log."""
    configure(tmp_path, swr.url, "team/absent")
    err, err_end = pty.openpty()
    try:
        with (tmp_path / "result").open("wb") as result:
            variables = environment(TERM="xterm-256color", COLUMNS="80")
            process = subprocess.Popen(
                command("sync"), cwd=tmp_path, env=variables, stdout=result, stderr=err_end
            )
        os.close(err_end)
        shown = read_terminal(err)
        assert process.wait(30) == 1
    finally:
        os.close(err)
    assert "sync.failed swr/team/absent:" in shown
    assert "failed  swr/team/absent" in (tmp_path / "result").read_text()


def test_without_a_terminal_the_log_is_whole(swr: Emulator, tmp_path: Path) -> None:
    """Without a terminal there is no progress, and every event of level info is logged."""
    names = fill(swr, 20)
    configure(tmp_path, swr.url, *names)
    finished = tagsync("sync", cwd=tmp_path)
    events = [event["event"] for event in events_of(finished)]
    assert events.count("repository.baselined") == 20
    assert events[-1] == "pass.finished"
    assert "20/20" not in finished.stderr
    assert "\x1b" not in finished.stdout


@pytest.mark.parametrize("columns", COLUMNS)
def test_dry_run_on_a_terminal(columns: int, swr: Emulator, tmp_path: Path) -> None:
    """A dry run lists what would change, says that it is one, and changes no file."""
    names = fill(swr, 3, tags=3)
    configure(tmp_path, swr.url, *names)
    before = contents(tmp_path)
    status, written = run_on_terminal("sync", "--dry-run", cwd=tmp_path, columns=columns)
    assert status == 0
    assert contents(tmp_path) == before
    assert len(re.findall("would add", written)) == 9

    assert tagsync("sync", cwd=tmp_path).returncode == 0
    old = tagsync("tags", f"swr/{names[0]}", "--format", "jsonl", cwd=tmp_path).stdout
    database = (tmp_path / "tagsync.db").read_bytes()
    new = swr.push(names[0], "v0", "new")
    for tag in range(3):
        swr.delete(names[1], f"v{tag}")
    status, written = run_on_terminal("-v", "sync", "--dry-run", cwd=tmp_path, columns=columns)
    assert status == 3
    assert (tmp_path / "tagsync.db").read_bytes() == database
    lines = screen(written)
    log = [line for line in lines if re.match(r"\d{4}-\d\d-\d\dT", line)]
    assert "sync.held" in " ".join(log)
    assert all("dry_run=True" in line for line in log)
    assert "pass.finished" not in written
    (line,) = (line for line in lines if "would move" in line)
    assert line.split()[2:4] == ["v0", re.search(r"sha256:(.{12})", old)[1]]  # type: ignore[index]
    assert line.endswith(f"→ {new[7:19]}")
    assert f"held  swr/{names[1]}" in lines
    assert lines[-2] == "nothing was recorded, because this was a dry run"
