"""Back up a database, and restore it: copies that are verified before they are used."""

import os
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

from tagsync.audit.queries import Audit, Row
from tagsync.database import copies
from tagsync.database.connection import Connection, reading
from tagsync.database.daemon_lock import DaemonLock
from tagsync.database.hash_chain import Heads, has_heads, read_heads
from tagsync.database.new_file import NewFile
from tagsync.database.skipped_events import SkippedEvents
from tagsync.database.sqlite_errors import translate_sqlite_errors
from tagsync.database.writer_lock import WriterLock
from tagsync.errors import DatabaseInUse, RefusedBackup, StoreError, UnusableDatabase

WRITER_TIMEOUT: Final = 5.0
"""Seconds for which `restore` waits for another process's transaction."""


class Restored(NamedTuple):
    """The result of `restore`.

    Attributes:
        heads: The heads of the database that was put in place.
        kept: The new name of the database that was there before. None if there was none.
        skipped: The events that the destinations of notifications will not be sent.
    """

    heads: Heads
    kept: Path | None
    skipped: Sequence[SkippedEvents] = ()


def back_up(database: Path, target: Path) -> Heads:
    """Copy a database, which other processes may write meanwhile, and verify the copy.

    The copy gets its name when it is complete, verified and on the disk. It has the permissions of
    the database.

    Args:
        database: The database.
        target: The new file, which does not exist yet.

    Returns:
        The heads of the copy.

    Raises:
        RefusedBackup: If the copy has a fault, because the database has one.
        StoreError: If the database cannot be read or the copy cannot be written.
    """
    with NewFile(target) as new:
        with copies.snapshot(database) as db:
            heads = read_heads(db)
            copies.copy(db, new.path, target)
        new.flush()
        if fault := _find_fault(new.path, (heads.changes.hash, heads.observations.hash)):
            raise RefusedBackup(
                f"{target} was not made, because the copy has a fault ({fault['check']}:"
                f" {fault['detail']}): run tagsync verify to see whether {database} has it, too"
            )
        status = database.stat()
        new.permit(status.st_mode, status)
        new.publish()
    return heads


def restore(
    backup: Path,
    database: Path,
    heads: Collection[str] = (),
    *,
    force: bool = False,
    writer_timeout: float = WRITER_TIMEOUT,
) -> Restored:
    """Put a verified copy of a backup in the place of a database that no process has open.

    The database that was there keeps its content under another name. If the process is killed,
    either database is in place, whole. The events of the backup that wait to be sent are skipped.

    Args:
        backup: The backup. It stays as it is.
        database: The database, which may be missing.
        heads: Hashes of either chain that the backup has to contain.
        force: Whether the backup may lack these heads, and what the database has recorded.
        writer_timeout: Seconds to wait for another process's transaction.

    Raises:
        DatabaseInUse: If another process has the database open.
        RefusedBackup: If the backup is not a database of tagsync, has a fault, or lacks something
            and `force` is false.
        UnusableDatabase: If the database is a folder.
        StoreError: If a file cannot be read or written.
    """
    path = Path(os.path.realpath(database))
    if path.is_dir():
        raise UnusableDatabase(f"{path} is a folder: set store.path to a file in it")
    with (
        DaemonLock(database),
        WriterLock(database, writer_timeout),
        NewFile(path) as new,
        ExitStack() as stack,
    ):
        with ExitStack() as reader:
            copies.copy(_open_backup(backup, reader), new.path, path)
        skipped = copies.prepare(new.path, backup)
        _check_backup(backup, new.path, () if force else heads)
        _permit(new, path, backup)
        new.flush()
        with reading(new.path) as db:
            restored = read_heads(db)
            # The database stays locked until it is replaced, so that no process opens it meanwhile.
            lost = _find_loss(db, path, stack)
        if lost and not force:
            raise RefusedBackup(f"{backup} {lost}: restore another backup, or use --force")
        kept = copies.keep_aside(path)
        new.replace()
    return Restored(restored, kept, skipped)


def _open_backup(backup: Path, stack: ExitStack) -> Connection:
    try:
        return stack.enter_context(reading(backup))
    except UnusableDatabase as error:
        # The advice of this error is for the configured database.
        raise RefusedBackup(
            f"{backup} cannot be restored ({error}): name a file that tagsync backup made"
        ) from error


def _find_fault(path: Path, heads: Collection[str]) -> Row | None:
    """Return the first check that finds a fault in a database, or None."""
    with Audit.open(path) as audit:
        return next((row for row in audit.verify(heads) if row["result"] == "fault"), None)


def _check_backup(backup: Path, copy: Path, heads: Collection[str]) -> None:
    fault = _find_fault(copy, heads)
    if fault is None:
        return
    if fault["check"] == "heads":
        raise RefusedBackup(
            f"{backup} does not contain every given head ({fault['detail']}): restore another"
            " backup, or use --force"
        )
    raise RefusedBackup(
        f"{backup} has a fault ({fault['check']}: {fault['detail']}): restore another backup"
    )


def _permit(new: NewFile, path: Path, backup: Path) -> None:
    """Give the new file the permissions of the old one, or else those of the backup."""
    if path.exists():
        status = path.stat()
        new.permit(status.st_mode, status)
    else:
        new.permit(backup.stat().st_mode, path.parent.stat())


def _find_loss(copy: Connection, path: Path, stack: ExitStack) -> str | None:
    """Return what would be lost if the copy of a backup replaced a database.

    Args:
        copy: The copy.
        path: The database, which may be missing.
        stack: Keeps the database locked until it is closed.

    Returns:
        A part of a sentence about the backup, or None if it contains all that the database has
        recorded, as far as the heads say.

    Raises:
        DatabaseInUse: If another process has the database open.
    """
    if not path.exists() or not path.stat().st_size:
        return None
    try:
        # First read-only: if SQLite may write to a damaged file, it may remove its WAL.
        with reading(path):
            pass
        present = stack.enter_context(copies.exclusive(path))
        with translate_sqlite_errors(path):
            return _compare(copy, present, path)
    except DatabaseInUse:
        raise
    except StoreError as error:
        return f"cannot be compared with the present database ({error})"


def _compare(copy: Connection, present: Connection, path: Path) -> str | None:
    theirs, ours = read_heads(copy), read_heads(present)
    if has_heads(copy, ours):
        return None
    if has_heads(present, theirs):
        return (
            f"is older than {path}: it ends with change {theirs.changes.change_id} of"
            f" {ours.changes.change_id} and observation {theirs.observations.ended} of"
            f" {ours.observations.ended}"
        )
    return f"does not continue the history of {path}: their hash chains differ"
