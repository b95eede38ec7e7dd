"""The audit commands as an auditor runs them, also as a user who may only read."""

import csv
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, redirect_stdout
from datetime import timedelta
from pathlib import Path
from shutil import copytree, rmtree
from tempfile import mkdtemp

import pytest
import structlog

from tagsync import cli
from tagsync.audit.change_log import ChangeFilter
from tagsync.cli.log import FOLLOW_EVERY, follow
from tagsync.config.moments import parse_moment, parse_span
from tagsync.database.connection import Connection, reading
from tagsync.database.outcomes import Failed
from tagsync.database.state import RepositoryState
from tagsync.database.store import Store
from tagsync.emulator import Emulator
from tagsync.errors import StoreError, UnclearQuestion, Unreachable
from tagsync.models import Repository, Tag
from tagsync.polling.jobs import Job
from tests.support.clock import FakeClock
from tests.support.commands import (
    Finished,
    command,
    configure,
    contents,
    environment,
    error_line,
    events_named,
    events_of,
    rows_of,
    start,
    tagsync,
)
from tests.support.record import copy, query, record
from tests.support.registries import Scripted

UNSURE = ["certainty", "unsure_from", "unsure_until"]
COLUMNS = {
    "tags --at {then}": [
        *("repository", "tag", "digest", "image_id", "size", "updated", "changed_at", "present"),
        *UNSURE,
    ],
    "diff * --from {then}": [
        *("repository", "tag", "kind", "old_digest", "new_digest", "fields"),
        *UNSURE,
    ],
    "find {digest}": [
        *("query", "repository", "tag", "role", "digest", "platform"),
        *("not_before", "valid_from", "still_at", "valid_to"),
    ],
    "find {digest} --summary": ["query", "role", "tags_now", "tags_ever", "repositories"],
    "coverage": ["repository", "from", "to", "seconds", "state", "polls", "detail"],
    "coverage --summary": [
        *("repository", "from", "to", "seconds", "looking_seconds", "percent"),
        *("longest_gap_seconds", "longest_gap_from", "longest_gap_to"),
    ],
    "verify": ["check", "rows", "result", "detail"],
    "head": ["chain", "id", "hash"],
    "log --since 1h --kind updated --tag v*": [
        *("id", "observed_at", "not_before", "repository", "tag", "kind", "moved"),
        *("old_digest", "new_digest", "fields", "hash"),
    ],
}
NOBODY = 65534

# The unprivileged user may not read the sources, so import everything before dropping rights.
AS_NOBODY = f"""
import encodings.idna, encodings.utf_8_sig, importlib, os, sys, sqlite_utils
for name in ("coverage", "find", "head", "status", "tags", "verify"):
    importlib.import_module(f"tagsync.cli.{{name}}")
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid({NOBODY})
    os.setuid({NOBODY})
from tagsync.cli import main
main()
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration and a database: one tag moved, one was deleted."""
    folder = tmp_path_factory.mktemp("recorded")
    with Emulator() as swr:
        swr.push("team/api", "v1", "one")
        swr.push("team/api", "v2", "two")
        swr.push("team/web", "v1", "web")
        configure(folder, swr.url, "team/api", "team/web")
        assert tagsync("sync", cwd=folder).returncode == 0
        swr.push("team/api", "v1", "three")
        swr.delete("team/api", "v2")
        finished = tagsync("sync", cwd=folder)
    assert finished.returncode == 0, finished
    (folder / "log").write_text(finished.stderr)
    return folder


@pytest.fixture
def words(recorded: Path) -> dict[str, str]:
    """The values that the queries are filled with."""
    ((then, digest),) = query(
        recorded / "tagsync.db",
        "SELECT max(first_observed_at), (SELECT digest FROM images LIMIT 1) FROM repositories",
    )
    return {"then": then, "digest": digest}


def question(shape: str, words: dict[str, str]) -> list[str]:
    """Return the arguments of a query, filled with these values."""
    return [part.format(**words) for part in shape.split()]


