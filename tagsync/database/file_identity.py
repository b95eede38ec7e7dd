"""Notice that a database is deleted, replaced, emptied or restored while it is open.

An open file stays usable after its name is deleted or given to another file. SQLite would go on
writing into a file that no other process can open, and all of it would be lost at the end.
"""

import os
from pathlib import Path
from typing import Final

from tagsync.database.connection import Connection
from tagsync.database.hash_chain import Heads, read_heads
from tagsync.errors import ReplacedDatabase, StoreError

_CHANGE: Final = "SELECT hash FROM changes WHERE id = ?"
_OBSERVATION: Final = "SELECT hash FROM observations WHERE ended = ?"


class FileIdentity:
    """The files that belong to an open database, and the heads of its hash chains.

    After a check has failed, all further checks fail: what tagsync has in memory belongs to the
    database that was opened.
    """

    def __init__(self, db: Connection, path: Path) -> None:
        """Note the files and the heads of a database that was just opened.

        Args:
            db: A connection for writing.
            path: The name under which it was opened.
        """
        self._path: Final = path.absolute()
        self._error: ReplacedDatabase | None = None
        # Reading opens the WAL. SQLite deletes the two files beside the database only when the
        # last connection is closed, so that they have to stay while this one is open.
        self._heads = read_heads(db)
        name = next(row[2] for row in db.execute("PRAGMA database_list") if row[1] == "main")
        files = (str(self._path), f"{name}-wal", f"{name}-shm")
        self._files: Final = {
            file: (status.st_dev, status.st_ino) for file in files if (status := _status(file))
        }

    def check_files(self) -> None:
        """Check that each name still leads to the file that was opened, and that it has content.

        Raises:
            ReplacedDatabase: If it leads to another file or to none, or if the database is empty.
            StoreError: If the file system gives an error instead.
        """
        if self._error is not None:
            raise self._error
        for file, opened in self._files.items():
            found = _status(file)
            if found is None:
                self._fail(f"{file} was deleted or moved")
            elif (found.st_dev, found.st_ino) != opened:
                self._fail(f"{file} was replaced by another file")
            elif not found.st_size and file == str(self._path):
                self._fail(f"{file} was emptied")

    def check(self, db: Connection) -> None:
        """Check the files, and that the database still has the heads that it had.

        Args:
            db: A connection in a transaction for writing.

        Raises:
            ReplacedDatabase: If a check fails.
        """
        self.check_files()
        changes, observations = self._heads.changes, self._heads.observations
        for what, sql, number, expected in (
            ("change", _CHANGE, changes.change_id, changes.hash),
            ("observation number", _OBSERVATION, observations.ended, observations.hash),
        ):
            if number and db.execute(sql, (number,)).fetchone() != (expected,):
                self._fail(
                    f"{self._path} no longer has {what} {number} as it was recorded, because"
                    " another state of the database was restored into the file"
                )

    def committed(self, heads: Heads) -> None:
        """Note the heads after a commit."""
        self._heads = heads

    def _fail(self, happened: str) -> None:
        self._error = ReplacedDatabase(
            f"{happened} while tagsync had the database open, so nothing more is recorded: put the"
            f" right database at {self._path} and restart tagsync"
        )
        raise self._error


def _status(file: str) -> os.stat_result | None:
    """Return the status of a file, or None if the file does not exist.

    Raises:
        StoreError: If the file system gives an error instead.
    """
    try:
        return os.stat(file)  # noqa: PTH116  each transaction does this, and a Path takes longer
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreError(
            f"{file} cannot be examined ({error.strerror}): check the permissions of its folder"
        ) from error
