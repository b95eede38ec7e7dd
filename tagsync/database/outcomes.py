"""Pure: what polls found, and what it makes of a repository's row and of its observations."""

from collections.abc import Iterable, Sequence, Set
from datetime import timedelta
from typing import Final

import msgspec
from msgspec.structs import replace

from tagsync.clock import parse_timestamp, timestamp
from tagsync.database.parts import Names, names_of
from tagsync.models import (
    Change,
    Image,
    Kind,
    Listing,
    ObservedOutcome,
    RecordedChange,
    Repository,
    Unchanged,
)

_encode = msgspec.json.Encoder().encode

_BEHIND: Final = "the clock was behind the record"
"""What an observation says of listings whose times tell their order only."""


_SIZE_OF_A_CHANGE: Final = 2048
"""About how many bytes of memory a change takes, and with it the tag."""


class Known(msgspec.Struct, frozen=True):
    """What the database holds of a repository as a whole; attributes as its columns.

    ``id`` is null for a repository that was never polled. ``looks`` is the newest complete listing,
    recorded or held: as long as it is the same, there was none in between, whatever clocks said.
    """

    id: int | None = None
    last_attempt_at: str | None = None
    last_complete_at: str | None = None
    listing_hash: str | None = None
    not_before: str | None = None
    unlogged_from: int | None = None
    failures: int = 0
    looks: str | None = None


class Unlogged(msgspec.Struct, frozen=True):
    """Changes that are committed and whose log lines may not have been written.

    Attributes:
        baseline: how many tags were there when the repository was first listed; null where that
            is not news.
        changes: what happened after that, oldest first.
        through: the newest change of all repositories that this takes into account, for
            `Store.acknowledge`.
    """

    baseline: int | None
    changes: Sequence[RecordedChange]
    through: int


class EntryChange(msgspec.Struct, frozen=True, gc=False):
    """A change as it is recorded; attributes as the columns of ``changes``."""

    tag: str
    kind: Kind
    old_digest: str | None
    new_digest: str | None
    fields: str


class Entry:
    """A listing, and what it changes, in the form in which it is recorded.

    It is made before the transaction begins, so that nobody waits meanwhile. Many wait for it
    together, so no more is kept of the listing than is recorded.
    """

    def __init__(
        self,
        listing: Listing,
        changes: Sequence[Change],
        detail: str | None = None,
        bare: Set[str] = frozenset(),
    ) -> None:
        """Takes what is recorded.

        Args:
            listing: what was read.
            changes: what it changes in the mirror.
            detail: what the observation says of it.
            bare: the digests of images of which the record lacks what the listing may have, see
                `View.bare`.
        """
        self.started_at: Final = listing.started_at
        self.finished_at: Final = listing.finished_at
        self.fingerprint: Final = listing.fingerprint
        self.count: Final = len(listing.tags)
        self.detail: Final = detail
        self.changes: Final = [_as_recorded(change) for change in changes]
        self.tags: Final = [
            listing.tags[change.tag] for change in changes if change.kind != "deleted"
        ]
        fresh = fresh_in(listing, changes)
        self.images: Final = {
            digest: image
            for digest, image in {**listing.images, **listing.children}.items()
            if digest in fresh or digest in bare
        }
        self.names: Final = names_of_images(
            image for digest, image in self.images.items() if digest in fresh
        )
        """What those images name that may not be recorded yet."""
        manifests = sum(len(image.manifest or "") for image in self.images.values())
        self.size: Final = manifests + _SIZE_OF_A_CHANGE * len(changes)
        """About how many bytes of memory it takes."""


class Held(msgspec.Struct, frozen=True):
    """A listing that was complete and is not believed yet; the mirror stays.

    Attributes:
        detail: why, as `View.held_in_a_row` will be asked.
        at: when it had been read.
        tags: how many it had.
    """

    detail: str
    at: str
    tags: int


class Failed(msgspec.Struct, frozen=True):
    """That a poll gave no listing; everything else stays.

    Attributes:
        error: why, as a whole sentence.
        detail: what of it stays the same while the reason does, so that an outage is one row.
        at: when it was known.
    """

    error: str
    detail: str
    at: str


class Finding(msgspec.Struct, frozen=True):
    """What a poll found, as it is recorded.

    Attributes:
        repository: whose.
        known: what was recorded of it when the poll began.
        interval: how often it is meant to be polled.
        found: the listing and what it changes; that it was the recorded one again; that it is not
            believed; or that there was none.
    """

    repository: Repository
    known: Known
    interval: timedelta
    found: Entry | Unchanged | Held | Failed


class Recorded(msgspec.Struct, frozen=True):
    """What became of a finding.

    Attributes:
        known: what was recorded when it came to be.
        tags: how many the listing had; null where there was none.
        dropped: whether it was left out, as another listing had been recorded since the poll began.
        unlogged: the changes whose log lines are owed.
    """

    known: Known
    tags: int | None
    dropped: bool
    unlogged: Unlogged | None


class Observation(msgspec.Struct, frozen=True):
    """The newest row of a repository's observations; attributes as its columns."""

    id: int
    outcome: str
    detail: str | None
    last_at: str


