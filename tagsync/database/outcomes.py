"""The outcomes of a poll, as they are recorded. Pure.

A poll ends in one of four outcomes: `Accepted` and `Held` come with a listing, `Unchanged` (from
`tagsync.models`) repeats the recorded one, and `Failed` has none.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Final, Literal

import msgspec

from tagsync.errors import FailureReason, RegistryError
from tagsync.models import Change, Listing, RecordedChange, Unchanged

Reason = (
    Literal[
        "gone",
        "suspicious_deletion",
        "unverified",
        "unresolved",
        "unfetched",
        "bad_name",
        "damaged",
    ]
    | FailureReason
)
"""The words of ``observations.reasons``."""


class Accepted(msgspec.Struct, frozen=True):
    """A listing to record, and what it changes.

    Attributes:
        listing: The listing that was read.
        changes: The differences between the stored tags and the listing.
        reasons: Oddities of the listing; empty if it has none.
        reason_key: Fingerprint of what the reasons are about. None without reasons.
        detail: The reasons in a sentence. None without reasons.
    """

    listing: Listing
    changes: Sequence[Change]
    reasons: tuple[Reason, ...] = ()
    reason_key: str | None = None
    detail: str | None = None


class Held(msgspec.Struct, frozen=True):
    """A complete listing with suspicious deletions; the stored tags stay as they are.

    Attributes:
        listing: The listing that was read.
        reasons: Why it is held.
        reason_key: Fingerprint of the set of deletions. Two listings agree if theirs are equal.
        detail: The reasons in a sentence.
    """

    listing: Listing
    reasons: tuple[Reason, ...]
    reason_key: str
    detail: str


class Failed(msgspec.Struct, frozen=True):
    """A poll without a complete listing; only the observation is recorded.

    Attributes:
        error: Why it failed.
        finished_at: When it failed.
    """

    error: RegistryError
    finished_at: str

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """The error in one word."""
        return (self.error.reason,)

    @property
    def detail(self) -> str:
        """The error in a sentence that is the same for each poll that fails in this way.

        A server's text may differ each time, for instance by the ids of requests.
        """
        error = self.error
        if error.status is None:
            return str(error)
        return f"{type(error).__name__}: status {error.status}, code {error.code or 'none'}"

    @property
    def reason_key(self) -> str:
        """Fingerprint of the detail: polls that fail in the same way are one observation."""
        return fingerprint_of(self.detail)


Outcome = Accepted | Unchanged | Held | Failed


class PendingLog(msgspec.Struct, frozen=True):
    """Log lines that are due for committed changes.

    Attributes:
        baseline: Number of tags when the repository was first listed. None if that is not news.
        changes: The changes after that, oldest first.
        through: The newest change that these lines cover; to be acknowledged.
    """

    baseline: int | None = None
    changes: Sequence[RecordedChange] = ()
    through: int = 0


NO_LINES: Final = PendingLog()
"""Nothing to log."""


def fingerprint_of(*texts: str) -> str:
    """Return a short fingerprint of some texts, for ``reason_key``."""
    return sha256("\0".join(texts).encode()).hexdigest()[:12]
