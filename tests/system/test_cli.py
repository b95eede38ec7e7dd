"""The command line: real processes against an emulated registry."""

import csv
import io
import json
import os
import re
import shlex
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread

import pytest

from tagsync.database.store import Store
from tagsync.emulator import Emulator
from tagsync.escaping import truncate
from tagsync.models import Repository
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
    run_command,
    start,
    tagsync,
)
from tests.support.record import copy, query
from tests.support.registries import poll_any_names

pytestmark = pytest.mark.processes

TOKEN = "made-up-token-that-nobody-may-see"
HOSTILE = (
    "\x1b[2J\x1b]0;title\x07",
    "a\n{}",
    "v1\u202egnp",
    "=cmd()",
)
SYNC_COLUMNS = ["repository", "outcome", "tags", "added", "updated", "deleted", "detail"]
TAGS_COLUMNS = ["repository", "tag", "digest", "image_id", "size", "updated", "changed_at"]
LOG_COLUMNS = [
    *("id", "observed_at", "not_before", "repository", "tag", "kind", "moved"),
    *("old_digest", "new_digest", "fields", "hash"),
]
STATUS_COLUMNS = [
    *("repository", "last_complete_at", "tags", "outcome", "failures", "last_error", "stale"),
    "distrust",
]
# --- demo ----------------------------------------------------------------------------------------


def test_demo_shows_each_kind_of_change(tmp_path: Path) -> None:
    """The demo works offline, shows each kind of change, and prints valid commands."""
    finished = tagsync("demo", cwd=tmp_path)
    assert finished.returncode == 0
    assert all(kind in finished.stdout for kind in ("added", "updated", "deleted"))
    assert [path.name for path in tmp_path.iterdir()] == ["tagsync-demo"]

    printed = re.findall(r"^  tagsync (.*)$", finished.stdout, re.MULTILINE)
    assert [line.split()[-1] for line in printed] == ["log", "tags", "status"]
    for line in printed:
        answer = tagsync(*shlex.split(line), cwd=tmp_path)
        assert answer.returncode == 0
        assert {"log": "demo/team-a/api:v1.1", "status": "3 repositories"}.get(
            line.split()[-1], "demo/namespace/busybox"
        ) in answer.stdout
        assert answer.stderr == ""


def test_demo_contains_the_vendors_example(tmp_path: Path) -> None:
    """The demo's database has the example of the vendor's API reference, unchanged."""
    assert tagsync("demo", "--directory", "here", cwd=tmp_path).returncode == 0
    rows = query(
        tmp_path / "here" / "tagsync.db",
        "SELECT tag, image_id, path, internal_path, size, updated, verified FROM current_tags"
        " WHERE repository = 'demo/namespace/busybox'",
    )
    assert rows == [
        (
            "latest",
            "741f24a795d6d93d7c6edd11780d63c13e16c39615dd9d223378a57a836f2ee6",
            "192.158.24.86/namespace/busybox:latest",
            "10.125.0.198:20202/namespace/busybox:latest",
            1304902,
            "2018-07-06T06:18:55Z",
            1,
        )
    ]


def test_second_demo_creates_a_second_folder(tmp_path: Path) -> None:
    """A demo never changes an earlier one, and refuses an existing --directory."""
    assert tagsync("demo", cwd=tmp_path).returncode == 0
    before = contents(tmp_path / "tagsync-demo")
    assert tagsync("demo", cwd=tmp_path).returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tagsync-demo", "tagsync-demo-2"]
    sentence = error_line(tagsync("demo", "--directory", "tagsync-demo", cwd=tmp_path), 2)
    assert "tagsync-demo exists already" in sentence
    assert contents(tmp_path / "tagsync-demo") == before


def test_demo_leaves_nothing_running(tmp_path: Path) -> None:
    """After the demo nothing listens at the address that it printed."""
    finished = tagsync("demo", cwd=tmp_path)
    match = re.search(r"http://127\.0\.0\.1:(\d+)", finished.stdout)
    assert match
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(match[1])), timeout=5).close()


# --- passes and exit status ----------------------------------------------------------------------


