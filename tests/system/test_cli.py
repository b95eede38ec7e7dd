"""The command line as people and machines meet it: real processes against an emulated registry."""

import csv
import io
import json
import os
import pty
import re
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from threading import Event, Thread
from typing import Any

import click
import pytest

from tagsync import cli
from tagsync.emulator import Emulator

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
    *("id", "observed_at", "not_before", "repository", "tag", "kind"),
    *("old_digest", "new_digest", "fields"),
]
STATUS_COLUMNS = [
    *("repository", "last_complete_at", "tags", "outcome", "failures", "last_error", "stale"),
]
Finished = subprocess.CompletedProcess[str]


def environment(**variables: str) -> dict[str, str]:
    """What a process finds: nothing of tagsync's but what is given here."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {**kept, "LANG": "C.UTF-8", **variables}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "tagsync", *map(str, arguments)]


def to_its_end(arguments: list[str], cwd: Path, **variables: str) -> Finished:
    """Runs a command of any kind that leads to tagsync, off any terminal."""
    return subprocess.run(
        arguments,
        cwd=cwd,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def tagsync(*arguments: object, cwd: Path, **variables: str) -> Finished:
    """Runs tagsync to its end, off any terminal."""
    return to_its_end(command(*arguments), cwd, **variables)


def start(*arguments: object, cwd: Path, **variables: str) -> subprocess.Popen[str]:
    """Starts tagsync and goes on."""
    return subprocess.Popen(
        command(*arguments),
        cwd=cwd,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def configure(folder: Path, endpoint: str, *repositories: str, more: str = "") -> Path:
    """Writes a configuration of one registry, ``swr``, into the folder."""
    path = folder / "config.toml"
    path.write_text(
        '[store]\npath = "tagsync.db"\n'
        f'[[registries]]\nname = "swr"\nendpoint = "{endpoint}"\nretry_for = "100ms"\n{more}\n'
        f"[[registries.watch]]\nrepositories = {json.dumps(repositories)}\n"
    )
    return path


def rows_of(finished: Finished) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(finished.stdout)
    return rows


def events_of(finished: Finished) -> list[dict[str, Any]]:
    """The lines of the log, every one of which has to be JSON."""
    return [json.loads(line) for line in finished.stderr.splitlines()]


def named(events: Sequence[dict[str, Any]], prefix: str) -> list[dict[str, Any]]:
    return [event for event in events if event["event"].startswith(prefix)]


def query(database: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(sql).fetchall()


def copy(database: Path, to: Path) -> None:
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(to)) as target:
        source.backup(target)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below the folder, byte for byte."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def the_sentence(finished: Finished, status: int) -> str:
    """The one line that a refused command leaves, on standard error alone."""
    assert finished.returncode == status, finished
    assert finished.stdout == ""
    assert finished.stderr.endswith("\n")
    (line,) = finished.stderr.splitlines()
    assert line.startswith("tagsync: ")
    return line


@pytest.fixture
def swr() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


# --- the demonstration ---------------------------------------------------------------------------


def test_the_demo_shows_all_there_is_and_leaves_what_it_prints(tmp_path: Path) -> None:
    """The demo ends well offline, shows each kind of change, and its printed commands work."""
    finished = tagsync("demo", cwd=tmp_path)
    assert finished.returncode == 0
    assert all(kind in finished.stdout for kind in ("added", "updated", "deleted"))
    assert [path.name for path in tmp_path.iterdir()] == ["tagsync-demo"]

    printed = re.findall(r"^  tagsync (.*)$", finished.stdout, re.MULTILINE)
    assert [line.split()[-1] for line in printed] == ["log", "tags", "status"]
    for line in printed:
        answer = tagsync(*shlex.split(line), cwd=tmp_path)
        assert answer.returncode == 0
        assert "demo/namespace/busybox" in answer.stdout
        assert answer.stderr == ""


def test_the_demo_holds_the_vendors_example(tmp_path: Path) -> None:
    """The example of the vendor's reference is in the demo's database, to the letter."""
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


def test_a_second_demo_makes_a_second_folder(tmp_path: Path) -> None:
    """A demo never touches what an earlier one left, and refuses a named folder that exists."""
    assert tagsync("demo", cwd=tmp_path).returncode == 0
    before = contents(tmp_path / "tagsync-demo")
    assert tagsync("demo", cwd=tmp_path).returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tagsync-demo", "tagsync-demo-2"]
    sentence = the_sentence(tagsync("demo", "--directory", "tagsync-demo", cwd=tmp_path), 2)
    assert "tagsync-demo exists already" in sentence
    assert contents(tmp_path / "tagsync-demo") == before


def test_the_demo_leaves_nothing_running(tmp_path: Path) -> None:
    """After the demo nobody answers at the address that it printed."""
    finished = tagsync("demo", cwd=tmp_path)
    match = re.search(r"http://127\.0\.0\.1:(\d+)", finished.stdout)
    assert match
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(match[1])), timeout=5).close()


# --- a pass and its exit status ------------------------------------------------------------------


def test_a_pass_records_and_logs_each_change_once(swr: Emulator, tmp_path: Path) -> None:
    """A first listing is one line of the log; after it each change is exactly one, with fields."""
    first = swr.push("team/api", "v1", "one")
    swr.push("team/api", "old", "old")
    swr.push("team/api", "same", "same")
    configure(tmp_path, swr.url, "team/api")
    baseline = tagsync("sync", "--format", "json", cwd=tmp_path)
    assert baseline.returncode == 0
    (row,) = rows_of(baseline)
    assert (row["outcome"], row["tags"], row["added"]) == ("ok", 3, 3)
    events = events_of(baseline)
    (baselined,) = named(events, "repository.baselined")
    assert (baselined["registry"], baselined["repository"]) == ("swr", "swr/team/api")
    assert baselined["tags"] == 3
    assert not named(events, "tag.")

    second = swr.push("team/api", "v1", "two")
    added = swr.push("team/api", "v2", "two")
    swr.set_fields("team/api", "same", is_trusted=True)
    swr.delete("team/api", "old")
    finished = tagsync("sync", "--format", "json", cwd=tmp_path)
    assert finished.returncode == 0
    (row,) = rows_of(finished)
    assert list(row) == SYNC_COLUMNS
    assert [row[name] for name in ("added", "updated", "deleted")] == [1, 2, 1]
    lines = {line["tag"]: line for line in named(events_of(finished), "tag.")}
    assert len(named(events_of(finished), "tag.")) == len(lines) == 4
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
    assert len(named(events_of(finished), "sync.finished")) == 1

    quiet = tagsync("sync", cwd=tmp_path)
    assert quiet.returncode == 0
    assert [event["event"] for event in events_of(quiet)] == ["pass.finished"]


def test_a_failure_does_not_keep_the_others_back(swr: Emulator, tmp_path: Path) -> None:
    """When one repository fails the status is 1, and the other is recorded."""
    swr.push("team/api", "v1", "one")
    configure(tmp_path, swr.url, "team/api", "team/missing")
    finished = tagsync("sync", "--format", "json", cwd=tmp_path)
    assert finished.returncode == 1
    assert [row["outcome"] for row in rows_of(finished)] == ["ok", "failed"]
    (failed,) = named(events_of(finished), "sync.failed")
    assert failed["repository"] == "swr/team/missing"
    assert failed["error"] == rows_of(finished)[1]["detail"]
    database = tmp_path / "tagsync.db"
    assert query(database, "SELECT repository, tag FROM current_tags") == [("swr/team/api", "v1")]


def held(swr: Emulator, folder: Path) -> Finished:
    """Makes a registry forget every tag of a recorded repository, and polls it."""
    for number in range(3):
        swr.push("team/api", f"v{number}", str(number))
    configure(folder, swr.url, "team/api")
    assert tagsync("sync", cwd=folder).returncode == 0
    for number in range(3):
        swr.delete("team/api", f"v{number}")
    return tagsync("sync", "--format", "json", cwd=folder)


def test_a_listing_hard_to_believe_is_held_until_accepted(swr: Emulator, tmp_path: Path) -> None:
    """An emptied repository is status 3 and nothing recorded, until someone accepts it."""
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


def test_a_second_listing_that_agrees_is_believed(swr: Emulator, tmp_path: Path) -> None:
    """What was held is recorded when the next listing says the same."""
    assert held(swr, tmp_path).returncode == 3
    finished = tagsync("sync", "--format", "json", cwd=tmp_path)
    assert (finished.returncode, rows_of(finished)[0]["deleted"]) == (0, 3)
    assert len(named(events_of(finished), "tag.deleted")) == 3


def test_a_failure_outweighs_a_held_listing(swr: Emulator, tmp_path: Path) -> None:
    """When one listing is held and another repository fails, the status is 1."""
    assert held(swr, tmp_path).returncode == 3
    configure(tmp_path, swr.url, "team/api", "team/missing", more="agreeing_listings = 9")
    finished = tagsync("sync", "--format", "json", cwd=tmp_path)
    assert finished.returncode == 1
    assert [row["outcome"] for row in rows_of(finished)] == ["held", "failed"]


def test_a_dry_run_creates_nothing(swr: Emulator, tmp_path: Path) -> None:
    """A dry run tells what a first pass would record, and leaves no database."""
    swr.push("team/api", "v1", "one")
    configure(tmp_path, swr.url, "team/api")
    before = contents(tmp_path)
    finished = tagsync("sync", "--dry-run", "--format", "json", cwd=tmp_path)
    assert (finished.returncode, rows_of(finished)[0]["added"]) == (0, 1)
    assert contents(tmp_path) == before


def test_a_dry_run_changes_nothing(swr: Emulator, tmp_path: Path) -> None:
    """A dry run tells what the next pass would record, and leaves the database as it was."""
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
    assert not named(events_of(finished), "tag.")
    assert database.read_bytes() == before
    log = tmp_path / "tagsync.db-wal"
    assert not log.exists() or log.stat().st_size == 0
    assert query(database, "SELECT sum(polls) FROM observations") == [(1,)]


# --- what is refused -----------------------------------------------------------------------------


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
def test_a_wrong_command_line(arguments: list[str], named_in_it: str, tmp_path: Path) -> None:
    """What is not understood on the command line is status 2, named, and nothing is done."""
    finished = tagsync(*arguments, cwd=tmp_path)
    assert (finished.returncode, finished.stdout) == (2, "")
    assert named_in_it in finished.stderr.splitlines()[-1]
    assert "Traceback" not in finished.stderr
    assert contents(tmp_path) == {}


def test_an_unknown_pattern_names_the_nearest(swr: Emulator, tmp_path: Path) -> None:
    """A pattern that matches nothing is status 2, with the nearest repository, and no database."""
    configure(tmp_path, swr.url, "team/api", "other/thing")
    before = contents(tmp_path)
    sentence = the_sentence(tagsync("sync", "swr/team/apx", cwd=tmp_path), 2)
    assert "'swr/team/apx'" in sentence
    assert "nearest is swr/team/api" in sentence
    assert contents(tmp_path) == before
    assert swr.requests == []


def test_a_missing_configuration(tmp_path: Path) -> None:
    """A configuration that is not there is status 2, named as it was given."""
    sentence = the_sentence(tagsync("--config", "nope.toml", "sync", cwd=tmp_path), 2)
    assert "nope.toml cannot be read: No such file" in sentence
    sentence = the_sentence(tagsync("tags", cwd=tmp_path, TAGSYNC_CONFIG="gone.toml"), 2)
    assert "gone.toml" in sentence
    assert contents(tmp_path) == {}


def test_a_wrong_configuration(tmp_path: Path) -> None:
    """A mistake in the configuration is status 2, with file, key and the nearest key."""
    path = configure(tmp_path, "http://127.0.0.1:1", "a/b", more="concurency = 1")
    before = contents(tmp_path)
    sentence = the_sentence(tagsync("sync", cwd=tmp_path), 2)
    assert path.name in sentence
    assert "'concurency'; the nearest is 'concurrency'" in sentence
    assert contents(tmp_path) == before


def test_a_configuration_without_repositories(tmp_path: Path) -> None:
    """A pass over nothing is a mistake of the configuration, not a success."""
    (tmp_path / "config.toml").write_text("")
    before = contents(tmp_path)
    assert "no repository is configured" in the_sentence(tagsync("sync", cwd=tmp_path), 2)
    assert contents(tmp_path) == before


WITH_TOKEN = '[registries.auth]\nkind = "token"\ntoken = "env:SWR_TOKEN"'


def test_a_missing_secret(swr: Emulator, tmp_path: Path) -> None:
    """A secret that is not set is status 2, before anything is asked or written."""
    configure(tmp_path, swr.url, "team/api", more=WITH_TOKEN)
    before = contents(tmp_path)
    sentence = the_sentence(tagsync("sync", cwd=tmp_path), 2)
    assert "env:SWR_TOKEN is missing" in sentence
    assert contents(tmp_path) == before
    assert swr.requests == []


@pytest.mark.parametrize("question", ["log", "tags", "status"])
def test_a_question_before_the_first_pass(question: str, tmp_path: Path) -> None:
    """Without a database, a question says what to run first, and creates none."""
    configure(tmp_path, "http://127.0.0.1:1", "a/b")
    before = contents(tmp_path)
    assert "run tagsync sync first" in the_sentence(tagsync(question, cwd=tmp_path), 2)
    assert contents(tmp_path) == before


def foreign(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE notes (text)")
        connection.execute("INSERT INTO notes VALUES ('dear diary')")


@pytest.mark.parametrize(
    "arguments", [["sync"], ["sync", "--dry-run"], ["log"], ["tags"], ["status"]], ids=" ".join
)
def test_another_programs_file_is_left_alone(
    arguments: list[str], swr: Emulator, tmp_path: Path
) -> None:
    """Neither another program's database nor a text is taken for ours, or touched."""
    swr.push("team/api", "v1", "one")
    configure(tmp_path, swr.url, "team/api")
    database = tmp_path / "tagsync.db"
    foreign(database)
    before = contents(tmp_path)
    sentence = the_sentence(tagsync(*arguments, cwd=tmp_path), 2)
    assert "tagsync.db is a database of another program" in sentence
    assert contents(tmp_path) == before

    database.write_text("Dear diary, today I was not a database.\n" * 100)
    before = contents(tmp_path)
    assert "tagsync.db" in the_sentence(tagsync(*arguments, cwd=tmp_path), 2)
    assert contents(tmp_path) == before
    assert swr.requests == []


