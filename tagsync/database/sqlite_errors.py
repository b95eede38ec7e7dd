"""SQLite's errors, translated into sentences that say what to do."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tagsync.errors import DamagedRecord, DatabaseLocked, StoreError, UnusableDatabase
from tagsync.escaping import truncate

_SENTENCES: Final = {
    "SQLITE_BUSY": "another process kept {path} locked for too long: try again",
    "SQLITE_FULL": "no space is left for {path}: nothing was recorded; free some and try again",
    "SQLITE_READONLY": "{path} cannot be written by this user: check its owner and permissions",
    "SQLITE_PERM": "{path} cannot be opened by this user: check its owner and permissions",
    "SQLITE_CANTOPEN": "{path} cannot be opened: check that its folder exists, and the permissions",
    "SQLITE_IOERR": "{path} cannot be read or written ({error}): check the disk",
    "SQLITE_CORRUPT": "{path} is damaged ({error}): restore it from a backup",
    "SQLITE_NOTADB": "{path} is not a SQLite database: let store.path name a file of tagsync's own",
}
_KINDS: Final = {
    "SQLITE_BUSY": DatabaseLocked,
    "SQLITE_NOTADB": UnusableDatabase,
    "SQLITE_CANTOPEN": UnusableDatabase,
    "SQLITE_PERM": UnusableDatabase,
}


@contextmanager
def translate_sqlite_errors(path: Path) -> Iterator[None]:
    """Translate SQLite's errors, and nothing else: any other exception is a bug and looks like one.

    Raises:
        UnusableDatabase: If the file is not a database, or cannot be opened.
        DatabaseLocked: If another process holds the lock for too long.
        DamagedRecord: If a row did not decode; the path of the file is added to it.
        StoreError: For every other error of SQLite.
    """
    try:
        yield
    except DamagedRecord as error:
        error.path = path
        raise
    except sqlite3.Error as error:
        if path.is_dir():
            sentence = f"{path} is a folder: let store.path name a file in it"
            raise UnusableDatabase(sentence) from error
        # Errors of Python's own layer, as on a closed connection, have no name.
        name = getattr(error, "sqlite_errorname", "SQLITE_ERROR")
        primary = next((key for key in _SENTENCES if name.startswith(key)), "")
        sentence = _SENTENCES.get(primary, "{path} could not be used: {error}")
        kind = _KINDS.get(primary, StoreError)
        raise kind(sentence.format(path=path, error=truncate(str(error)))) from error