def answer(arguments: Sequence[str], folder: Path) -> str:
    """Return the output of a command that succeeds, run in this process."""
    stream = io.StringIO()
    try:
        with redirect_stdout(stream):
            status = cli.tagsync.main(
                ["--config", str(folder / "config.toml"), *arguments], standalone_mode=False
            )
    finally:
        # The command configures logging for its process; the next tests must not see that.
        structlog.reset_defaults()
    assert not status
    return stream.getvalue()


@pytest.mark.parametrize("shape", COLUMNS)
def test_every_format_has_the_documented_columns(
    shape: str, recorded: Path, words: dict[str, str]
) -> None:
    """JSON, JSON lines and CSV have the same columns and rows; the table is for people."""
    texts = {
        output_format: answer([*question(shape, words), "--format", output_format], recorded)
        for output_format in ("table", "json", "jsonl", "csv")
    }
    rows = json.loads(texts["json"])
    assert rows
    assert all(list(row) == COLUMNS[shape] for row in rows)
    assert [json.loads(line) for line in texts["jsonl"].splitlines()] == rows
    cells = list(csv.reader(io.StringIO(texts["csv"])))
    assert cells[0] == COLUMNS[shape]
    assert len(cells) - 1 == len(rows)
    assert texts["table"]


@pytest.mark.processes
def test_logged_head_is_accepted_by_verify(recorded: Path) -> None:
    """The head that a pass logged is the one that verify computes and accepts."""
    lines = [json.loads(line) for line in (recorded / "log").read_text().splitlines()]
    (line,) = (line for line in lines if line["event"] == "pass.finished")
    assert (line["repositories"], line["updated"], line["deleted"]) == (2, 1, 1)
    rows = rows_of(tagsync("verify", "--head", line["head"], "--format", "json", cwd=recorded))
    assert {row["check"]: row["detail"] for row in rows}["chain"] == f"head {line['head']}"
    assert (line["change_id"],) == query(recorded / "tagsync.db", "SELECT max(id) FROM changes")[0]


@pytest.mark.processes
@pytest.mark.parametrize("alteration", [None, "UPDATE tags SET size = 7"])
def test_verify_records_nothing(recorded: Path, tmp_path: Path, alteration: str | None) -> None:
    """Run by a user who may write, verify adds no row to any table, also if it finds a fault."""
    path = copytree(recorded, tmp_path / "copy") / "tagsync.db"
    if alteration:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(alteration)
    before = numbers_of_rows(path)
    assert before["changes"] > 0
    assert os.access(path, os.W_OK)
    assert tagsync("verify", cwd=path.parent).returncode == (alteration is not None)
    assert numbers_of_rows(path) == before


def numbers_of_rows(path: Path) -> dict[str, int]:
    """Return how many rows each table of a database has. A search index has tables of its own."""
    tables = query(
        path,
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL %'",
    )
    return {name: query(path, f'SELECT count(*) FROM "{name}"')[0][0] for (name,) in tables}


@pytest.mark.processes
def test_heads_are_those_that_the_pass_logged(recorded: Path, tmp_path: Path) -> None:
    """The command head shows what a pass logged, and verify accepts both heads together."""
    folder = copytree(recorded, tmp_path / "copy")
    # No registry answers any more: the failed polls end the observations before them.
    finished = tagsync("sync", cwd=folder)
    assert finished.returncode == 1
    (line,) = events_named(events_of(finished), "pass.finished")
    rows = rows_of(tagsync("head", "--format", "json", cwd=folder))
    assert rows == [
        {"chain": "changes", "id": line["change_id"], "hash": line["head"]},
        {"chain": "observations", "id": line["ended"], "hash": line["observations_head"]},
    ]
    assert [row["id"] for row in rows] == [5, 2]
    given = [word for row in rows for word in ("--head", row["hash"].upper())]
    verified = tagsync("verify", *given, "--format", "json", cwd=folder)
    assert verified.returncode == 0
    assert {row["check"]: row["rows"] for row in rows_of(verified)}["heads"] == 2


