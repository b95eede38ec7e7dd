"""Damaged database files: a clear error or a right answer, never a wrong row."""

import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from tagsync.audit.queries import Audit
from tagsync.database.store import Store
from tagsync.errors import StoreError, TagsyncError
from tagsync.manifests import digest_of
from tagsync.models import Image, Repository, Tag, Watch
from tagsync.polling.jobs import Job, Poll
from tagsync.polling.poll import poll
from tests.support.clock import FakeClock
from tests.support.commands import configure, error_line, tagsync
from tests.support.record import without_triggers
from tests.support.registries import Scripted

pytestmark = pytest.mark.processes

NAMES = ("team/api", "team/web", "other/thing")
PLACES = ("header", "page head", "cell pointers", "content", "anywhere")
PAGE = 4096

Row = tuple[Any, ...]


def tags_of(name: str, numbers: range, version: int = 0) -> dict[str, Tag]:
    """Return tags of a repository, with digests as long as real ones."""
    return {
        f"v{number}": Tag(
            f"v{number}",
            digest_of(f"{name} {number} {version}".encode()),
            size=number * 1000,
            is_trusted=bool(number % 2),
            updated="2026-05-03T11:00:00Z",
        )
        for number in numbers
    }


def poll_tags(name: str, tags: dict[str, Tag], store: Store, clock: FakeClock) -> Poll:
    """Poll these tags as a complete listing."""
    scripted = Scripted(clock)
    scripted.then(*tags.values())
    listing = scripted.script[0]
    images = {tag.digest: Image(tag.digest) for tag in tags.values() if tag.digest}
    scripted.script[0] = msgspec.structs.replace(listing, images=images)  # type: ignore[type-var]
    job = Job(Repository("swr", name), scripted, timedelta(minutes=5))
    return poll(job, store, clock=clock)


