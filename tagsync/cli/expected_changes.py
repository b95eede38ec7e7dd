"""The changes that a dry run found, kept in a temporary file until they are shown.

They are not kept in memory, which must not grow with the number of repositories.
"""

import tempfile
from typing import Any, Self

import msgspec

from tagsync.errors import TagsyncError
from tagsync.models import Change, Repository
from tagsync.polling.jobs import Poll

_IN_MEMORY = 2**20
"""Maximum size of the changes that need no file, in bytes."""


class ExpectedChanges:
    """The changes of a dry run by repository: add them during the pass, read them after it."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115  `__exit__` closes it
        self._places: dict[Repository, tuple[int, int]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, poll: Poll) -> None:
        """Add the changes of a poll.

        Raises:
            TagsyncError: If the file cannot be written.
        """
        if not poll.changes:
            return
        data = msgspec.json.encode([_to_row(change) for change in poll.changes])
        try:
            self._places[poll.repository] = (self._file.tell(), len(data))
            self._file.write(data)
        except OSError as error:
            raise TagsyncError(
                f"the changes of the dry run cannot be written to {tempfile.gettempdir()}"
                f" ({error.strerror}): free some space, or set TMPDIR to another folder"
            ) from error

    def of(self, repository: Repository) -> list[dict[str, Any]]:
        """Return the changes of a repository, sorted by tag; see `docs/output.md` for the keys."""
        if repository not in self._places:
            return []
        offset, size = self._places[repository]
        self._file.seek(offset)
        rows: list[dict[str, Any]] = msgspec.json.decode(self._file.read(size))
        return rows


def _to_row(change: Change) -> dict[str, Any]:
    return {
        "tag": change.tag,
        "kind": change.kind,
        "moved": change.moved,
        "old_digest": change.old_digest,
        "new_digest": change.new_digest,
        "fields": change.fields,
    }