@pytest.mark.processes
@pytest.mark.processes
def test_heads_fit_a_terminal(recorded: Path) -> None:
    """On 80 columns, the hash of each chain is below its name."""
    _, _, *lines = tagsync("head", cwd=recorded, COLUMNS="80").stdout.splitlines()
    hashes = [row["hash"] for row in rows_of(tagsync("head", "--format", "json", cwd=recorded))]
    assert [line.split()[0] for line in lines[::2]] == ["changes", "observations"]
    assert [line.strip() for line in lines[1::2]] == hashes


def test_dry_run_logs_no_head(tmp_path: Path) -> None:
    """A dry run records nothing, so it logs no head."""
    with Emulator() as swr:
        swr.push("team/api", "v1", "one")
        configure(tmp_path, swr.url, "team/api")
        finished = tagsync("sync", "--dry-run", cwd=tmp_path)
    assert events_named(events_of(finished), "pass.") == []


@pytest.mark.processes
def test_verification_fault_exits_with_1(recorded: Path, tmp_path: Path) -> None:
    """A wrong record or a missing head exits with 1 and keeps the columns."""
    unknown = tagsync("verify", "--head", "0" * 63 + "1", "--format", "json", cwd=recorded)
    assert unknown.returncode == 1
    assert {row["check"] for row in rows_of(unknown) if row["result"] == "fault"} == {"heads"}
    folder = copytree(recorded, tmp_path / "copy")
    query(folder / "tagsync.db", "PRAGMA journal_mode = DELETE")
    with closing(sqlite3.connect(folder / "tagsync.db")) as connection, connection:
        connection.execute("DELETE FROM tags")
    finished = tagsync("verify", cwd=folder)
    assert finished.returncode == 1
    assert "is missing in tags" in finished.stdout


