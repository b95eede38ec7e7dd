"""Write a file under a temporary name, and give it its name only when it is complete."""

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Self

from tagsync.database.durability import sync_path
from tagsync.errors import StoreError

_ENDING: Final = ".partial"
_BESIDE: Final = ("", "-journal", "-wal", "-shm")
"""The endings of a database and of the files that SQLite creates beside it."""


class NewFile:
    """A file that does not have its name yet. Without `publish` or `replace` it is removed.

    The temporary file is in the same folder, and only its owner may read it at first. If the
    process is killed, the next `NewFile` for the same name removes what is left.
    """

    def __init__(self, target: Path) -> None:
        """Create nothing yet.

        Args:
            target: The name that the file will have.
        """
        self._target: Final = target
        self._prefix: Final = f".{target.name}."
        self.path = target
        """The temporary file."""

    def __enter__(self) -> Self:
        """Create the temporary file.

        Raises:
            StoreError: If it cannot be created.
        """
        with self._explained():
            self._remove_leftovers()
            folder = self._target.parent
            self._descriptor, name = tempfile.mkstemp(_ENDING, self._prefix, folder)
            self.path = Path(name)
            # The kernel releases the lock if this process is killed: the file is a leftover then.
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the temporary name."""
        _remove(self.path)
        os.close(self._descriptor)

    def permit(self, mode: int, owner: os.stat_result) -> None:
        """Set the permissions, and as root also the owner and the group.

        Args:
            mode: A file's mode, of which the permissions to read and write are taken.
            owner: The status of a file with the owner and the group.

        Raises:
            StoreError: If they cannot be set.
        """
        with self._explained():
            if os.geteuid() == 0:
                os.fchown(self._descriptor, owner.st_uid, owner.st_gid)
            os.fchmod(self._descriptor, stat.S_IMODE(mode) & 0o666)

    def flush(self) -> None:
        """Wait until the content is on the disk.

        Raises:
            StoreError: If the disk reports an error.
        """
        with self._explained():
            os.fsync(self._descriptor)

    def publish(self) -> None:
        """Give the file its name, durably.

        Raises:
            StoreError: If another file has the name by now, or the disk reports an error.
        """
        with self._explained():
            link_or_rename(self.path, self._target)
            sync_path(self._target.parent)

    def replace(self) -> None:
        """Give the file its name, durably, which another file may have until then.

        Raises:
            StoreError: If the disk reports an error.
        """
        with self._explained():
            self.path.replace(self._target)
            sync_path(self._target.parent)

    def _remove_leftovers(self) -> None:
        """Remove the temporary files of processes that were killed."""
        for path in self._target.parent.iterdir():
            if path.name.startswith(self._prefix) and path.name.endswith(_ENDING):
                with suppress(OSError), path.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _remove(path)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"{self._target} cannot be written ({error.strerror}): check its folder, the"
                " permissions and the free space"
            ) from error


def link_or_rename(path: Path, name: Path) -> None:
    """Give a file a name that no other file has; the file may keep its old name.

    Raises:
        OSError: If another file has the name, or the file system refuses.
    """
    try:
        os.link(path, name)
    except FileExistsError:
        raise
    except OSError:
        # Some file systems have no hard links.
        if os.path.lexists(name):
            raise
        path.rename(name)


def _remove(path: Path) -> None:
    for ending in _BESIDE:
        Path(f"{path}{ending}").unlink(missing_ok=True)
