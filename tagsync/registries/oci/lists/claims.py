"""One read of a registry's own list: which digests count, and whether HEAD contradicts them."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from tagsync import manifests
from tagsync.clock import parse_timestamp, timestamp
from tagsync.models import Distrust, Image, Scope, Tag
from tagsync.registries.oci.lists import guard
from tagsync.registries.oci.lists.protocol import Row, Rows, TagList

HEAD: Final = "head"
"""The value of ``observations.source`` if no digest comes from a list."""


class Believed(msgspec.Struct, frozen=True):
    """The tags whose digests come from the list.

    Attributes:
        tags: By name.
        images: The images of these tags, by digest.
        distrust: Why the list is not used until the next start. None if it is, or if there is none.
        source: Where the digests of the listing come from.
    """

    tags: Mapping[str, Tag] = {}
    images: Mapping[str, Image] = {}
    distrust: Distrust | None = None
    source: str = HEAD


NOTHING: Final = Believed()
"""No tag's digest comes from a list."""


class Suspicion(NamedTuple):
    """A tag for which HEAD contradicted the list, or failed.

    Attributes:
        listed: The digest that the list had.
        since: When HEAD first contradicted this digest, in this process or as recorded.
    """

    listed: str
    since: datetime


class Notes:
    """Knowledge about the list of one repository, from one poll to the next.

    Attributes:
        suspicions: The tags for which HEAD contradicted the list, by name.
        distrust: Why the list is not used until the next start. None if it may be used.
        unused: Why the list was not used in the last poll, in a phrase. None if it was used.
    """

    def __init__(self) -> None:
        self.suspicions: dict[str, Suspicion] = {}
        self.distrust: Distrust | None = None
        self.unused: str | None = None


class Claims:
    """One read of a list, for one poll.

    Attributes:
        pages: Number of responses from which the list was read.
    """

    def __init__(
        self, vendor: TagList, rows: Rows, notes: Notes, report: Callable[[str], None]
    ) -> None:
        """Wrap a read.

        Args:
            vendor: The list that was read.
            rows: The read.
            notes: The knowledge about the list, which `compare` updates.
            report: Is called with the reason if the list is not used after all.
        """
        self.pages = rows.pages
        self._vendor = vendor
        self._rows = rows
        self._notes = notes
        self._report = report
        self._digests = guard.valid_digests(rows.rows)

    @property
    def names(self) -> Sequence[str] | None:
        """The names of all tags, or None if they have to be read from ``tags/list``."""
        return self._rows.names

    @property
    def source(self) -> str:
        """The name of the list."""
        return self._vendor.name

    def idle_heads(self, names: Collection[str]) -> int:
        """Return how many of these tags a poll resolves by HEAD although no tag has changed."""
        listed = sum(name in self._digests for name in names)
        return len(names) - listed + guard.sample_size(listed, self._vendor.sample_period)

    def why_unusable(self, names: Collection[str]) -> str | None:
        """Return why the list is not used, in a phrase; see `guard.why_unusable`."""
        return guard.why_unusable(self._rows.rows, names)

    def believe(self, names: Collection[str], scope: Scope) -> Believed:
        """Return the tags whose digests count without a HEAD request.

        Args:
            names: The names of all tags.
            scope: Which of them need a digest, and what is recorded of the repository.
        """
        why = self.why_unusable(names) if names else None
        if why is not None:
            self._report(why)
            return NOTHING
        self._notes.unused = None
        wanted = [name for name in names if scope.has(name)]
        rules = guard.Rules(self._vendor.same_store, self._vendor.sample_period)
        doubted = self._notes.suspicions
        rows = guard.believed(self._digests, wanted, scope.stored(), doubted, scope.turn, rules)
        tags = {name: Tag(name, row.digest) for name, row in rows.items()}
        return Believed(tags, _images(rows.values()), source=self._vendor.name if wanted else HEAD)

    def reconsider(
        self, answers: Mapping[str, str | None], scope: Scope, now: datetime
    ) -> Believed | None:
        """Return what to believe instead, after the answers to HEAD. None changes nothing.

        A list that HEAD contradicts in the first listing of a repository is not used in this poll:
        no record shows which of its other digests are wrong, too.

        Args:
            answers: As in `compare`.
            scope: As in `compare`.
            now: The time after these answers.
        """
        if distrust := self.compare(answers, scope, now):
            return Believed(distrust=distrust)
        wrong = sorted(name for name, answer in answers.items() if self._contradicts(name, answer))
        if not wrong or scope.stored():
            return None
        self._report(f"HEAD contradicts it for {wrong[0]!r}, and no digest is recorded yet")
        return NOTHING

    def _contradicts(self, name: str, answer: str | None) -> bool:
        """Return whether an answer to HEAD is another digest than that of the list."""
        row = self._digests.get(name)
        return row is not None and answer is not None and row.digest != answer

    def compare(
        self, answers: Mapping[str, str | None], scope: Scope, now: datetime
    ) -> Distrust | None:
        """Compare the list with the answers to HEAD.

        Args:
            answers: The digest of each tag that was resolved by HEAD. None if that failed.
            scope: The record of the repository. It shows that a list is behind although an earlier
                process has noticed it.
            now: The time after these answers.

        Returns:
            Why the list is not used until the next start, if HEAD has contradicted the same digest
            of the list for longer than the list may be behind. Otherwise None.
        """
        doubted = self._note_suspicions(answers, scope, now)
        for name in sorted(doubted, key=lambda name: (doubted[name].since, name)):
            listed, since = doubted[name]
            answer = answers[name]
            if answer is not None and now - since > self._vendor.lag:
                times = timestamp(since), timestamp(now)
                self._notes.distrust = Distrust(self._vendor.name, name, listed, answer, *times)
                break
        return self._notes.distrust

    def _note_suspicions(
        self, answers: Mapping[str, str | None], scope: Scope, now: datetime
    ) -> dict[str, Suspicion]:
        """Update the suspicions, and return those of the tags that were resolved by HEAD."""
        suspicions, found = self._notes.suspicions, {}
        for name, answer in answers.items():
            row = self._digests.get(name)
            if row is None or row.digest is None or row.digest == answer:
                suspicions.pop(name, None)
                continue
            before = suspicions.get(name)
            if before is None or before.listed != row.digest:
                left_at = scope.left_at(name, row.digest)
                since = parse_timestamp(left_at) if left_at else now
                before = suspicions[name] = Suspicion(row.digest, since)
            found[name] = before
        return found


def _images(rows: Iterable[Row]) -> dict[str, Image]:
    types = {row.digest: row.media_type or "" for row in rows if row.digest}
    return {
        digest: Image(digest, media_type=manifests.media_type(text))
        for digest, text in types.items()
    }