@pytest.mark.processes
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["tags", "--at", "lately"], "invalid time 'lately': write it as 2026-05-03"),
        (["tags", "swr/team/api:v9"], "the tag 'v9' was never recorded in swr/team/api"),
        (["log", "--tag", "v9"], "the tag 'v9' was never recorded in 2 repositories"),
        (["diff", "*:v9", "--from", "1s"], "the tag 'v9' was never recorded"),
        (["log", "swr/team/api:"], "write REPOSITORY or REPOSITORY:TAG"),
        (["status", "*:v1"], "this command is about whole repositories"),
        (["coverage", "*:v1"], "this command is about whole repositories"),
        (["log", "--after", "-1"], "Invalid value for '--after'"),
        (["log", "-n", "0"], "Invalid value for '-n'"),
        (["log", "--follow", "--format", "csv"], "leave out --format csv"),
        (["log", "--follow", "-n", "5"], "--follow and -n exclude each other"),
        (["log", "--follow", "--until", "1s"], "--follow and --until exclude each other"),
        (["log", "--follow", "--format", "table"], "--follow prints JSON lines: leave out"),
        (["log", "--moved", "--kind", "added"], "--moved and --kind exclude each other"),
        (["sync", "swr/team/api:v1"], "this command is about whole repositories"),
        (["log", "--tag", "a", "--tag", "b"], "--tag can be given only once"),
        (["find"], "give at least one DIGEST, or --digests FILE"),
        (["find", "--digests", "nope"], "the list of digests nope cannot be read: No such file"),
        (["find", "abcdef", "--summary", "--current"], "--current and --summary exclude each"),
        (["coverage", "--summary", "--holes"], "--summary and --holes exclude each other"),
        (["coverage", "--longer-than", "5x"], "invalid duration '5x'"),
        (["diff", "*", "--from", "2999-01-01"], "is in the future, and the record ends now"),
        (["tags", "--at", ""], "invalid time ''"),
        (["tags", "--at"], "requires an argument: see tagsync tags --help"),
        (["log", "--since", ""], "invalid time ''"),
        (["coverage", "--until", ""], "invalid time ''"),
        (["diff", "*", "--from", ""], "invalid time ''"),
        (["tags", "--at", "2999-01-01"], "is in the future, and the record ends now"),
        (["tags", "team", "--at", "1s"], "no repository matches 'team': the nearest is swr/team"),
        (["log", "--since", "1d", "--until", "2d"], "'2d' is before '1d'"),
        (["log", "--since", "5x"], "invalid time '5x'"),
        (["coverage", "nope"], "'nope': tagsync status --all shows the names; a pattern is"),
        (["diff", "nope", "--from", "1s"], "no repository matches 'nope'"),
        (["diff", "--from", "1s"], "Missing argument 'PATTERN...'"),
        (["diff", "*"], "Missing option '--from'"),
        (["diff", "*", "--from", "1h", "--to", "2h"], "give the earlier time first"),
        (["find", "v1"], "invalid digest 'v1': write at least 6"),
        (["verify", "--head", "abc"], "invalid head 'abc': give the 64"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_invalid_query_is_one_sentence(arguments: list[str], sentence: str, recorded: Path) -> None:
    """An argument that cannot be understood exits with 2 and one helpful sentence."""
    assert sentence in error_line(tagsync(*arguments, cwd=recorded), 2)


def test_find_says_that_a_digest_is_unknown(recorded: Path) -> None:
    """An unknown digest has one row with its role, and the table explains it."""
    (row,) = json.loads(answer(["find", "0" * 64, "--format", "json"], recorded))
    assert (row["query"], row["role"]) == (f"sha256:{'0' * 64}", "unknown")
    assert {value for name, value in row.items() if name not in {"query", "role"}} == {None}
    assert "1 unknown: no recorded tag leads there" in answer(["find", "0" * 64], recorded)


def test_find_reads_a_list_of_digests(
    recorded: Path, words: dict[str, str], tmp_path: Path
) -> None:
    """A list has a whole digest on each line, and comments; a wrong line is named."""
    path = tmp_path / "incident.txt"
    path.write_text(f"# an incident\n\n  {words['digest'].upper()}  # ours\n{'0' * 64}\n")
    asked = ["find", "--digests", str(path), "--format", "json"]
    rows = json.loads(answer(asked, recorded))
    assert [row["query"] for row in rows] == [words["digest"], f"sha256:{'0' * 64}"]
    for line in ("abcdef", "sha256:xyz", f"{'0' * 64} {'1' * 64}"):
        path.write_text(f"{'0' * 64}\n{line}\n")
        with pytest.raises(UnclearQuestion, match=r"line 2 of .* is not a whole digest"):
            answer(asked, recorded)
    path.write_text("# nothing\n")
    with pytest.raises(UnclearQuestion, match="is empty"):
        answer(asked, recorded)
    path.write_bytes(b"\xff")
    with pytest.raises(UnclearQuestion, match="not text in UTF-8"):
        answer(asked, recorded)


def test_totals_of_find_do_not_depend_on_the_rows_shown(recorded: Path) -> None:
    """With --current, the totals still say that a tag once led to the digest."""
    ((gone,),) = query(
        recorded / "tagsync.db", "SELECT old_digest FROM changes WHERE kind = 'deleted'"
    )
    (total,) = answer(["find", gone, "--current"], recorded).splitlines()
    assert total == "0 tags now, 1 ever, for 1 digest"


@pytest.mark.processes
def test_find_reads_a_list_as_other_programs_write_it(
    recorded: Path, words: dict[str, str]
) -> None:
    """A list may come from standard input, with a byte order mark and ends of lines of Windows."""
    finished = subprocess.run(
        command("find", "--digests", "-", "--format", "json"),
        cwd=recorded,
        input=f"\ufeff{words['digest']}\r\n\r\n{words['digest'][7:]}\r\n".encode(),
        capture_output=True,
        env=environment(),
        timeout=60,
        check=True,
    )
    assert {row["query"] for row in json.loads(finished.stdout)} == {words["digest"]}


def test_table_of_the_log_sums_up_the_baseline(recorded: Path) -> None:
    """Only the table leaves the baseline out, and says so; an option decides for all."""
    table = answer(["log"], recorded)
    assert "the baseline of 3 tags in 2 repositories is left out" in table
    assert len(table.splitlines()) == 3
    assert len(answer(["log", "--baseline"], recorded).splitlines()) == 6
    assert len(json.loads(answer(["log", "--format", "json"], recorded))) == 5
    without = json.loads(answer(["log", "--no-baseline", "--format", "json"], recorded))
    assert [row["id"] for row in without] == [4, 5]
    assert "left out" not in answer(["log", "--no-baseline"], recorded)


def test_follow_yields_changes_as_they_are_recorded(recorded: Path, tmp_path: Path) -> None:
    """Each change is yielded once: those after an id, then new ones, without a busy loop."""
    folder = copytree(recorded, tmp_path / "copy")
    waits: list[float] = []
    database = folder / "tagsync.db"

    def wait(seconds: float) -> None:
        waits.append(seconds)
        clock = FakeClock()
        with Store.open(database) as store:
            job = Job(Repository("swr", "team/new"), Scripted(clock), timedelta(minutes=5))
            clock.advance(days=365 * len(waits))
            tags = {f"v{number}": Tag(f"v{number}") for number in range(len(waits))}
            record(store, job, clock, tags, {})

    rows = follow(database, (), ChangeFilter(after=3), wait)
    assert [next(rows)["id"] for _ in range(4)] == [4, 5, 6, 7]
    assert waits == [FOLLOW_EVERY] * 2
    later = follow(database, ("*/new",), ChangeFilter(), wait)
    assert next(later)["tag"] == "v2"


@pytest.mark.processes
def test_follow_ends_with_an_interrupt(recorded: Path) -> None:
    """`log --follow` prints JSON lines until it is interrupted, and exits with 0."""
    process = start("log", "--follow", "--after", "3", cwd=recorded)
    try:
        assert process.stdout is not None
        lines = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
        process.communicate()
    assert [line["id"] for line in lines] == [4, 5]
    assert (process.returncode, errors) == (0, "")


@pytest.mark.processes
def test_follow_ends_when_its_reader_does(recorded: Path) -> None:
    """If the other end of the pipe is closed, ``--follow`` ends without waiting for a change."""
    with start("log", "--follow", "--after", "4", cwd=recorded) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            process.stdout.readline()
            process.stdout.close()
            assert process.wait(timeout=20) == 1
            assert process.stderr.read() == ""
        finally:
            process.kill()


@pytest.mark.processes
@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ("find {digest} --exit-code", 0),
        ("find {current} --exit-code", 1),
        ("find {current} --exit-code --summary", 1),
        ("diff * --from {then} --exit-code", 1),
        ("diff * --from now --exit-code", 0),
        ("status --exit-code", 0),
    ],
)
def test_exit_code_tells_the_answer(
    arguments: str, status: int, recorded: Path, words: dict[str, str]
) -> None:
    """With --exit-code the status is 1 if a tag leads there, or something differs."""
    ((current,),) = query(
        recorded / "tagsync.db", "SELECT digest FROM tags ORDER BY digest LIMIT 1"
    )
    ((gone,),) = query(
        recorded / "tagsync.db",
        "SELECT old_digest FROM changes WHERE kind = 'deleted'",
    )
    filled = {**words, "current": current, "digest": gone}
    assert tagsync(*question(arguments, filled), cwd=recorded).returncode == status