def test_pass_records_and_logs_each_change_once(swr: Emulator, tmp_path: Path) -> None:
    """A baseline is one log line; every later change is one line with its fields."""
    first = swr.push("team/api", "v1", "one")
    swr.push("team/api", "old", "old")
    swr.push("team/api", "same", "same")
    configure(tmp_path, swr.url, "team/api")
    baseline = tagsync("sync", "--format", "json", cwd=tmp_path)
    assert baseline.returncode == 0
    (row,) = rows_of(baseline)
    assert (row["outcome"], row["tags"], row["added"]) == ("ok", 3, 3)
    events = events_of(baseline)
    (baselined,) = events_named(events, "repository.baselined")
    assert (baselined["registry"], baselined["repository"]) == ("swr", "swr/team/api")
    assert baselined["tags"] == 3
    assert not events_named(events, "tag.")

    second = swr.push("team/api", "v1", "two")
    added = swr.push("team/api", "v2", "two")
    swr.set_fields("team/api", "same", is_trusted=True)
    swr.delete("team/api", "old")
    finished = tagsync("sync", "--format", "json", cwd=tmp_path)
    assert finished.returncode == 0
    (row,) = rows_of(finished)
    assert list(row) == SYNC_COLUMNS
    assert [row[name] for name in ("added", "updated", "deleted")] == [1, 2, 1]
    lines = {line["tag"]: line for line in events_named(events_of(finished), "tag.")}
    assert len(events_named(events_of(finished), "tag.")) == len(lines) == 4
    assert {tag: line["event"] for tag, line in lines.items()} == {
        "v1": "tag.updated",
        "v2": "tag.added",
        "same": "tag.updated",
        "old": "tag.deleted",
    }
    assert (lines["v1"]["old_digest"], lines["v1"]["new_digest"]) == (first, second)
    assert (lines["v2"]["old_digest"], lines["v2"]["new_digest"]) == (None, added)
    assert (lines["v1"]["moved"], lines["same"]["moved"]) == (True, False)
    for line in lines.values():
        assert (line["registry"], line["repository"]) == ("swr", "swr/team/api")
        assert line["not_before"] < line["observed_at"]
        recorded = query(
            tmp_path / "tagsync.db",
            "SELECT tag, not_before, observed_at, old_digest, new_digest FROM changes"
            f" WHERE id = {line['change_id']}",
        )
        keys = ("tag", "not_before", "observed_at", "old_digest", "new_digest")
        assert recorded == [tuple(line[key] for key in keys)]
    assert len(events_named(events_of(finished), "sync.finished")) == 1

    quiet = tagsync("sync", cwd=tmp_path)
    assert quiet.returncode == 0
    assert [event["event"] for event in events_of(quiet)] == ["pass.finished"]


def test_failed_repository_does_not_stop_the_others(swr: Emulator, tmp_path: Path) -> None:
    """If one repository fails, the pass exits with 1 and records the other."""
    swr.push("team/api", "v1", "one")
    configure(tmp_path, swr.url, "team/api", "team/missing")
    finished = tagsync("sync", "--format", "json", cwd=tmp_path)
    assert finished.returncode == 1
    assert [row["outcome"] for row in rows_of(finished)] == ["ok", "failed"]
    (failed,) = events_named(events_of(finished), "sync.failed")
    assert failed["repository"] == "swr/team/missing"
    assert failed["error"] == rows_of(finished)[1]["detail"]
    database = tmp_path / "tagsync.db"
    assert query(database, "SELECT repository, tag FROM current_tags") == [("swr/team/api", "v1")]


def held(swr: Emulator, folder: Path, more: str = "") -> Finished:
    """Empty a recorded repository in its registry, and run a pass."""
    for number in range(3):
        swr.push("team/api", f"v{number}", str(number))
    configure(folder, swr.url, "team/api", more=more)
    assert tagsync("sync", cwd=folder).returncode == 0
    for number in range(3):
        swr.delete("team/api", f"v{number}")
    return tagsync("sync", "--format", "json", cwd=folder)