def poll_again(store: Store, clock: FakeClock) -> Iterator[str]:
    """Poll each repository, where one tag moved, one was added and one was deleted."""
    clock.advance(minutes=5)
    for name in NAMES:
        tags = tags_of(name, range(1, 61)) | tags_of(name, range(7, 8), version=1)
        try:
            yield poll_tags(name, tags, store, clock).outcome
        except StoreError as error:
            assert str(error).isprintable()  # noqa: PT017  any of our errors is right
            yield "refused"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database whose tables have interior pages, and which has free pages."""
    path = tmp_path_factory.mktemp("original") / "tagsync.db"
    clock = FakeClock()
    with Store.open(path) as store:
        for numbers in (range(40), range(60), range(30, 60), range(60)):
            for name in NAMES:
                assert poll_tags(name, tags_of(name, numbers), store, clock).outcome == "ok"
            clock.advance(minutes=5)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("CREATE TABLE leaves_free_pages (x)")
        connection.execute("INSERT INTO leaves_free_pages VALUES (zeroblob(20000))")
        connection.execute("DROP TABLE leaves_free_pages")
        connection.commit()
        assert connection.execute("PRAGMA freelist_count").fetchone()[0] > 2
    return path


@pytest.fixture(scope="module")
def expected(original: Path, tmp_path_factory: pytest.TempPathFactory) -> set[Row]:
    """The changes that the next poll of each repository records in an intact file."""
    path = tmp_path_factory.mktemp("expected") / "tagsync.db"
    shutil.copy(original, path)
    clock = FakeClock()
    clock.advance(minutes=20)
    with Store.open(path) as store:
        assert list(poll_again(store, clock)) == ["ok"] * 3
    return changes_in(path) - changes_in(original)


def changes_in(path: Path) -> set[Row]:
    """Return all changes without their ids, times and hashes."""
    with closing(sqlite3.connect(path)) as connection:
        return set(
            connection.execute(
                "SELECT repository_id, tag, kind, old_digest, new_digest, fields FROM changes"
            )
        )


def damage(path: Path, place: str, random: Random) -> None:
    """Flip bits in a few bytes of one page, at the given place."""
    content = bytearray(path.read_bytes())
    page = random.randrange(len(content) // PAGE) * PAGE
    where = {
        "header": range(100),
        "page head": range(page, page + 12),
        "cell pointers": range(page + 8, page + 200),
        "content": range(page + 200, page + PAGE),
        "anywhere": range(len(content)),
    }[place]
    for _ in range(random.choice((1, 1, 4))):
        content[random.choice(where)] ^= random.choice((1, 2, 4, 8, 16, 32, 64, 128, 255))
    path.write_bytes(content)


QUESTIONS: tuple[Callable[[Audit, FakeClock], object], ...] = (
    lambda audit, clock: audit.status(
        {Repository("swr", name): Watch("swr", (name,)) for name in NAMES}, clock.now
    ),
    lambda audit, _: list(audit.tags(())),
    lambda audit, _: list(audit.tags_at((), "2026-05-03T12:07:00.000Z")),
    lambda audit, _: list(audit.diff((), "2026-05-03T12:02:00.000Z", None)),
    lambda audit, _: list(audit.log(())),
    lambda audit, _: list(audit.coverage(())),
    lambda audit, _: list(audit.find(digest_of(b"team/api 7 0"))),
)


def verified(path: Path) -> bool:
    """Return whether `verify` finds no fault; an error of ours counts as a fault."""
    try:
        with Audit.open(path) as audit:
            return all(row["result"] == "ok" for row in audit.verify())
    except TagsyncError:
        return False


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("place", PLACES)
def test_damaged_bytes_never_record_a_wrong_row(
    place: str, seed: int, original: Path, expected: set[Row], tmp_path: Path
) -> None:
    """Every query and poll of a damaged file succeeds or fails with one of our errors.

    A poll may succeed if it does not read the damaged bytes. It then records the same changes as in
    the intact file, or `verify` finds a fault.
    """
    path = tmp_path / "tagsync.db"
    shutil.copy(original, path)
    damage(path, place, Random(f"{place} {seed}"))
    clock = FakeClock()
    clock.advance(minutes=20)
    for question in QUESTIONS:
        try:
            with Audit.open(path) as audit:
                question(audit, clock)
        except TagsyncError as error:
            assert str(error).isprintable()  # noqa: PT017  any of our errors is right
    before: set[Row] | None = None
    # SQLite may quote damaged bytes in its message, which Python then fails to decode.
    with suppress(sqlite3.Error, UnicodeDecodeError):
        before = changes_in(path)
    try:
        with Store.open(path) as store:
            outcomes = Counter(poll_again(store, clock))
            store.freshness()
            store.heads()
    except StoreError:
        return
    if outcomes["ok"] and before is not None:
        try:
            wrong = changes_in(path) - before - expected
        except sqlite3.Error:
            return
        assert not wrong or not verified(path)


def spoil(path: Path, sql: str) -> None:
    """Change a value past every rule of the schema, as a damaged disk does."""
    with closing(sqlite3.connect(path)) as connection, connection, without_triggers(connection):
        connection.execute(sql)


SPOILED = {
    "digest of a tag that moves": "UPDATE tags SET digest = 'sha256:0' WHERE tag = 'v7'",
    "digest of a tag that stays": "UPDATE tags SET digest = 'sha256:0' WHERE tag = 'v9'",
    "field of a tag": "UPDATE tags SET is_trusted = NOT is_trusted WHERE tag = 'v9'",
    "type of a field": "UPDATE tags SET size = x'00ff' WHERE tag = 'v9'",
    "name of a tag": "UPDATE tags SET tag = 'w9' WHERE tag = 'v9'",
    "type of a name": "UPDATE tags SET tag = x'ff00' WHERE tag = 'v9'",
    "a tag that is lost": "DELETE FROM tags WHERE tag = 'v9'",
    "digest in the history": "UPDATE changes SET new_digest = 'sha256:0' WHERE tag = 'v7'",
    "fields in the history": "UPDATE changes SET fields = '{' WHERE tag = 'v7'",
    "time in the history": "UPDATE changes SET observed_at = '2026-05-03' WHERE tag = 'v7'",
    "time of the last poll": "UPDATE repositories SET last_attempt_at = '2026-13-03T12:00:00.000Z'",
    "form of a time": "UPDATE repositories SET last_complete_at = 'x'",
    "type of a time": "UPDATE repositories SET not_before = x'00'",
    "time of an observation": "UPDATE observations SET last_at = '2026-05-03T99:00:00.000Z'",
    "name of a repository": "UPDATE repositories SET name = name || 'x'",
    "fingerprint of a listing": "UPDATE repositories SET listing_hash = 'forged'",
    "start of a listing": "UPDATE repositories SET not_before = '2026-01-01T00:00:00.000Z'",
    "pending log lines": "UPDATE repositories SET unlogged_from = 1",
}


@pytest.mark.parametrize("sql", SPOILED.values(), ids=SPOILED.keys())
def test_value_that_was_never_recorded_stops_the_poll(
    sql: str, original: Path, tmp_path: Path
) -> None:
    """A poll refuses to continue from a valid value that tagsync never recorded."""
    path = tmp_path / "tagsync.db"
    shutil.copy(original, path)
    spoil(path, sql)
    renamed = "SET name" in sql
    names = [f"{name}x" if renamed else name for name in NAMES]
    before = changes_in(path)
    clock = FakeClock()
    clock.advance(minutes=25)
    with Store.open(path) as store:
        for name, truth in zip(names, NAMES, strict=True):
            tags = tags_of(truth, range(1, 61)) | tags_of(truth, range(7, 8), version=1)
            result = poll_tags(name, tags, store, clock)
            assert (result.outcome, result.reasons) == ("failed", ("damaged",))
            assert "a record that tagsync did not write" in str(result.detail)
    assert changes_in(path) == before
    assert not verified(path)


COMMANDS = (
    *("status", "tags", "log", "coverage", "verify", "sync", "sync --dry-run"),
    *("tags --at 2026-05-03T12:07", "diff swr/* --from 2026-05-03T12:02", "find sha256:012345"),
)


@pytest.mark.parametrize("words", COMMANDS)
def test_commands_show_no_traceback_on_damaged_values(
    words: str, original: Path, tmp_path: Path
) -> None:
    """On damaged values a command answers or fails in one sentence."""
    configure(tmp_path, "http://127.0.0.1:1", *NAMES)
    path = tmp_path / "tagsync.db"
    shutil.copy(original, path)
    spoil(path, SPOILED["form of a time"])
    spoil(path, SPOILED["fields in the history"])
    finished = tagsync(*words.split(), cwd=tmp_path)
    assert finished.returncode in {0, 1, 2}
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize("words", ["log", "verify", "sync"])
def test_damaged_pages_are_reported(words: str, original: Path, tmp_path: Path) -> None:
    """If pages are overwritten, the error names the file and the remedy."""
    configure(tmp_path, "http://127.0.0.1:1", *NAMES)
    path = tmp_path / "tagsync.db"
    content = original.read_bytes()
    path.write_bytes(content[:PAGE] + b"\xff" * (len(content) - PAGE))
    sentence = error_line(tagsync(words, cwd=tmp_path), 1)
    assert "tagsync.db is damaged" in sentence
    assert "restore it from a backup" in sentence
    assert path.read_bytes()[PAGE:] == b"\xff" * (len(content) - PAGE)