@pytest.mark.parametrize(
    "arguments", [["sync"], ["sync", "--dry-run"], ["log"], ["tags"], ["status"]], ids=" ".join
)
def test_a_newer_versions_database_is_left_alone(
    arguments: list[str], recorded: Path, tmp_path: Path
) -> None:
    """A database of a newer tagsync is refused with what to do, and its bytes stay."""
    database = tmp_path / "tagsync.db"
    copy(recorded / "tagsync.db", database)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at)"
            " VALUES ('tagsync', 'of_tomorrow', '2030-01-01')"
        )
    configure(tmp_path, "http://127.0.0.1:1", "team/api")
    before = database.read_bytes()
    sentence = the_sentence(tagsync(*arguments, cwd=tmp_path), 2)
    assert "newer tagsync" in sentence
    assert "of_tomorrow" in sentence
    assert "upgrade" in sentence
    assert database.read_bytes() == before


# --- what is shown -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration and a database of a few changes, hostile names among them."""
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


@pytest.mark.parametrize(
    ("question", "columns"),
    [("log", LOG_COLUMNS), ("tags", TAGS_COLUMNS), ("status", STATUS_COLUMNS)],
)
def test_each_format_has_the_same_columns(
    question: str, columns: list[str], recorded: Path
) -> None:
    """Table, JSON, JSON lines and CSV have the designed columns and the same rows."""
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
    header, *body = texts["table"].splitlines()
    assert header.split() == columns
    assert len(body) == len(rows)
    assert {row["repository"] for row in rows} == {"swr/team/api", "swr/team/gone"}