def test_suspicious_deletion_is_held_until_accepted(swr: Emulator, tmp_path: Path) -> None:
    """An emptied repository exits with 3 and is recorded only once accepted."""
    finished = held(swr, tmp_path)
    assert finished.returncode == 3
    (row,) = rows_of(finished)
    assert (row["outcome"], row["deleted"]) == ("held", 0)
    assert "would delete 3 of 3 tags" in row["detail"]
    assert [line["event"] for line in events_of(finished)] == ["sync.held", "pass.finished"]
    database = tmp_path / "tagsync.db"
    assert query(database, "SELECT count(*) FROM tags") == [(3,)]
    accepted = tagsync("sync", "--accept-deletions", "--format", "json", cwd=tmp_path)
    assert (accepted.returncode, rows_of(accepted)[0]["deleted"]) == (0, 3)
    assert query(database, "SELECT count(*) FROM tags") == [(0,)]


def test_second_listing_that_agrees_is_recorded(swr: Emulator, tmp_path: Path) -> None:
    """A held deletion is recorded if the next listing agrees."""
    assert held(swr, tmp_path, "agree_after = 0").returncode == 3
    finished = tagsync("sync", "--format", "json", cwd=tmp_path)
    assert (finished.returncode, rows_of(finished)[0]["deleted"]) == (0, 3)
    assert len(events_named(events_of(finished), "tag.deleted")) == 3


def test_two_passes_within_one_outage_delete_nothing(swr: Emulator, tmp_path: Path) -> None:
    """A pass right after a held listing is too early to agree; one after `agree_after` is not."""
    first = held(swr, tmp_path, 'agree_after = "6s"')
    second = tagsync("sync", "--format", "json", cwd=tmp_path)
    (line,) = events_named(events_of(second), "sync.held")
    assert (first.returncode, second.returncode) == (3, 3)
    counts_from = datetime.fromisoformat(line["counts_from"])
    (row,) = rows_of(second)
    assert row["detail"] == line["detail"]
    assert "that says the same will be recorded" in row["detail"]
    assert query(tmp_path / "tagsync.db", "SELECT count(*) FROM tags") == [(3,)]
    time.sleep(max((counts_from - datetime.now(UTC)).total_seconds(), 0))
    third = tagsync("sync", "--format", "json", cwd=tmp_path)
    assert (third.returncode, rows_of(third)[0]["deleted"]) == (0, 3)


def test_failure_outweighs_a_held_listing(swr: Emulator, tmp_path: Path) -> None:
    """If one listing is held and another repository fails, the pass exits with 1."""
    assert held(swr, tmp_path).returncode == 3
    configure(tmp_path, swr.url, "team/api", "team/missing", more="agreeing_listings = 9")
    finished = tagsync("sync", "--format", "json", cwd=tmp_path)
    assert finished.returncode == 1
    assert [row["outcome"] for row in rows_of(finished)] == ["held", "failed"]


def test_dry_run_creates_no_database(swr: Emulator, tmp_path: Path) -> None:
    """A dry run shows what a first pass would record, and creates no database."""
    swr.push("team/api", "v1", "one")
    configure(tmp_path, swr.url, "team/api")
    before = contents(tmp_path)
    finished = tagsync("sync", "--dry-run", "--format", "json", cwd=tmp_path)
    assert (finished.returncode, rows_of(finished)[0]["added"]) == (0, 1)
    assert contents(tmp_path) == before


def test_dry_run_changes_no_byte(swr: Emulator, tmp_path: Path) -> None:
    """A dry run shows what a pass would record, and leaves the database unchanged."""
    swr.push("team/api", "v1", "one")
    configure(tmp_path, swr.url, "team/api")
    assert tagsync("sync", cwd=tmp_path).returncode == 0
    database = tmp_path / "tagsync.db"
    before = database.read_bytes()
    swr.push("team/api", "v1", "two")
    swr.push("team/api", "v2", "two")
    finished = tagsync("sync", "--dry-run", "--format", "json", cwd=tmp_path)
    (row,) = rows_of(finished)
    assert (finished.returncode, row["added"], row["updated"]) == (0, 1, 1)
    events = events_of(finished)
    assert [event["event"] for event in events] == ["sync.finished"]
    assert all(event["dry_run"] is True for event in events)
    assert database.read_bytes() == before
    log = tmp_path / "tagsync.db-wal"
    assert not log.exists() or log.stat().st_size == 0
    assert query(database, "SELECT sum(polls) FROM observations") == [(1,)]


