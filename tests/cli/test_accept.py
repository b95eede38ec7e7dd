"""``tagsync accept``, and the alarms that ``log`` and ``status`` show until then."""

import json
import os
import pwd
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

from tagsync import cli
from tagsync.audit.change_log import ChangeFilter
from tagsync.cli.accept import LONGEST_REASON, describe_user
from tagsync.cli.exit_status import REFUSED, report
from tagsync.cli.log import follow
from tagsync.database.store import Store
from tagsync.errors import ConfigError, RefusedAcceptance, UnusableDatabase
from tagsync.models import Repository, Tag
from tagsync.polling.jobs import Job
from tests.support.clock import FakeClock
from tests.support.commands import configure
from tests.support.immutable import add_violation
from tests.support.record import query, record
from tests.support.registries import INTERVAL, REPOSITORY, Scripted

DIGESTS = [f"sha256:{digit * 64}" for digit in "12"]
OTHER = Repository("swr", "team/other")
ME = f"{pwd.getpwuid(os.getuid()).pw_name} (uid {os.getuid()})"

Run = Callable[..., Result]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A database in which the changes 11 to 20 moved the immutable tags v0 to v9."""
    configure(tmp_path, "http://127.0.0.1:9", REPOSITORY.name, OTHER.name)
    path, clock = tmp_path / "tagsync.db", FakeClock()
    with Store.open(path) as store:
        for digest in DIGESTS:
            tags = {name: Tag(name, digest) for name in (f"v{n}" for n in range(10))}
            record(store, Job(REPOSITORY, Scripted(clock), INTERVAL), clock, tags, {})
        record(store, Job(OTHER, Scripted(clock), INTERVAL), clock, {"v0": Tag("v0")}, {})
    for change in range(11, 21):
        add_violation(path, change, previous=DIGESTS[0])
    return path


@pytest.fixture
def run(database: Path) -> Run:
    """Run a command in this process."""

    def run(*words: object, **variables: str) -> Result:
        config = str(database.with_name("config.toml"))
        arguments = ["--config", config, *map(str, words)]
        environment = {"SUDO_USER": None, "COLUMNS": "200", **variables}
        return CliRunner(env=environment).invoke(cli.tagsync, arguments, standalone_mode=False)

    return run


def shown(run: Run, *words: object) -> list[int]:
    """Return the ids of the changes that ``log`` shows."""
    return [row["id"] for row in json.loads(run("log", *words, "--format", "json").output)]


def test_accepted_changes_leave_the_list(run: Run, database: Path) -> None:
    """The command accepts several changes once, says how many are open, and log shows the rest."""
    result = run("accept", 12, 14, 12, "--reason", " a rebuild: OPS-311 ")
    assert result.exception is None, result.output
    assert (
        result.output.splitlines()[-1]
        == "2 changes accepted; 8 still open: tagsync log --immutable"
    )
    assert [line.split()[0] for line in result.output.splitlines()[1:-1]] == ["12", "14"]
    assert query(database, "SELECT change_id, who, reason FROM acceptances") == [
        (12, ME, "a rebuild: OPS-311"),
        (14, ME, "a rebuild: OPS-311"),
    ]
    assert shown(run, "--immutable") == [11, 13, *range(15, 21)]
    assert shown(run, "--immutable", "--accepted") == list(range(11, 21))


def test_the_user_before_sudo_is_recorded(run: Run, database: Path) -> None:
    """The record names the user of the process, and the one that sudo says it was before."""
    assert run("accept", 11, "--reason", "x", SUDO_USER="alice\x1b[31m").exception is None
    ((who,),) = query(database, "SELECT who FROM acceptances")
    assert who == f"{ME}, through sudo by alice\\x1b[31m"
    assert describe_user(4_000_000_001, {}) == "uid 4000000001"


@pytest.mark.parametrize(
    ("reason", "problem"),
    [
        ("", "the reason is empty"),
        (" \n", "the reason is empty"),
        ("x" * (LONGEST_REASON + 1), "has 1,001 characters: give at most 1,000"),
        ("caf\udce9", "not valid UTF-8"),
    ],
)
def test_odd_reasons_are_refused(run: Run, database: Path, reason: str, problem: str) -> None:
    """A reason that is empty, too long or not text is refused, and nothing is recorded."""
    result = run("accept", 11, "--reason", reason)
    assert isinstance(result.exception, ConfigError)
    assert problem in str(result.exception)
    assert query(database, "SELECT count(*) FROM acceptances") == [(0,)]


@pytest.mark.parametrize("change", ["0", "-1", "v1", str(2**70)])
def test_what_is_no_id_is_refused(run: Run, change: str) -> None:
    """A text or number that cannot be the id of a change is refused as a command line."""
    result = run("accept", "--reason", "x", "--", change)
    assert isinstance(result.exception, click.UsageError)


def test_other_changes_are_refused_as_a_command_line(run: Run) -> None:
    """A change that cannot be accepted ends the command with the status of a wrong argument."""
    error = run("accept", 11, 99, "--reason", "x").exception
    assert isinstance(error, RefusedAcceptance)
    assert report(error) == REFUSED
    assert shown(run, "--immutable") == list(range(11, 21))


def test_missing_database_is_not_created(run: Run, database: Path) -> None:
    """The command refuses a database that is not there."""
    database.unlink()
    assert isinstance(run("accept", 1, "--reason", "x").exception, UnusableDatabase)
    assert not database.exists()


def test_the_table_has_the_ids_and_the_acceptances(run: Run) -> None:
    """The table shows the id to accept, the digests, and an acceptance in escaped characters."""
    run("accept", 11, "--reason", "fine\x1b[2J")
    first, *_, last = run("log", "--immutable", "--accepted", "-n", "10").output.splitlines()[1:]
    assert first.startswith("11  2026-05-03 12:00  swr/team/api:v0  moved  111111111111 → 2222")
    assert first.endswith(f"by {ME}: fine\\x1b[2J")
    assert last == (
        "10 changes of immutable tags: 10 moved, 1 accepted; tagsync accept ID --reason TEXT takes"
        " one off this list"
    )
    accepted = run("log", "--immutable", "swr/team/other").output
    assert accepted == "0 changes of immutable tags\n"


@pytest.mark.parametrize("output_format", ["json", "jsonl", "csv"])
def test_every_format_says_who_accepted(run: Run, output_format: str) -> None:
    """The formats of data have the columns of the log, and those of the acceptance after them."""
    run("accept", 11, "--reason", "a rebuild")
    words = ("log", "--immutable", "--accepted", "-n", 10, "--format", output_format)
    text = run(*words).output
    assert text.count("a rebuild") == 1
    assert text.count("immutable_moved") == 10
    assert text.index("hash") < text.index("violation") < text.index("accepted_by")


@pytest.mark.parametrize("option", ["-n", "--after"])
def test_numbers_that_no_database_can_count_are_refused(run: Run, option: str) -> None:
    """A number beyond SQLite's is a wrong command line, not a bug."""
    assert isinstance(run("log", option, 2**64).exception, click.UsageError)
    assert run("log", option, 2**62).exception is None


