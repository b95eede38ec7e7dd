"""The four outcomes of a poll. Pure.

`Accepted` and `Held` contain a listing. `Unchanged` (from `tagsync.models`) means that the registry
returned the recorded listing again. `Failed` has no complete listing.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Final, Literal

import msgspec

from tagsync.errors import FailureReason, RegistryError
from tagsync.models import Change, Listing, RecordedChange, Unchanged

Reason = (
    Literal[
        "gone",
        "suspicious_deletion",
        "stale_listing",
        "alternating",
        "unverified",
        "unresolved",
        "unfetched",
        "bad_name",
        "bad_field",
        "list_distrusted",
        "damaged",
    ]
    | FailureReason
)
"""The words of ``observations.reasons``."""


class Alternation(msgspec.Struct, frozen=True):
    """Two states of a repository that alternate in its listings.

    Attributes:
        phase: Whether the alternation begins with this listing, lasts, or has ended.
        tags: Names of some tags in which the two states differ.
    """

    phase: Literal["began", "lasts", "ended"]
    tags: tuple[str, ...]


class Accepted(msgspec.Struct, frozen=True):
    """A listing to record, and what it changes.

    Attributes:
        listing: The listing that was read.
        changes: The differences between the stored tags and the listing.
        reasons: Words for what is unusual about the listing. Empty if nothing is unusual.
        reason_key: Fingerprint of the tags that the reasons are about. None if ``reasons``
            is empty.
        detail: The reasons in a sentence. None if ``reasons`` is empty.
        alternation: The alternation that this listing is part of, or ends. None if there is none.
    """

    listing: Listing
    changes: Sequence[Change]
    reasons: tuple[Reason, ...] = ()
    reason_key: str | None = None
    detail: str | None = None
    alternation: Alternation | None = None


class Held(msgspec.Struct, frozen=True):
    """A complete listing that is suspicious or stale; the stored tags stay as they are.

    Attributes:
        listing: The listing that was read.
        reasons: Words for why the listing is held.
        reason_key: Fingerprint of what listings have to share to agree.
        detail: The reasons in a sentence, and when a listing will be recorded.
        counts_from: A listing that begins earlier than this time will not be recorded.
        alternation: As in `Accepted`.
    """

    listing: Listing
    reasons: tuple[Reason, ...]
    reason_key: str
    detail: str
    counts_from: str
    alternation: Alternation | None = None


class Failed(msgspec.Struct, frozen=True):
    """A poll without a complete listing. The stored tags stay as they are.

    Attributes:
        error: Why the poll failed.
        finished_at: When the poll failed.
    """

    error: RegistryError
    finished_at: str

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """The word for the error, as a tuple like the reasons of the other outcomes."""
        return (self.error.reason,)

    @property
    def detail(self) -> str:
        """The error in a sentence that is equal for all polls that fail in the same way.

        If the error has an HTTP status, the sentence leaves out the server's text, because that may
        differ each time. For instance, it may contain the id of the request.
        """
        error = self.error
        if error.status is None:
            return str(error)
        return f"{type(error).__name__}: status {error.status}, code {error.code or 'none'}"

    @property
    def reason_key(self) -> str:
        """A fingerprint of the kind of error, its HTTP status and the registry's own code.

        Polls that fail in the same way are one observation, however the error is worded.
        """
        error = self.error
        return fingerprint_of(type(error).__name__, str(error.status), str(error.code))


class Damaged(msgspec.Struct, frozen=True):
    """A poll that failed because the repository's record is not what tagsync wrote.

    Attributes:
        detail: The damage, in a few words.
        finished_at: When the poll failed.
    """

    detail: str
    finished_at: str

    @property
    def reason_key(self) -> str:
        """A fingerprint of the sentence."""
        return fingerprint_of(self.detail)


Outcome = Accepted | Unchanged | Held | Failed


ViolationKind = Literal["immutable_moved", "immutable_deleted"]
"""The way in which an immutable tag changed. The words are those of ``events.kind``."""


class Violation(msgspec.Struct, frozen=True):
    """How a change breaks the promise of an immutable tag.

    Attributes:
        kind: Whether the tag moved or was deleted.
        previous_digest: The last digest that the tag is known to have pointed to before the change.
            None if a tag was deleted that was never resolved.
        pattern: The glob that the tag matches.
    """

    kind: ViolationKind
    previous_digest: str | None
    pattern: str


class PendingLog(msgspec.Struct, frozen=True):
    """Log lines of committed changes that still have to be written.

    Attributes:
        baseline: Number of tags in the repository's first listing. None if the line about the first
            listing is not pending.
        changes: The changes to log, oldest first, without those of the first listing.
        through: Id of the newest change that these lines cover. It is acknowledged once they are
            written.
        violations: The changes among them that break the promise of an immutable tag, by id.
    """

    baseline: int | None = None
    changes: Sequence[RecordedChange] = ()
    through: int = 0
    violations: Mapping[int, Violation] = {}


NO_LINES: Final = PendingLog()
"""Nothing to log."""


def fingerprint_of(*texts: str) -> str:
    """Return a short hash of some texts in their order, for ``reason_key``."""
    return sha256("\0".join(texts).encode()).hexdigest()[:12]