# --- refused input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "named_in_it"),
    [
        (["sync", "--nope"], "--nope"),
        (["snyc"], "snyc"),
        (["--log-level", "loud", "sync"], "loud"),
        (["log", "--format", "xml"], "xml"),
        (["--config"], "--config"),
    ],
)
def test_invalid_command_line_is_refused(
    arguments: list[str], named_in_it: str, tmp_path: Path
) -> None:
    """An invalid command line exits with 2, names the mistake, and does nothing."""
    finished = tagsync(*arguments, cwd=tmp_path)
    assert (finished.returncode, finished.stdout) == (2, "")
    assert named_in_it in finished.stderr.splitlines()[-1]
    assert "Traceback" not in finished.stderr
    assert contents(tmp_path) == {}


def test_unknown_pattern_names_the_nearest_repository(swr: Emulator, tmp_path: Path) -> None:
    """A pattern without a match exits with 2 and names the nearest repository."""
    configure(tmp_path, swr.url, "team/api", "other/thing")
    before = contents(tmp_path)
    sentence = error_line(tagsync("sync", "swr/team/apx", cwd=tmp_path), 2)
    assert "'swr/team/apx'" in sentence
    assert "nearest is swr/team/api" in sentence
    assert contents(tmp_path) == before
    assert swr.requests == []


def test_missing_configuration_is_refused(tmp_path: Path) -> None:
    """A missing configuration file exits with 2 and is named as it was given."""
    sentence = error_line(tagsync("--config", "nope.toml", "sync", cwd=tmp_path), 2)
    assert "nope.toml cannot be read: No such file" in sentence
    sentence = error_line(tagsync("tags", cwd=tmp_path, TAGSYNC_CONFIG="gone.toml"), 2)
    assert "gone.toml" in sentence
    assert contents(tmp_path) == {}


def test_invalid_configuration_names_file_and_key(tmp_path: Path) -> None:
    """A mistake in the configuration exits with 2 and names file, key and near key."""
    path = configure(tmp_path, "http://127.0.0.1:1", "a/b", more="concurency = 1")
    before = contents(tmp_path)
    sentence = error_line(tagsync("sync", cwd=tmp_path), 2)
    assert path.name in sentence
    assert "'concurency'; the nearest is 'concurrency'" in sentence
    assert contents(tmp_path) == before


def test_configuration_without_repositories_is_refused(tmp_path: Path) -> None:
    """A pass without repositories is a configuration error, not a success."""
    (tmp_path / "config.toml").write_text("")
    before = contents(tmp_path)
    assert "no repository is configured" in error_line(tagsync("sync", cwd=tmp_path), 2)
    assert contents(tmp_path) == before


WITH_TOKEN = '[registries.auth]\nkind = "token"\ntoken = "env:SWR_TOKEN"'


def test_missing_secret_is_refused(swr: Emulator, tmp_path: Path) -> None:
    """A missing secret exits with 2 before any request is sent or file written."""
    configure(tmp_path, swr.url, "team/api", more=WITH_TOKEN)
    before = contents(tmp_path)
    sentence = error_line(tagsync("sync", cwd=tmp_path), 2)
    assert "env:SWR_TOKEN is missing" in sentence
    assert contents(tmp_path) == before
    assert swr.requests == []


@pytest.mark.parametrize("question", ["log", "tags", "status"])
def test_query_before_the_first_pass_says_what_to_run(question: str, tmp_path: Path) -> None:
    """Without a database a query says what to run first, and creates none."""
    configure(tmp_path, "http://127.0.0.1:1", "a/b")
    before = contents(tmp_path)
    assert "run tagsync sync first" in error_line(tagsync(question, cwd=tmp_path), 1)
    assert contents(tmp_path) == before


def foreign(database: Path) -> None:
    """Create the database of another program."""
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE notes (text)")
        connection.execute("INSERT INTO notes VALUES ('dear diary')")