class Standing(msgspec.Struct, frozen=True):
    """What is recorded of a repository when a finding comes to it.

    Attributes:
        known: see there.
        newest: the newest observation, of whatever outcome.
        detail: what the newest one of a recorded listing says.
        tags: how many tags that listing had.
    """

    known: Known = Known()
    newest: Observation | None = None
    detail: str | None = None
    tags: int = 0


class Draft(msgspec.Struct, frozen=True):
    """What a finding makes of a repository's row, and of its observations.

    Attributes:
        finding: what it comes from.
        standing: what was there before.
        after: the repository's row.
        error: that row's ``last_error``.
        outcome: of the observation.
        detail: what the observation says.
        tags: how many the listing had; null where there was none.
    """

    finding: Finding
    standing: Standing
    after: Known
    error: str | None
    outcome: ObservedOutcome
    detail: str | None
    tags: int | None

    @property
    def at(self) -> str:
        """When it is recorded."""
        return self.after.last_attempt_at or ""

    @property
    def grows(self) -> bool:
        """Whether the newest observation grows; a difference or a hole begins another one."""
        last = self.standing.newest
        return (
            last is not None
            and last.outcome == self.outcome
            and _same_but_for_times(last.detail, self.detail)
            and parse_timestamp(self.at) - parse_timestamp(last.last_at)
            <= 2 * self.finding.interval
        )


def draft(finding: Finding, standing: Standing, next_change: int) -> Draft | None:
    """What a finding makes of what is recorded.

    A listing was read after all that was recorded when its poll began. If another was recorded
    since (see `Known.looks`), nothing is made of it. If the clock says that it was read before, the
    clock was set back, and the record goes on from where it was, so that its times stay in order.

    Args:
        finding: see there.
        standing: what is recorded of its repository.
        next_change: the id of the first change that it brings, if it brings any.

    Returns:
        Null for a listing that is not to be recorded.
    """
    known, found = standing.known, finding.found
    if isinstance(found, Failed):
        # Two that fail together are told of in either order, which is no matter of the clock.
        at = max(found.at, known.last_attempt_at or found.at)
        after = replace(known, last_attempt_at=at, failures=known.failures + 1)
        return Draft(finding, standing, after, found.error, "failed", found.detail, None)
    if known.looks != finding.known.looks:
        return None
    if isinstance(found, Held):
        at, detail = _in_order(finding, known, found.at, found.detail)
        after = replace(known, last_attempt_at=at, failures=0)
        return Draft(finding, standing, after, found.detail, "held", detail, found.tags)
    if isinstance(found, Unchanged):
        at, detail = _in_order(finding, known, found.finished_at, _reason(standing.detail))
        after = _completed(known, at, found)
        return Draft(finding, standing, after, None, "ok", detail, standing.tags)
    at, detail = _in_order(finding, known, found.finished_at, found.detail)
    owed = next_change if found.changes or known.not_before is None else None
    after = replace(
        _completed(known, at, found),
        listing_hash=found.fingerprint,
        unlogged_from=owed if known.unlogged_from is None else known.unlogged_from,
    )
    return Draft(finding, standing, after, None, "ok", detail, found.count)


def fresh_in(listing: Listing, changes: Iterable[Change]) -> Set[str | None]:
    """The digests of a listing's images that may not be recorded yet."""
    return {change.new_digest for change in changes} | listing.children.keys()


def same_reason(one: str | None, other: str | None) -> bool:
    """Whether two observations say the same, whatever the clock said."""
    return _reason(one) == _reason(other)


def names_of_images(images: Iterable[Image]) -> dict[str, Names]:
    """What images name; see `tagsync.database.parts.names_of`."""
    return names_of((image.digest, image.manifest, image.image_id) for image in images)


def _as_recorded(change: Change) -> EntryChange:
    fields = _encode(change.fields).decode()
    return EntryChange(change.tag, change.kind, change.old_digest, change.new_digest, fields)


def _completed(known: Known, at: str, listing: Entry | Unchanged) -> Known:
    # If the clock was set back while it was read, it began no later than it ended.
    began = min(listing.started_at, listing.finished_at)
    return replace(known, last_attempt_at=at, last_complete_at=at, not_before=began, failures=0)


def _in_order(
    finding: Finding, known: Known, at: str, detail: str | None
) -> tuple[str, str | None]:
    """When something is recorded, and what the observation says of it.

    Where the clock is behind the record, the time is the next one after the record, and the
    observation keeps what the clock said: such times tell the order, and nothing else.
    """
    last = known.last_attempt_at
    if last is None or at >= last:
        return at, detail
    if at >= (finding.known.last_attempt_at or at):
        # Another poll, which began and failed meanwhile, was recorded first.
        return last, detail
    behind = f"{_BEHIND}: it said {at} after {last}"
    after = timestamp(parse_timestamp(last) + timedelta(milliseconds=1))
    return after, f"{detail}; {behind}" if detail else behind


def _reason(detail: str | None) -> str | None:
    """What an observation says, without what the clock said."""
    reason, behind, _ = (detail or "").partition(_BEHIND)
    return reason.removesuffix("; ") or None if behind else detail


def _same_but_for_times(one: str | None, other: str | None) -> bool:
    """Whether two observations say the same, the clock being behind in both or in neither."""
    behind = [_BEHIND in (detail or "") for detail in (one, other)]
    return behind[0] == behind[1] and same_reason(one, other)