def test_a_pass_shows_the_same_columns_in_each_format(swr: Emulator, tmp_path: Path) -> None:
    """The row of a pass has the designed columns in every format."""
    swr.push("team/api", "v1", "one")
    configure(tmp_path, swr.url, "team/api")
    shown = {
        output_format: tagsync("sync", "--dry-run", "--format", output_format, cwd=tmp_path).stdout
        for output_format in ("table", "jsonl", "csv")
    }
    assert shown["table"].splitlines()[0].split() == SYNC_COLUMNS
    assert list(json.loads(shown["jsonl"])) == SYNC_COLUMNS
    assert shown["csv"].splitlines()[0].split(",") == SYNC_COLUMNS


def test_a_pattern_chooses(recorded: Path) -> None:
    """A glob chooses among full names, in every question."""
    for question in ("log", "tags", "status"):
        rows = rows_of(tagsync(question, "*/gone", "--format", "json", cwd=recorded))
        assert {row["repository"] for row in rows} == {"swr/team/gone"}
        assert "nearest" in the_sentence(tagsync(question, "swr/nope", cwd=recorded), 2)


def test_hostile_names_are_harmless_wherever_they_are_shown(recorded: Path) -> None:
    """A tag's name neither steers a terminal, nor forges a line, nor becomes a formula."""
    texts = {
        output_format: tagsync("tags", "--format", output_format, cwd=recorded).stdout
        for output_format in ("table", "csv", "json")
    }
    for text in texts.values():
        assert all(line.isprintable() for line in text.split("\n"))
    names = {row["tag"] for row in csv.DictReader(io.StringIO(texts["csv"]))}
    assert "'=cmd()" in names
    assert not any(name.startswith("=") for name in names)
    assert {row["tag"] for row in json.loads(texts["json"])} >= set(HOSTILE)