@pytest.mark.parametrize(
    "arguments", [["sync"], ["sync", "--dry-run"], ["log"], ["tags"], ["status"]], ids=" ".join
)
def test_file_of_another_program_is_left_alone(
    arguments: list[str], swr: Emulator, tmp_path: Path
) -> None:
    """A database or text of another program is refused and not changed."""
    swr.push("team/api", "v1", "one")
    configure(tmp_path, swr.url, "team/api")
    database = tmp_path / "tagsync.db"
    foreign(database)
    before = contents(tmp_path)
    sentence = error_line(tagsync(*arguments, cwd=tmp_path), 1)
    assert "tagsync.db is a database of another program" in sentence
    assert contents(tmp_path) == before

    database.write_text("Dear diary, today I was not a database.\n" * 100)
    before = contents(tmp_path)
    assert "tagsync.db" in error_line(tagsync(*arguments, cwd=tmp_path), 1)
    assert contents(tmp_path) == before
    assert swr.requests == []


@pytest.mark.parametrize(
    "arguments", [["sync"], ["sync", "--dry-run"], ["log"], ["tags"], ["status"]], ids=" ".join
)
def test_database_of_a_newer_tagsync_is_left_alone(
    arguments: list[str], recorded: Path, tmp_path: Path
) -> None:
    """The database of a newer tagsync is refused with advice and not changed."""
    database = tmp_path / "tagsync.db"
    copy(recorded / "tagsync.db", database)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at)"
            " VALUES ('tagsync', 'of_tomorrow', '2030-01-01')"
        )
    configure(tmp_path, "http://127.0.0.1:1", "team/api")
    before = database.read_bytes()
    sentence = error_line(tagsync(*arguments, cwd=tmp_path), 1)
    assert "another tagsync, probably a newer one" in sentence
    assert "of_tomorrow" in sentence
    assert "upgrade" in sentence
    assert database.read_bytes() == before


# --- output --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration, a database, and the log of a pass that met hostile names."""
    folder = tmp_path_factory.mktemp("recorded")
    with Emulator() as emulator:
        emulator.push("team/api", "v1", "one")
        emulator.push("team/gone", "old", "old")
        emulator.push("team/gone", "kept", "kept")
        configure(folder, emulator.url, "team/api", "team/gone")
        assert tagsync("sync", cwd=folder).returncode == 0
        emulator.push("team/api", "v1", "two")
        emulator.delete("team/gone", "old")
        for name in HOSTILE:
            emulator.push("team/api", name, name)
        finished = tagsync("sync", cwd=folder)
    assert finished.returncode == 0, finished
    (folder / "stderr").write_text(finished.stderr)
    return folder


def record_names(folder: Path, *names: str) -> None:
    """Record a repository with tags of these names, which no registry's client lets through."""
    clock = FakeClock()
    with Store.open(folder / "tagsync.db") as store:
        poll_any_names(store, clock, Repository("swr", "team/odd"), dict.fromkeys(names, "odd"))


@pytest.mark.parametrize(
    ("question", "columns"),
    [("log", LOG_COLUMNS), ("tags", TAGS_COLUMNS), ("status", STATUS_COLUMNS)],
)
def test_every_format_has_the_same_columns(
    question: str, columns: list[str], recorded: Path
) -> None:
    """JSON, JSON lines and CSV have the documented columns and equal rows."""
    texts: dict[str, str] = {}
    for output_format in ("table", "json", "jsonl", "csv"):
        finished = tagsync(question, "--format", output_format, cwd=recorded)
        assert (finished.returncode, finished.stderr) == (0, "")
        texts[output_format] = finished.stdout
    rows = json.loads(texts["json"])
    assert all(list(row) == columns for row in rows)
    assert [json.loads(line) for line in texts["jsonl"].splitlines()] == rows
    cells = list(csv.DictReader(io.StringIO(texts["csv"])))
    assert all(list(row) == columns for row in cells)
    assert [row["repository"] for row in cells] == [row["repository"] for row in rows]
    assert texts["table"]
    assert {row["repository"] for row in rows} == {"swr/team/api", "swr/team/gone"}


def test_pass_has_the_same_columns_in_every_format(swr: Emulator, tmp_path: Path) -> None:
    """The row of a pass has the documented columns in every format of data."""
    swr.push("team/api", "v1", "one")
    configure(tmp_path, swr.url, "team/api")
    shown = {
        output_format: tagsync("sync", "--format", output_format, cwd=tmp_path).stdout
        for output_format in ("json", "jsonl", "csv")
    }
    assert [list(row) for row in json.loads(shown["json"])] == [SYNC_COLUMNS]
    assert list(json.loads(shown["jsonl"])) == SYNC_COLUMNS
    assert shown["csv"].splitlines()[0].split(",") == SYNC_COLUMNS


