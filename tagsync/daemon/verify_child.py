"""The process in which the daemon's verification runs: ``python -m`` this module.

The arguments are the path of the database and the heads that it must have. The process needs no
configuration and no secrets. It prints the row of each check as a line of JSON.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from threading import Thread
from typing import Any, Final

import msgspec

from tagsync.audit.verify import verify
from tagsync.database import migrations
from tagsync.database.connection import connect_for_reading
from tagsync.database.sqlite_errors import translate_sqlite_errors
from tagsync.errors import StoreError

DETAIL_LIMIT: Final = 2000
"""Maximum number of characters of a row's detail."""

_LOWEST_PRIORITY: Final = 19


def lower_priority() -> None:
    """Run only when no other process wants the processor, as far as the system permits it.

    On Linux, the priority of the disk follows that of the processor.
    """
    with suppress(OSError):
        os.nice(_LOWEST_PRIORITY)
    with suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def end_with(parent: int) -> None:
    """End this process when the daemon has ended, even if the daemon was killed.

    Args:
        parent: The descriptor of a pipe whose other end only the daemon has open.
    """

    def await_end() -> None:
        # Not sys.stdin: Python's exit would wait for the lock of its buffer.
        while os.read(parent, 4096):
            pass
        os._exit(1)

    Thread(target=await_end, daemon=True).start()


def check_rows(path: Path, heads: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the row of each check, with a detail of bounded length.

    Raises:
        StoreError: If the database cannot be read.
    """
    # Not `Audit.open`: it may take the file for one that no process writes to.
    with translate_sqlite_errors(path), closing(connect_for_reading(path)) as db:
        migrations.check_current(db, str(path))
        db.execute("BEGIN")
        for row in verify(db, heads):
            yield {**row, "detail": row["detail"] and row["detail"][:DETAIL_LIMIT]}


def main(path: str, *heads: str) -> int:
    """Verify a database, and return the exit status: 1 if it cannot be read."""
    lower_priority()
    end_with(sys.stdin.fileno())
    try:
        for row in check_rows(Path(path), heads):
            sys.stdout.write(f"{msgspec.json.encode(row).decode()}\n")
            sys.stdout.flush()
    except StoreError as error:
        sys.stdout.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