def test_hostile_names_are_harmless_in_the_log(recorded: Path) -> None:
    """Each line of the log is still one change, with the name as the registry has it."""
    lines = (recorded / "stderr").read_text().split("\n")
    assert lines.pop() == ""
    assert all(line.isascii() and line.isprintable() for line in lines)
    events = [json.loads(line) for line in lines]
    assert {event["tag"] for event in named(events, "tag.added")} == set(HOSTILE)


def test_status_says_when_nobody_has_been_looking(swr: Emulator, tmp_path: Path) -> None:
    """Staleness for want of anybody who looks is told from that of a registry asked in vain."""
    swr.push("team/api", "v1", "one")
    configure(tmp_path, swr.url, "team/api")
    assert tagsync("sync", cwd=tmp_path).returncode == 0
    fresh = tagsync("status", "--format", "json", cwd=tmp_path)
    assert (fresh.stderr, rows_of(fresh)[0]["stale"]) == ("", False)

    # An interval that is over three times at once.
    config = tmp_path / "config.toml"
    config.write_text(f'[schedule]\ninterval = "1ms"\n{config.read_text()}')
    unwatched = tagsync("status", "--format", "json", cwd=tmp_path)
    assert rows_of(unwatched)[0]["stale"] is True
    last = rows_of(unwatched)[0]["last_complete_at"]
    assert unwatched.stderr.startswith(f"tagsync: no poll since {last}: start the daemon")

    # Looked at a moment ago, and in vain: the registry's fault, and nobody else's.
    long_ago = "UPDATE repositories SET last_complete_at = '2020-01-01T00:00:00.000Z'"
    with closing(sqlite3.connect(tmp_path / "tagsync.db")) as connection, connection:
        connection.execute(long_ago)
    config.write_text(config.read_text().replace('"1ms"', '"5m"'))
    in_vain = tagsync("status", "--format", "json", cwd=tmp_path)
    assert (in_vain.stderr, rows_of(in_vain)[0]["stale"]) == ("", True)