def test_dry_run_is_marked_in_every_format(swr: Emulator, tmp_path: Path) -> None:
    """The rows of a dry run have the columns of a pass, a mark, and the expected changes."""
    swr.push("team/api", "v1", "one")
    digest = swr.push("team/api", "v2", "two")
    configure(tmp_path, swr.url, "team/api")
    assert tagsync("sync", cwd=tmp_path).returncode == 0
    swr.delete("team/api", "v2")
    columns = [*SYNC_COLUMNS, "dry_run", "changes"]
    texts = {
        output_format: tagsync("sync", "--dry-run", "--format", output_format, cwd=tmp_path).stdout
        for output_format in ("json", "jsonl", "csv", "table")
    }
    (row,) = json.loads(texts["json"])
    assert list(row) == columns
    assert row["dry_run"] is True
    (change,) = row["changes"]
    assert change["fields"]["digest"] == [digest, None]
    assert change == {
        "fields": change["fields"],
        "tag": "v2",
        "kind": "deleted",
        "moved": False,
        "old_digest": digest,
        "new_digest": None,
    }
    assert json.loads(texts["jsonl"]) == row
    (cells,) = csv.DictReader(io.StringIO(texts["csv"]))
    assert (list(cells), cells["dry_run"]) == (columns, "yes")
    assert json.loads(cells["changes"]) == row["changes"]
    name, line, summary, remark = texts["table"].splitlines()
    assert name == "swr/team/api"
    assert line.split() == ["would", "delete", "v2", digest[7:19]]
    assert summary.startswith("dry run: 1 repository in ")
    assert summary.endswith(": 1 would change (-1 tags)")
    assert remark == "nothing was recorded, because this was a dry run"


def test_pattern_selects_repositories(recorded: Path) -> None:
    """A glob selects repositories by full name in every query."""
    for question in ("log", "tags", "status"):
        rows = rows_of(tagsync(question, "*/gone", "--format", "json", cwd=recorded))
        assert {row["repository"] for row in rows} == {"swr/team/gone"}
        assert "nearest is swr/team/gone" in error_line(
            tagsync(question, "swr/team/gon", cwd=recorded), 2
        )


def test_hostile_names_are_escaped_in_output(tmp_path: Path) -> None:
    """A tag's name cannot control a terminal, forge a line, or become a formula."""
    configure(tmp_path, "http://127.0.0.1:9", "team/odd")
    record_names(tmp_path, *HOSTILE)
    texts = {
        output_format: tagsync("tags", "--format", output_format, cwd=tmp_path).stdout
        for output_format in ("table", "csv", "json")
    }
    for text in texts.values():
        assert all(line.isprintable() for line in text.split("\n"))
    names = {row["tag"] for row in csv.DictReader(io.StringIO(texts["csv"]))}
    assert "'=cmd()" in names
    assert not any(name.startswith("=") for name in names)
    assert {row["tag"] for row in json.loads(texts["json"])} >= set(HOSTILE)


def test_hostile_names_are_escaped_in_the_log(recorded: Path) -> None:
    """A line about names that no tag can have is one line, and has them escaped."""
    lines = (recorded / "stderr").read_text().split("\n")
    assert lines.pop() == ""
    assert all(line.isascii() and line.isprintable() for line in lines)
    events = [json.loads(line) for line in lines]
    (skipped,) = events_named(events, "tag.skipped")
    assert skipped["count"] == len(HOSTILE)
    assert skipped["names"] == [truncate(name) for name in sorted(HOSTILE)]


