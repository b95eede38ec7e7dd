"""Search of images by the digests that they reference, through SQLite's full-text index (FTS5).

The table `image_search` is contentless and its row ids are ``images.id``. Its text is every digest
that the image references, in hexadecimal: its configuration, its layers, and the manifests of an
index. Only bytes that hash to their digest are indexed, so that no entry ever has to be removed.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from tagsync.manifests import decode, hex_digits

Reference = tuple[int, str | None, str | None, int | None]
"""Of an image its id, manifest, image_id and ``verified``."""


def search_terms(manifest: str | None, image_id: str | None, verified: int | None) -> set[str]:
    """Return the terms by which an image is found: the hexadecimal digits of each digest.

    Args:
        manifest: The text; it counts only if it is verified.
        image_id: The digest of the configuration, which a registry's list may state by itself.
        verified: As the column.
    """
    references = decode(manifest).references() if verified else ()
    digests = [digest for _, digest in references]
    return {digits for each in (image_id, *digests) if each and (digits := hex_digits(each))}


def index_images(db: sqlite3.Connection, images: Iterable[Reference]) -> None:
    """Add images to the index. One that receives its manifest later is added again."""
    rows = (
        (number, search_terms(manifest, image_id, verified))
        for number, manifest, image_id, verified in images
    )
    db.executemany(
        "INSERT INTO image_search (rowid, digests) VALUES (?, ?)",
        ((number, " ".join(terms)) for number, terms in rows if terms),
    )


def images_referencing(
    db: sqlite3.Connection, digits: str
) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield the digest, manifest and image_id of each image that references a digest.

    Args:
        db: A connection that may read.
        digits: The digest's hexadecimal digits, or their beginning.
    """
    yield from db.execute(
        "SELECT i.digest, i.manifest, i.image_id FROM image_search AS s"
        " CROSS JOIN images AS i ON i.id = s.rowid WHERE image_search MATCH ?",
        (f'"{digits}"*',),
    )


@contextmanager
def indexed_terms(db: sqlite3.Connection) -> Iterator[Iterator[tuple[str, int]]]:
    """Provide every entry of the index: the term and the id of the image.

    A temporary table of type fts5vocab reads the index; it needs no permission to write the file.
    """
    db.execute(
        "CREATE VIRTUAL TABLE temp.image_search_terms USING fts5vocab(main, image_search, instance)"
    )
    try:
        yield iter(db.execute("SELECT term, doc FROM temp.image_search_terms"))
    finally:
        db.execute("DROP TABLE temp.image_search_terms")


def has_fts5(db: sqlite3.Connection) -> bool:
    """Return whether this SQLite was built with FTS5."""
    options = {name for (name,) in db.execute("PRAGMA compile_options")}
    return "ENABLE_FTS5" in options