@pytest.mark.parametrize("output_format", ["table", "csv", "json"])
def test_a_name_that_the_terminal_cannot_show_is_written_out(
    output_format: str, swr: Emulator, tmp_path: Path
) -> None:
    """Where the encoding has no such letter the command ends well all the same."""
    swr.push("team/api", "версия-版本", "one")
    configure(tmp_path, swr.url, "team/api")
    assert tagsync("sync", cwd=tmp_path).returncode == 0
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
    """Help of the whole and of each command ends well and shows a command to copy."""
    finished = tagsync(*name.split(), "--help", cwd=tmp_path)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert re.search(rf"Example:\n    ?  ?tagsync .*{name}", finished.stdout)


# --- secrets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 500])
def test_no_secret_leaves_the_process(status: int, tmp_path: Path) -> None:
    """A token that the registry repeats in its errors is on no stream, and not in the database."""
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


# --- interruptions and neighbours ----------------------------------------------------------------


@pytest.fixture
def silent() -> Iterator[tuple[int, Event]]:
    """A server that accepts and never answers: its port, and an event that someone came."""
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


def test_an_interrupted_pass_ends_at_once(silent: tuple[int, Event], tmp_path: Path) -> None:
    """Control-C while a registry hangs ends with status 130 and one sentence, within seconds."""
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