def test_status_tells_missed_polls_from_failed_ones(swr: Emulator, tmp_path: Path) -> None:
    """Status advises to start the daemon only if no poll was attempted lately."""
    swr.push("team/api", "v1", "one")
    configure(tmp_path, swr.url, "team/api")
    assert tagsync("sync", cwd=tmp_path).returncode == 0
    fresh = tagsync("status", "--format", "json", cwd=tmp_path)
    assert (fresh.stderr, rows_of(fresh)[0]["stale"]) == ("", False)

    # Three intervals of 1 ms have passed already.
    config = tmp_path / "config.toml"
    config.write_text(f'[schedule]\ninterval = "1ms"\n{config.read_text()}')
    unwatched = tagsync("status", "--format", "json", cwd=tmp_path)
    assert rows_of(unwatched)[0]["stale"] is True
    last = rows_of(unwatched)[0]["last_complete_at"]
    assert unwatched.stderr.startswith(f"tagsync: no poll since {last}: start the daemon")

    # The last attempt is recent and failed: the registry is at fault, not the schedule.
    long_ago = "UPDATE repositories SET last_complete_at = '2020-01-01T00:00:00.000Z'"
    with closing(sqlite3.connect(tmp_path / "tagsync.db")) as connection, connection:
        connection.execute(long_ago)
    config.write_text(config.read_text().replace('"1ms"', '"5m"'))
    in_vain = tagsync("status", "--format", "json", cwd=tmp_path)
    assert (in_vain.stderr, rows_of(in_vain)[0]["stale"]) == ("", True)


@pytest.mark.parametrize("output_format", ["table", "csv", "json"])
def test_name_outside_the_encoding_is_escaped(
    output_format: str, swr: Emulator, tmp_path: Path
) -> None:
    """A character that the output encoding lacks is printed as an escape sequence."""
    configure(tmp_path, swr.url, "team/api")
    record_names(tmp_path, "версия-版本")
    finished = tagsync(
        "tags", "--format", output_format, cwd=tmp_path, PYTHONIOENCODING="iso-8859-1"
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    assert r"\u7248" in finished.stdout


@pytest.mark.parametrize(
    "name",
    ["", "coverage", "demo", "diff", "find", "log", "status", "sync", "tags", "verify"],
)
def test_help_shows_an_example(name: str, tmp_path: Path) -> None:
    """The help of tagsync and of each command shows an example to copy."""
    finished = tagsync(*name.split(), "--help", cwd=tmp_path)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert re.search(rf"Example:\n    ?  ?tagsync .*{name}", finished.stdout)


# --- secrets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 500])
def test_echoed_token_is_never_shown_or_stored(status: int, tmp_path: Path) -> None:
    """A token that the registry echoes in errors reaches no stream and no file."""
    echo = f"the token {TOKEN} is not welcome"
    error = {"errorCode": "SVCSTG.SWR.1", "errorMessage": echo, "detail": echo}
    bodies: list[object] = [{"errors": [error]}, echo]
    for body in bodies[: 1 if status == 500 else None]:
        with Emulator(token=TOKEN) as swr:
            configure(tmp_path, swr.url, "team/api", more=WITH_TOKEN)
            swr.answer_next(status, body, {"X-Echo": TOKEN}, times=100)
            finished = tagsync("--log-level", "debug", "sync", cwd=tmp_path, SWR_TOKEN=f"{TOKEN}\n")
        assert finished.returncode == 1, finished
        assert "sync.failed" in finished.stderr
        assert "Traceback" not in finished.stderr
        assert TOKEN not in finished.stdout + finished.stderr
    written = contents(tmp_path)
    assert str(tmp_path / "tagsync.db") in written
    assert not any(TOKEN.encode() in data for data in written.values())


# --- interrupts and concurrency ------------------------------------------------------------------


@pytest.fixture
def silent() -> Iterator[tuple[int, Event]]:
    """The port of a server that accepts and never answers, and an event per client."""
    came = Event()
    accepted: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    accepted.append(server.accept()[0])
                except OSError:
                    return
                came.set()

        thread = Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1], came
        server.shutdown(socket.SHUT_RDWR)
        thread.join(10)
    for connection in accepted:
        connection.close()


