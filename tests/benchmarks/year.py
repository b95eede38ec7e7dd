"""Generate the record of a year, in which one repository has a tenth of all changes.

Images and their manifests are those of `tests.benchmarks.audit`. The record ends with yesterday, so
that the pages' default ranges have changes.
"""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

from tagsync.clock import timestamp, utc_now
from tagsync.database import hash_chain
from tagsync.database.connection import Connection, connect
from tagsync.database.digest_index import index_images
from tagsync.database.hash_chain import OBSERVATION_COLUMNS, link_observation
from tagsync.database.state import RepositoryState, row_values
from tagsync.database.store import Store
from tagsync.models import Repository
from tests.benchmarks.audit import IMAGE_SIZE, digest, manifest
from tests.support.record import recount_days

DAYS: Final = 365
LISTINGS: Final = 11
"""Listings with changes in a day."""

Row = tuple[object, ...]


class Shape(NamedTuple):
    """The size of a record: repositories, tags of each, changes of all, and images."""

    repositories: int
    tags: int
    changes: int
    images: int


def repository_of(number: int) -> Repository:
    """Return the repository with this number, from 0."""
    return Repository(("swr", "oci")[number % 2], f"team-{number % 20}/service-{number}")


def tag_of(number: int) -> str:
    """Return the name of a tag: ``latest``, a version, a commit or a build."""
    if number == 0:
        return "latest"
    commit = f"sha-{sha256(str(number).encode()).hexdigest()[:7]}"
    return (f"1.{number // 100}.{number % 100}", commit, f"build-{number}")[number % 3]


class Year:
    """The changes of a year, in their order, and the state to which they lead.

    Attributes:
        start: The first moment.
        digests: The digest of each image.
        seen: The number of each image that a change named, and when it first did.
        now: For each repository and tag: the digest, None if it is deleted, the time of its first
            listing, and the time of its last change.
        tags: The number of tags of each repository.
        ends: The newest change and its hash at the end of each day.
    """

    def __init__(self, shape: Shape, digests: list[str]) -> None:
        today = utc_now().astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        self.start: datetime = today - timedelta(days=DAYS)
        self.shape = shape
        self.digests = digests
        self.seen: dict[int, str] = {}
        self.now: dict[tuple[int, int], tuple[str | None, str, str]] = {}
        self.tags: Counter[int] = Counter()
        self.ends: list[tuple[int, str]] = []
        self._random = Random(1)
        self._number, self._head = 0, hash_chain.GENESIS

    def changes(self) -> Iterator[Row]:
        """Yield the rows of ``changes``."""
        first = timestamp(self.start)
        for repository in range(self.shape.repositories):
            for tag in range(self.shape.tags):
                yield self._change(repository, tag, None, first)
        self.ends.append((self._number, self._head))
        left = self.shape.changes - self._number
        each = left // ((DAYS - 1) * LISTINGS)
        for day in range(1, DAYS):
            for listing in range(LISTINGS):
                at = self.start + timedelta(days=day, hours=2 * listing + 1)
                yield from self._listing(at, each)
            self.ends.append((self._number, self._head))

    def _listing(self, at: datetime, changes: int) -> Iterator[Row]:
        """Yield the changes of one time of the day: a tenth of them in the first repository."""
        for number in range(changes):
            moment = at + timedelta(milliseconds=300 * number)
            random = self._random
            repository = 0 if number % 10 == 0 else random.randrange(self.shape.repositories)
            tag = random.randrange(self.shape.tags)
            before = timestamp(moment - timedelta(minutes=5))
            yield self._change(repository, tag, before, timestamp(moment))

    def _change(self, repository: int, tag: int, before: str | None, at: str) -> Row:
        """Return a change of a tag to another image, or its deletion: two in a hundred."""
        old, first, _ = self.now.get((repository, tag), (None, at, at))
        image = self._random.randrange(self.shape.images)
        deleted = old is not None and self._random.random() < 0.02
        new = None if deleted else self.digests[image]
        kind = "added" if old is None else "deleted" if deleted else "updated"
        if not deleted:
            self.seen.setdefault(image, at)
        self.now[repository, tag] = (new, at if old is None else first, at)
        sizes = [None if each is None else IMAGE_SIZE for each in (old, new)]
        differ = {"digest": [old, new], **({"size": sizes} if kind != "updated" else {})}
        fields = json.dumps(differ, separators=(",", ":"))
        content = (tag_of(tag), kind, old, new, fields, before, at)
        name = repository_of(repository).full_name
        self.tags[repository] += (kind == "added") - deleted
        self._number += 1
        self._head = hash_chain.link(self._head, self._number, name, *content)
        return (self._number, repository + 1, *content, self._head)


