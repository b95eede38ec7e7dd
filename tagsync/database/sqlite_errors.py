"""SQLite's errors, translated into sentences that say what to do."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from tagsync.errors import DamagedRecord, DatabaseLocked, StoreError, UnusableDatabase
from tagsync.escaping import truncate

_SENTENCES: Final = {
    "SQLITE_BUSY": "another process kept {path} locked for too long: try again",
    "SQLITE_FULL": "no space is left for {path}: nothing was recorded; free some and try again",
    "SQLITE_READONLY": "{path} may not be written by this user: check its owner and permissions",
    "SQLITE_PERM": "{path} may not be opened by this user: check its owner and permissions",
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

_MISFITS: Final = (
    *(ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError),
    msgspec.MsgspecError,
)
"""What reading a record raises where a value is of another type or form than was ever written."""


@contextmanager
def translate_sqlite_errors(path: Path) -> Iterator[None]:
    """Turns what SQLite says of the file into what a person can do about it.

    SQLite keeps no checksums, so that a damaged disk may also hand over values that tagsync never
    wrote. What a registry sends is checked before it comes here, so a value that does not fit is
    the file's.

    Raises:
        UnusableDatabase, StoreError: for any error of SQLite, and for values that do not fit.
    """
    try:
        yield
    except sqlite3.Error as error:
        if path.is_dir():
            sentence = f"{path} is a folder: let store.path name a file in it"
            raise UnusableDatabase(sentence) from error
        # The name is missing where Python's own layer refused, as on a closed connection.
        name = getattr(error, "sqlite_errorname", "SQLITE_ERROR")
        primary = next((key for key in _SENTENCES if name.startswith(key)), "")
        sentence = _SENTENCES.get(primary, "{path} could not be used: {error}")
        kind = _KINDS.get(primary, StoreError)
        raise kind(sentence.format(path=path, error=truncate(str(error)))) from error
    except _MISFITS as error:
        about = truncate(str(error))[:200] or type(error).__name__
        raise DamagedRecord(
            f"{path} holds what tagsync never wrote ({about}): it is damaged, or was altered: let"
            " tagsync verify look at it, and restore it from a backup"
        ) from error