def test_interrupted_pass_ends_immediately(silent: tuple[int, Event], tmp_path: Path) -> None:
    """Control-C while a registry hangs exits with 130 and one sentence."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        pytest.skip("interrupts are ignored here, and so by every process that is started")
    port, came = silent
    configure(tmp_path, f"http://127.0.0.1:{port}", "team/api", "team/web")
    process = start("sync", cwd=tmp_path)
    try:
        assert came.wait(20)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, out) == (130, "")
    assert err.strip() == "tagsync: interrupted; everything that was recorded is intact"
    assert query(tmp_path / "tagsync.db", "PRAGMA integrity_check") == [("ok",)]


def test_closed_pipe_is_not_an_error(recorded: Path) -> None:
    """A pipe closed by its reader, such as ``head``, causes no error message."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        finished = subprocess.run(
            command("log"),
            cwd=recorded,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=subprocess.PIPE,
            timeout=30,
            check=False,
        )
    finally:
        os.close(writing)
    assert finished.stderr == b""


def test_concurrent_passes_record_everything_once(swr: Emulator, tmp_path: Path) -> None:
    """Two concurrent passes on a new database succeed and record nothing twice."""
    repositories = [f"team/repository-{number}" for number in range(8)]
    for repository in repositories:
        for tag in range(20):
            swr.push(repository, f"v{tag}", f"{repository} {tag}")
    configure(tmp_path, swr.url, *repositories)
    processes = [start("sync", cwd=tmp_path) for _ in range(2)]
    try:
        ends = [process.communicate(timeout=30) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert [process.returncode for process in processes] == [0, 0], ends
    database = tmp_path / "tagsync.db"
    assert query(database, "SELECT count(*) FROM tags") == [(160,)]
    assert query(
        database, "SELECT count(*), count(DISTINCT repository_id || tag) FROM changes"
    ) == [(160, 160)]
    lines = [json.loads(line) for _, err in ends for line in err.splitlines()]
    baselined = {event["repository"] for event in events_named(lines, "repository.baselined")}
    assert baselined == {f"swr/{repository}" for repository in repositories}


# --- terminals -----------------------------------------------------------------------------------


# --- storage problems -----------------------------------------------------------------------------


def test_missing_folder_is_refused(swr: Emulator, tmp_path: Path) -> None:
    """A database in a missing folder is refused in one sentence; none is created."""
    path = configure(tmp_path, swr.url, "team/api")
    path.write_text(path.read_text().replace("tagsync.db", "missing/tagsync.db"))
    before = contents(tmp_path)
    sentence = error_line(tagsync("sync", cwd=tmp_path), 1)
    assert "check that its folder exists" in sentence
    assert contents(tmp_path) == before


def test_file_size_limit_leaves_the_database_whole(swr: Emulator, tmp_path: Path) -> None:
    """If a write fails, the pass exits with 1 and the database stays usable."""
    swr.push("team/api", "v0", "zero")
    configure(tmp_path, swr.url, "team/api")
    assert tagsync("sync", cwd=tmp_path).returncode == 0
    for number in range(1, 400):
        swr.push("team/api", f"v{number}", str(number))
    database = tmp_path / "tagsync.db"
    limited = ["sh", "-c", 'ulimit -f 256; exec "$@"', "sh", *command("sync")]
    finished = run_command(limited, tmp_path)
    assert "tagsync.db" in error_line(finished, 1)
    assert query(database, "PRAGMA integrity_check") == [("ok",)]
    assert query(database, "SELECT count(*) FROM changes") == [(1,)]
    assert tagsync("sync", cwd=tmp_path).returncode == 0
    assert query(database, "SELECT count(*) FROM tags") == [(400,)]


def test_sync_writes_the_event_of_a_stale_repository(tmp_path: Path) -> None:
    """A pass that cannot list a repository reports once that its last listing is too old."""
    with Store.open(tmp_path / "tagsync.db") as store:
        poll_any_names(store, FakeClock(), Repository("swr", "team/api"), {"v1": "one"})
    configure(tmp_path, "http://127.0.0.1:9", "team/api")
    kinds = "SELECT kind FROM events WHERE kind <> 'baselined' ORDER BY id"
    assert tagsync("sync", "--dry-run", cwd=tmp_path).returncode == 1
    assert query(tmp_path / "tagsync.db", kinds) == []
    for _ in range(2):
        assert tagsync("sync", cwd=tmp_path).returncode == 1
        assert query(tmp_path / "tagsync.db", kinds) == [("failed",), ("stale",)]