def fill(path: Path, shape: Shape) -> None:
    """Create the database."""
    Store.open(path).close()
    texts = [manifest(image) for image in range(shape.images)]
    year = Year(shape, [f"sha256:{sha256(text.encode()).hexdigest()}" for text in texts])
    with closing(connect(path)) as db:
        db.execute("PRAGMA synchronous = OFF")
        db.execute("PRAGMA cache_size = -2000000")
        db.execute("PRAGMA foreign_keys = OFF")  # changes come before what they refer to
        db.execute("BEGIN")
        db.executemany("INSERT INTO changes VALUES (?,?,?,?,?,?,?,?,?,?)", year.changes())
        db.executemany(
            "INSERT INTO tags (repository_id, tag, digest, size, first_observed_at, changed_at)"
            f" VALUES (?, ?, ?, {IMAGE_SIZE}, ?, ?)",
            sorted(
                (repository + 1, tag_of(tag), *state)
                for (repository, tag), state in year.now.items()
                if state[0] is not None
            ),
        )
        _insert_images(db, year, texts)
        _insert_observations(db, year)
        _insert_repositories(db, year)
        recount_days(db)
        db.execute("COMMIT")


def _insert_images(db: Connection, year: Year, texts: list[str]) -> None:
    db.executemany(
        f"INSERT INTO images VALUES (?, ?, ?, ?, 2, {IMAGE_SIZE}, ?, 1, ?)",
        (
            (
                *(number, year.digests[image], digest("config", image)[7:]),
                *(json.loads(texts[image])["mediaType"], texts[image], at),
            )
            for number, (image, at) in enumerate(year.seen.items(), 1)
        ),
    )
    index_images(db, db.execute("SELECT id, manifest, image_id, verified FROM images"))


def _insert_observations(db: Connection, year: Year) -> None:
    """Insert a run of polls for each day and repository, every tenth with failures in it."""
    columns = ", ".join(OBSERVATION_COLUMNS)
    marks = ", ".join("?" * (len(OBSERVATION_COLUMNS) + 3))
    head, ended = hash_chain.GENESIS, 0

    def rows() -> Iterator[Row]:
        nonlocal head, ended
        for day in range(DAYS):
            for repository in range(year.shape.repositories):
                name = repository_of(repository).full_name
                for run in _runs(year, repository, day):
                    ended += 1
                    values = [run.get(column) for column in OBSERVATION_COLUMNS]
                    head = link_observation(head, ended, name, values, *year.ends[day])
                    yield (*values, ended, year.ends[day][0], head)

    db.executemany(
        f"INSERT INTO observations ({columns}, ended, change_id, hash) VALUES ({marks})", rows()
    )


def _runs(year: Year, repository: int, day: int) -> Iterator[dict[str, object]]:
    midnight = year.start + timedelta(days=day)
    tags = year.tags[repository] if day == DAYS - 1 else year.shape.tags

    def run(outcome: str, start: float, end: float) -> dict[str, object]:
        ok = outcome == "ok"
        return {
            "repository_id": repository + 1,
            "outcome": outcome,
            "reasons": None if ok else "unreachable",
            "detail": None if ok else "no connection",
            "source": "swr" if ok else None,
            "first_at": timestamp(midnight + timedelta(hours=start)),
            "last_at": timestamp(midnight + timedelta(hours=end)),
            "polls": round((end - start) * 12),
            "tags": tags if ok else None,
        }

    # A run goes on from the last poll of the day before, five minutes before midnight.
    begin, end = -1 / 12 if day else 0, 24 - 1 / 12
    if (repository + day) % 10:
        yield run("ok", begin, end)
        return
    # Between two listings with changes.
    yield run("ok", begin, 13.5)
    yield run("failed", 13.5 + 1 / 12, 14.5)
    yield run("ok", 14.5 + 1 / 12, end)


def _insert_repositories(db: Connection, year: Year) -> None:
    first = timestamp(year.start)
    last = timestamp(year.start + timedelta(days=DAYS) - timedelta(minutes=5))
    listings = dict(
        db.execute(
            "SELECT repository_id, sum(polls) FROM observations WHERE outcome = 'ok' GROUP BY 1"
        )
    )
    rows = [
        row_values(
            repository_of(number),
            RepositoryState(
                id=number + 1,
                first_observed_at=first,
                last_attempt_at=last,
                last_complete_at=last,
                version=listings[number + 1],
                not_before=last,
            ),
        )
        for number in range(year.shape.repositories)
    ]
    db.executemany(f"INSERT INTO repositories VALUES ({', '.join('?' * len(rows[0]))})", rows)