@pytest.mark.processes
@pytest.mark.parametrize("name", ["find abcdef", "coverage", "verify", "tags --at 1s"])
def test_query_without_a_database_says_what_to_run(name: str, tmp_path: Path) -> None:
    """Without a database each query says what to run first, and creates none."""
    configure(tmp_path, "http://127.0.0.1:1", "a/b")
    before = contents(tmp_path)
    assert "run tagsync sync first" in error_line(tagsync(*name.split(), cwd=tmp_path), 1)
    assert contents(tmp_path) == before


@pytest.mark.processes
def test_empty_database_file_is_refused(tmp_path: Path) -> None:
    """An empty database file is refused and stays empty."""
    configure(tmp_path, "http://127.0.0.1:1", "a/b")
    (tmp_path / "tagsync.db").touch()
    assert "is empty: run tagsync sync first" in error_line(tagsync("verify", cwd=tmp_path), 1)
    assert (tmp_path / "tagsync.db").stat().st_size == 0


# --- a read-only user -----------------------------------------------------------------------------


@pytest.fixture
def readable(recorded: Path) -> Iterator[Path]:
    """A copy of the record that every user may read and only its owner may write."""
    folder = Path(mkdtemp(prefix="tagsync-readable-"))
    try:
        (folder / "config.toml").write_bytes((recorded / "config.toml").read_bytes())
        copy(recorded / "tagsync.db", folder / "tagsync.db")
        query(folder / "tagsync.db", "PRAGMA journal_mode = WAL")
        for path in folder.iterdir():
            path.chmod(0o444)
        folder.chmod(0o555)
        yield folder
    finally:
        folder.chmod(0o755)
        rmtree(folder)


