"""A small disk that can be filled."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final


class SmallDisk:
    """A mounted disk.

    Attributes:
        folder: Where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder: Final = folder
        self._filler: Final = folder / "filler"

    def fill(self) -> None:
        """Take all free space, also what other processes free meanwhile."""
        with suppress(OSError), self._filler.open("ab") as file:
            while free := os.statvfs(self.folder).f_bavail * os.statvfs(self.folder).f_frsize:
                os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), free)

    def clear(self) -> None:
        """Give all space back."""
        self._filler.unlink(missing_ok=True)


@contextmanager
def mounted(folder: Path, megabytes: int) -> Iterator[SmallDisk]:
    """Mount a disk of this size for the block.

    Raises:
        PermissionError: If this user may not mount disks.
    """
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tagsync-test", str(folder)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise PermissionError(finished.stderr.strip())
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
