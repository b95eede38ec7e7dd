"""The index of images by the digests that they reference."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tagsync.database import digest_index, migrations
from tagsync.database.connection import Connection, connect
from tagsync.errors import UnusableDatabase

LAYER, CONFIG = f"sha256:{'a' * 64}", "c" * 64
MANIFEST = json.dumps({"layers": [{"digest": LAYER}]})


@pytest.fixture
def db(database: Path) -> Iterator[Connection]:
    with closing(connect(database)) as connection:
        connection.execute("INSERT INTO images (digest, first_observed_at) VALUES ('sha256:1', '')")
        yield connection


@pytest.mark.parametrize(
    ("verified", "expected"), [(1, {"a" * 64, CONFIG}), (0, {CONFIG}), (None, {CONFIG})]
)
def test_only_verified_manifests_are_indexed(verified: int | None, expected: set[str]) -> None:
    """An unverified manifest adds no terms; the image_id of the list always does."""
    assert digest_index.search_terms(MANIFEST, CONFIG, verified) == expected


def test_image_is_found_once_its_manifest_is_indexed(db: Connection) -> None:
    """An image that is indexed again with its manifest is found by all its digests."""
    digest_index.index_images(db, [(1, None, CONFIG, None)])
    assert list(digest_index.images_referencing(db, "a" * 12)) == []
    digest_index.index_images(db, [(1, MANIFEST, CONFIG, 1)])
    for digits in ("a" * 12, "a" * 64, CONFIG, "c" * 6):
        assert [row[0] for row in digest_index.images_referencing(db, digits)] == ["sha256:1"]


@pytest.mark.parametrize(
    "text", ['"x', "", "a", "aaaaa", "a OR b", 'aaaaaa" OR "', "AAAAAA", "é" * 9]
)
def test_text_that_is_not_a_digest_finds_nothing(db: Connection, text: str) -> None:
    """Text that a registry may send as a digest is never read as a query of FTS5."""
    digest_index.index_images(db, [(1, MANIFEST, CONFIG, 1)])
    assert list(digest_index.images_referencing(db, text)) == []


def test_wrong_manifest_references_nothing(db: Connection) -> None:
    """An image that is found by its image_id has no manifest if the recorded one is wrong."""
    for number, verified in ((2, 0), (3, 1)):
        db.execute(
            "INSERT INTO images (digest, image_id, manifest, verified, first_observed_at)"
            " VALUES (?, ?, ?, ?, '')",
            (f"sha256:{number}", CONFIG, MANIFEST, verified),
        )
        digest_index.index_images(db, [(number, MANIFEST, CONFIG, verified)])
    assert list(digest_index.images_referencing(db, CONFIG)) == [
        ("sha256:2", None, CONFIG),
        ("sha256:3", MANIFEST, CONFIG),
    ]


def test_terms_can_be_read_without_writing(db: Connection, database: Path) -> None:
    """The terms of the index are readable on a read-only connection."""
    digest_index.index_images(db, [(1, MANIFEST, CONFIG, 1)])
    with (
        closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as reader,
        digest_index.indexed_terms(reader) as entries,
    ):
        assert sorted(entries) == [("a" * 64, 1), (CONFIG, 1)]


def test_sqlite_without_fts5_is_rejected(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A SQLite without FTS5 is rejected at start, and the file is not changed."""
    monkeypatch.setattr(migrations, "has_fts5", lambda _: False)
    with pytest.raises(UnusableDatabase, match="built without FTS5"):
        connect(database)
    assert database.stat().st_size == 0
