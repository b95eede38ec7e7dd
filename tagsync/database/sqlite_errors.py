"""Translate SQLite's errors into tagsync's errors, whose messages say what to do."""

import sqlite3
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tagsync.errors import DamagedRecord, DatabaseLocked, StoreError, UnusableDatabase
from tagsync.escaping import truncate

SqliteError: Final = sqlite3.DatabaseError
"""The base of the errors with which SQLite refuses a statement or reports damage."""

_SENTENCES: Final = {
    "SQLITE_BUSY": "another process kept {path} locked for too long: try again",
    "SQLITE_FULL": "no space is left for {path}: nothing was recorded; free space and try again",
    "SQLITE_READONLY": "{path} cannot be written by this user: check its owner and permissions",
    "SQLITE_PERM": "{path} cannot be opened by this user: check its owner and permissions",
    "SQLITE_CANTOPEN": "{path} cannot be opened: check that its folder exists, and the permissions",
    "SQLITE_IOERR": "{path} cannot be read or written ({error}): check the disk",
    "SQLITE_CORRUPT": "{path} is damaged ({error}): restore it from a backup",
    "SQLITE_NOTADB": "{path} is not a SQLite database: set store.path to a file of tagsync's own",
}
_NOT_UTF_8: Final = "Could not decode to UTF-8"
"""The beginning of the message of the module sqlite3 about a text that is not UTF-8."""

_LACKS: Final = ("no such table", "no such column", "has no column named")
"""Parts of the messages about a schema that is not the one that this version creates."""

_KINDS: Final = {
    "SQLITE_BUSY": DatabaseLocked,
    "SQLITE_NOTADB": UnusableDatabase,
    "SQLITE_CANTOPEN": UnusableDatabase,
    "SQLITE_PERM": UnusableDatabase,
}


@contextmanager
def translate_sqlite_errors(path: Path) -> Iterator[None]:
    """Translate the errors that SQLite raises in the block.

    Every exception of another kind passes unchanged: it is a bug in tagsync, and its traceback
    shows that.

    Raises:
        UnusableDatabase: If the file is not a database, or cannot be opened.
        DatabaseLocked: If another process holds the lock for too long.
        DamagedRecord: If a row could not be decoded, or a text is not UTF-8. This function adds the
            path of the file.
        StoreError: For every other error of SQLite.
    """
    try:
        yield
    except DamagedRecord as error:
        _close_cursors(error)
        error.path = path
        raise
    except sqlite3.Error as error:
        _close_cursors(error)
        if str(error).startswith(_NOT_UTF_8):
            raise DamagedRecord(truncate(str(error)), path) from error
        if path.is_dir():
            sentence = f"{path} is a folder: set store.path to a file in it"
            raise UnusableDatabase(sentence) from error
        if any(part in str(error) for part in _LACKS):
            raise UnusableDatabase(
                f"{path} does not have the schema of this tagsync ({truncate(str(error))}): run"
                " tagsync verify to see the difference, or set store.path to a new file"
            ) from error
        # Errors of the module sqlite3 itself, such as for a closed connection, have no name.
        name = getattr(error, "sqlite_errorname", "SQLITE_ERROR")
        primary = next((key for key in _SENTENCES if name.startswith(key)), "")
        sentence = _SENTENCES.get(primary, "{path} could not be used: {error}")
        kind = _KINDS.get(primary, StoreError)
        raise kind(sentence.format(path=path, error=truncate(str(error)))) from error


def _close_cursors(error: Exception) -> None:
    # A cursor in a frame of the traceback would keep the connection in its old snapshot for as long
    # as the error exists. If it is in a reference cycle, that is until the garbage is collected.
    traceback.clear_frames(error.__traceback__)