def test_accepted_needs_immutable(run: Run) -> None:
    """--accepted without --immutable is refused, because other changes have no acceptance."""
    assert isinstance(run("log", "--accepted").exception, click.UsageError)


def test_new_alarms_are_followed(database: Path) -> None:
    """--follow with --immutable yields the changes of immutable tags only, as they come."""
    found = follow(database, [], ChangeFilter(after=18, immutable="open"), lambda _: None)
    assert [next(found)["id"] for _ in range(2)] == [19, 20]


def test_ids_of_open_changes_are_completed(run: Run, database: Path) -> None:
    """The shell offers the open changes, the newest first, without those that are given."""
    run("accept", 13, "--reason", "x")
    shell = ShellComplete(cli.tagsync, {}, "tagsync", "_TAGSYNC_COMPLETE")
    words = ["--config", str(database.with_name("config.toml")), "accept", "19"]
    found = shell.get_completions(words, "1")
    assert [item.value for item in found] == ["18", "17", "16", "15", "14", "12", "11"]
    assert found[0].help == f"{REPOSITORY.full_name}:v7"


def test_status_begins_with_the_alarms(run: Run) -> None:
    """The newest open changes are above the table, bounded; other formats are as without them."""
    lines = run("status").output.splitlines()
    assert lines[0] == "10 changes of tags that must not move:"
    assert [line.split()[0] for line in lines[2:7]] == ["20", "19", "18", "17", "16"]
    assert lines[7].startswith("and 5 more: tagsync log --immutable; if one was intended: ")
    assert lines[9].startswith("registry")
    assert run("status", "*/other").output.startswith("registry")
    before = run("status", "--format", "csv").output
    run("accept", *range(11, 21), "--reason", "x")
    assert run("status", "--format", "csv").output == before
    assert run("status").output.startswith("registry")