def as_nobody(arguments: Sequence[str], folder: Path) -> Finished:
    """Run a command as a user without any permissions."""
    return subprocess.run(
        [sys.executable, "-c", AS_NOBODY, "--config", str(folder / "config.toml"), *arguments],
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.processes
@pytest.mark.parametrize("shape", ["tags --at {then}", "find {digest}", "verify"])
def test_read_only_user_can_query(
    shape: str, readable: Path, recorded: Path, words: dict[str, str]
) -> None:
    """A user who may only read gets the same answer, and no file is created."""
    asked = [*question(shape, words), "--format", "json"]
    before = contents(readable)
    finished = as_nobody(asked, readable)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert rows_of(finished) == json.loads(answer(asked, recorded))
    assert contents(readable) == before


@pytest.mark.processes
def test_read_only_user_can_query_beside_a_writer(readable: Path) -> None:
    """A reader sees what is committed, not what is pending, and does not wait."""
    database = readable / "tagsync.db"
    readable.chmod(0o755)
    database.chmod(0o644)
    with Store.open(database) as store:
        record_failure(store, "team/new")
        readable.chmod(0o555)

        def query_meanwhile(db: Connection) -> list[Finished]:
            db.execute("UPDATE repositories SET failures = 7")
            before = set(contents(readable))
            answers = [
                as_nobody([name, "--format", "json"], readable) for name in ("coverage", "verify")
            ]
            assert set(contents(readable)) == before
            return answers

        finished, verified = store._write(query_meanwhile)  # noqa: SLF001  a transaction that stays open
    assert {row["repository"] for row in rows_of(finished)} == {
        "swr/team/api",
        "swr/team/new",
        "swr/team/web",
    }
    assert {row["result"] for row in rows_of(verified)} == {"ok"}


@pytest.mark.processes
def test_leftovers_of_a_killed_writer_need_write_access(
    readable: Path, recorded: Path, tmp_path: Path
) -> None:
    """A WAL left by a killed writer needs a user who may write; the error says so."""
    copytree(recorded, tmp_path / "killed")
    written = tmp_path / "killed" / "tagsync.db"
    readable.chmod(0o755)
    with Store.open(written) as store:
        record_failure(store, "team/new")
        for ending in ("", "-wal"):
            left = readable / f"tagsync.db{ending}"
            left.unlink(missing_ok=True)
            left.write_bytes(Path(f"{written}{ending}").read_bytes())
    readable.chmod(0o555)
    assert "can write to its folder" in error_line(as_nobody(["verify"], readable), 1)
    readable.chmod(0o755)
    assert "team/new" in answer(["status", "--all"], readable)
    assert "team/new" in answer(["coverage"], readable)


@pytest.mark.parametrize("shape", COLUMNS)
def test_query_creates_no_file(
    shape: str, recorded: Path, tmp_path: Path, words: dict[str, str]
) -> None:
    """A query creates no file beside the database, even for a user who may write."""
    folder = copytree(recorded, tmp_path / "copy")
    before = contents(folder)
    assert answer(question(shape, words), folder)
    assert contents(folder) == before


def test_database_changed_during_a_read_is_an_error(recorded: Path, tmp_path: Path) -> None:
    """A query fails if the database was replaced or written to meanwhile."""
    folder = copytree(recorded, tmp_path / "copy")
    database = folder / "tagsync.db"

    def read_slowly() -> None:
        with reading(database) as db:
            assert db.execute("SELECT count(*) FROM repositories").fetchone() == (2,)
            with Store.open(database) as store:
                record_failure(store, "a/b")

    with pytest.raises(StoreError, match=r"was written to while it was read: try again"):
        read_slowly()


# --- moments -------------------------------------------------------------------------------------

NOW = FakeClock().now


def record_failure(store: Store, name: str) -> None:
    """Record a failed poll of a repository that was never polled."""
    outcome = Failed(Unreachable("down"), "2026-05-03T12:00:00.000Z")
    store.record(Repository("swr", name), outcome, RepositoryState(), timedelta(minutes=5))


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-05-03", "2026-05-03T00:00:00.000Z"),
        ("2026-05-03T11:30", "2026-05-03T11:30:00.000Z"),
        ("2026-05-03 11:30:05.25", "2026-05-03T11:30:05.250Z"),
        ("2026-05-03T11:30:05Z", "2026-05-03T11:30:05.000Z"),
        ("2026-05-03T11:30+02:00", "2026-05-03T09:30:00.000Z"),
        ("20260503T113000Z", "2026-05-03T11:30:00.000Z"),
        ("0001-01-01", "0001-01-01T00:00:00.000Z"),
        ("90s", "2026-05-03T11:58:30.000Z"),
        ("2h", "2026-05-03T10:00:00.000Z"),
        ("1d12h", "2026-05-02T00:00:00.000Z"),
        ("2w", "2026-04-19T12:00:00.000Z"),
        ("2026-05-03T12:00", "2026-05-03T12:00:00.000Z"),
        ("now", "2026-05-03T12:00:00.000Z"),
        ("today", "2026-05-03T00:00:00.000Z"),
        ("yesterday", "2026-05-02T00:00:00.000Z"),
    ],
)
def test_moment_is_parsed(text: str, moment: str) -> None:
    """ISO 8601 is UTC unless it has an offset, and an age counts back from now."""
    assert parse_moment(text, NOW) == moment


@pytest.mark.parametrize(
    "text",
    [
        *("", "3 May", "Now", "tomorrow", "2026-02-30", "03/05/2026", "2026-05-03T25:00"),
        *("2h ago", "-2h", "0s", "9999w", "99999999999d", "²h"),
        *("0001-01-01T00:00+14:00", "2026-05-03T12:00:00.001"),
    ],
)
def test_invalid_moment_is_refused(text: str) -> None:
    """A text that is neither a moment nor an age, or is in the future, is refused."""
    with pytest.raises(UnclearQuestion, match=r"invalid time|in the future"):
        parse_moment(text, NOW)


def test_span_may_be_open() -> None:
    """Either end of a span may be left out, and both ends may be equal."""
    assert parse_span(None, None, NOW) == (None, None)
    assert parse_span("1h", "1h", NOW) == ("2026-05-03T11:00:00.000Z",) * 2


def test_end_in_the_future_means_now() -> None:
    """Only the end of a span may be in the future."""
    assert parse_span("1h", "2999-01-01", NOW) == (
        "2026-05-03T11:00:00.000Z",
        "2026-05-03T12:00:00.000Z",
    )
    with pytest.raises(UnclearQuestion, match="in the future"):
        parse_span("2999-01-01", None, NOW)
