"""`tagsync.open`: the rows of the commands, as types, from Python."""

import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

import tagsync
from tagsync import cli
from tagsync.api import Record
from tagsync.clock import parse_timestamp
from tagsync.database.store import Store
from tagsync.errors import (
    DamagedRecord,
    TagsyncError,
    UnclearQuestion,
    UnknownRepository,
    UnknownTag,
    Unreachable,
    UnusableDatabase,
)
from tagsync.models import Repository, Tag
from tagsync.polling.jobs import Job
from tagsync.polling.poll import poll
from tests.support.audit import altered_copy, at
from tests.support.clock import FakeClock
from tests.support.commands import configure
from tests.support.immutable import add_acceptance, add_violation
from tests.support.record import query as select
from tests.support.registries import INTERVAL, Scripted

DIGESTS = {name: f"sha256:{name * 64}" for name in "abc"}
UNKNOWN = "0" * 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two repositories with a move, a deletion, an unresolved tag, a failure and a gap."""
    folder = tmp_path_factory.mktemp("api")
    configure(folder, "http://127.0.0.1:9", "team/api", "team/web")
    clock = FakeClock()
    with Store.open(folder / "tagsync.db") as store:
        for name in ("team/api", "team/web"):
            scripted = Scripted(clock)
            job = Job(Repository("swr", name), scripted, INTERVAL)
            a, b = (Tag("v1", DIGESTS[each], size=7) for each in "ab")
            for minute, tags in ((0, (a, Tag("v2"))), (5, (b,)), (10, None), (90, (b, Tag("v3")))):
                clock.now = FakeClock().now + timedelta(minutes=minute)
                if tags is None:
                    scripted.script.append(Unreachable("no connection"))
                else:
                    scripted.then(*tags)
                poll(job, store, clock=clock)
    moves = select(folder / "tagsync.db", "SELECT id, previous_digest FROM tag_moves")
    for change, previous in moves:
        add_violation(folder / "tagsync.db", change, previous=previous)
    add_acceptance(folder / "tagsync.db", moves[0][0])
    return folder


@pytest.fixture
def database(folder: Path) -> Path:
    return folder / "tagsync.db"


@pytest.fixture
def record(database: Path) -> Iterator[Record]:
    """The record, opened."""
    with tagsync.open(database) as record:
        yield record


def printed(folder: Path, line: str) -> list[dict[str, Any]]:
    """Return the rows that a command prints as JSON, run in this process."""
    stream = io.StringIO()
    arguments = ["--config", str(folder / "config.toml"), *line.split(), "--format", "json"]
    with redirect_stdout(stream):
        cli.tagsync.main(arguments, standalone_mode=False)
    rows: list[dict[str, Any]] = json.loads(stream.getvalue())
    return rows


MOMENT = parse_timestamp(at(3))
QUERIES: dict[str, Callable[[Record], Iterator[msgspec.Struct]]] = {
    "status": lambda record: record.status(interval=timedelta(minutes=5)),
    "tags": lambda record: record.tags(),
    "tags swr/team/api:v*": lambda record: record.tags("swr/team/api:v*"),
    f"tags --at {at(3)}": lambda record: record.tags(at=MOMENT),
    f"tags --at {at(40)}": lambda record: record.tags(at=at(40)),
    f"tags --at {at(-40)}": lambda record: record.tags(at=at(-40)),
    "log": lambda record: record.log(),
    f"log swr/*/api --since {at(4)} --until 2999-01-01 --kind updated --kind deleted": (
        lambda record: record.log(
            "swr/*/api", since=at(4), until="2999-01-01", kinds=["updated", "deleted"]
        )
    ),
    "log --tag v1 --moved --no-baseline --reverse -n 1 --after 1": lambda record: record.log(
        tag="v1", moved=True, baseline=False, reverse=True, newest=1, after=1
    ),
    f"diff * --from {at(3)}": lambda record: record.diff("*", start=MOMENT),
    f"diff * --from {at(-9)} --to {at(3)}": lambda record: record.diff(start=at(-9), end=at(3)),
    f"find {DIGESTS['a']} {UNKNOWN}": lambda record: record.find(DIGESTS["a"], UNKNOWN),
    f"find {DIGESTS['a']} --current": lambda record: record.find(DIGESTS["a"], current=True),
    "log --immutable": lambda record: record.immutable_changes(),
    f"log *:v1 --immutable --accepted --until {at(50)} -n 9 --reverse --after 1": (
        lambda record: record.immutable_changes(
            "*:v1", accepted=True, until=at(50), newest=9, reverse=True, after=1
        )
    ),
    f"find {DIGESTS['a']} {UNKNOWN} --summary": (
        lambda record: record.find(DIGESTS["a"], UNKNOWN, summary=True)
    ),
    "coverage": lambda record: record.coverage(),
    f"coverage *api --since {at(50)}": lambda record: record.coverage("*api", since=at(50)),
    "coverage --summary": lambda record: record.coverage(summary=True),
    f"coverage *api --since {at(2)} --until {at(50)} --summary": (
        lambda record: record.coverage("*api", since=at(2), until=at(50), summary=True)
    ),
    "verify": lambda record: record.verify(),
    "verify --head " + UNKNOWN: lambda record: record.verify(UNKNOWN),
    "head": lambda record: record.heads(),
}


@pytest.mark.parametrize("line", QUERIES)
def test_rows_are_those_of_the_command(line: str, folder: Path, record: Record) -> None:
    """Each method gives the rows that the command prints, as objects."""
    rows = list(QUERIES[line](record))
    assert all(isinstance(row, msgspec.Struct) for row in rows)
    assert json.loads(msgspec.json.encode(rows)) == printed(folder, line)
    assert rows or "--current" in line


def test_values_are_of_python(record: Record) -> None:
    """Booleans, numbers, objects and None are as the types say."""
    change = next(record.log(moved=True))
    assert (change.moved, change.old_digest, change.new_digest) == (
        True,
        DIGESTS["a"],
        DIGESTS["b"],
    )
    assert change.fields == {"digest": (DIGESTS["a"], DIGESTS["b"])}
    hole = [row for row in record.coverage("swr/team/api") if row.state == "hole"][-1]
    assert (hole.from_, hole.to, hole.seconds, hole.polls) == (at(10), at(90), 4800.0, 0)
    assert [row.stale for row in record.status()] == [None, None]


def test_errors_are_of_tagsync(record: Record, tmp_path: Path) -> None:
    """What a caller can get wrong is one sentence, when the method is called."""
    naive = datetime(2026, 5, 3)  # noqa: DTZ001  without a zone on purpose
    wrong: list[tuple[type[TagsyncError], Callable[[], object]]] = [
        (UnusableDatabase, lambda: tagsync.open(tmp_path / "missing.db")),
        (UnusableDatabase, lambda: tagsync.open(str(tmp_path))),
        (UnknownTag, lambda: record.tags("swr/team/api:missing")),
        (UnknownTag, lambda: record.log(tag="missing")),
        (UnclearQuestion, lambda: record.tags("swr/team/api:")),
        (UnclearQuestion, lambda: record.tags(at="yesterday")),
        (UnclearQuestion, lambda: record.tags(at="2999-01-01")),
        (UnclearQuestion, lambda: record.tags(at=naive)),
        (UnclearQuestion, lambda: record.log(since=at(5), until=at(3))),
        (UnclearQuestion, lambda: next(record.find("xyz"))),
        (UnclearQuestion, lambda: next(record.coverage("swr/team/api:v1"))),
        (UnknownRepository, lambda: next(record.coverage("missing"))),
        (UnknownRepository, lambda: next(record.diff("missing", start=at(0)))),
        (UnknownRepository, lambda: record.status("missing")),
    ]
    for kind, call in wrong:
        with pytest.raises(kind) as raised:
            call()
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE tags SET size = 'large'",
        "UPDATE tags SET updated = CAST(x'ff' AS TEXT)",
        "DROP VIEW current_tags",
    ],
)
def test_a_damaged_file_is_an_error_of_tagsync(edit: str, database: Path, tmp_path: Path) -> None:
    """Damage is reported as tagsync's error while the rows are read, with the file's path."""

    def alter(connection: Any) -> None:
        connection.execute(edit)

    altered = altered_copy(database, tmp_path / "altered.db", alter)
    kind = TagsyncError if "VIEW" in edit else DamagedRecord
    with tagsync.open(altered) as record, pytest.raises(kind, match=r"altered\.db"):
        list(record.tags())


def test_a_record_cannot_be_written(database: Path, record: Record) -> None:
    """Reading leaves the file as it was, and no other file beside it."""
    before = {path: path.read_bytes() for path in database.parent.iterdir()}
    for query in QUERIES.values():
        list(query(record))
    record.close()
    assert {path: path.read_bytes() for path in database.parent.iterdir()} == before


def test_a_closed_record_says_so(database: Path) -> None:
    """A record that was closed raises tagsync's error, and closing twice is fine."""
    record = tagsync.open(database)
    record.close()
    record.close()
    with pytest.raises(TagsyncError, match="closed"):
        list(record.log())


def test_import_is_quick() -> None:
    """`import tagsync` imports nothing else; the version is that of the package."""
    program = (
        "import sys; before = set(sys.modules); import tagsync\n"
        "print(sorted(set(sys.modules) - before - {'typing', 're'}))\n"
        "print(tagsync.__version__, callable(tagsync.open))"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30
    )
    imported, offered = finished.stdout.splitlines()
    assert not {"tagsync.api", "msgspec", "sqlite3", "click"} & set(imported.strip("[]").split("'"))
    assert offered == f"{tagsync.__version__} True"
    with pytest.raises(AttributeError, match="no attribute 'missing'"):
        tagsync.missing  # type: ignore[attr-defined]  # noqa: B018