def test_who_reads_may_stop_reading(recorded: Path) -> None:
    """A pipe that is closed at the other end, as by ``head``, gives no complaint."""
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


def test_two_passes_at_once_record_everything_once(swr: Emulator, tmp_path: Path) -> None:
    """Two processes that begin on a new database both succeed, and nothing is recorded twice."""
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
    baselined = {event["repository"] for event in named(lines, "repository.baselined")}
    assert baselined == {f"swr/{repository}" for repository in repositories}


# --- a terminal ----------------------------------------------------------------------------------


def read_terminal(descriptor: int) -> str:
    """All that was written to a pseudo-terminal whose other end is closed."""
    parts: list[bytes] = []
    while True:
        try:
            part = os.read(descriptor, 65536)
        except OSError:  # Linux's way to say that the other end is closed
            part = b""
        if not part:
            return b"".join(parts).decode()
        parts.append(part)


def test_on_a_terminal_progress_stays_off_the_result(swr: Emulator, tmp_path: Path) -> None:
    """The table goes to standard output, progress and the log to standard error."""
    swr.push("team/api", "v1", "one")
    configure(tmp_path, swr.url, "team/api")
    out, out_end = pty.openpty()
    err, err_end = pty.openpty()
    try:
        process = subprocess.Popen(
            command("sync"),
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
    assert "\x1b[?25l" in progress
    assert "\x1b[2K" in progress
    assert "repository.baselined" in progress
    assert not re.search(r"\x1b\[(\?25|\d*[AKJ])", result)
    assert "repository.baselined" not in result


# --- a disk that does not do as told -------------------------------------------------------------


def test_a_folder_that_is_not_there(swr: Emulator, tmp_path: Path) -> None:
    """A database in a folder that does not exist is refused in one sentence, and not created."""
    path = configure(tmp_path, swr.url, "team/api")
    path.write_text(path.read_text().replace("tagsync.db", "missing/tagsync.db"))
    before = contents(tmp_path)
    sentence = the_sentence(tagsync("sync", cwd=tmp_path), 2)
    assert "check that its folder exists" in sentence
    assert contents(tmp_path) == before


def test_a_full_disk_leaves_the_database_whole(swr: Emulator, tmp_path: Path) -> None:
    """When no more can be written the status is 1, and the database is as it was, and usable."""
    swr.push("team/api", "v0", "zero")
    configure(tmp_path, swr.url, "team/api")
    assert tagsync("sync", cwd=tmp_path).returncode == 0
    for number in range(1, 400):
        swr.push("team/api", f"v{number}", str(number))
    database = tmp_path / "tagsync.db"
    limited = ["sh", "-c", 'ulimit -f 256; exec "$@"', "sh", *command("sync")]
    finished = to_its_end(limited, tmp_path)
    assert "tagsync.db" in the_sentence(finished, 1)
    assert query(database, "PRAGMA integrity_check") == [("ok",)]
    assert query(database, "SELECT count(*) FROM changes") == [(1,)]
    assert tagsync("sync", cwd=tmp_path).returncode == 0
    assert query(database, "SELECT count(*) FROM tags") == [(400,)]


def test_the_list_of_commands_says_what_each_says_of_itself() -> None:
    """The help of the group, which imports no command, is the first sentence of each command's."""
    context = click.Context(cli.tagsync)
    for name, sentence in cli._COMMANDS.items():  # noqa: SLF001  what the group's own help prints
        command = cli.tagsync.get_command(context, name)
        assert command is not None
        assert command.get_short_help_str(limit=200) == sentence
