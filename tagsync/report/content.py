"""The content of a report, as types. A report as JSON is exactly this.

Each field has its meaning as a description, which also says what None means. The rows are those of
the commands (`tagsync.audit.rows`) where a command has them. Fields are only added, at the end.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from tagsync.audit.rows import (
    CoverageSummaryRow,
    FullName,
    HeadRow,
    ImmutableLogRow,
    LogRow,
    TagsAtRow,
    Time,
    VerifyRow,
)

ListName = Literal["repositories", "answers", "changes", "coverage", "gaps", "images", "immutable"]
"""The lists of a report, which may be cut."""


class ReportQuestion(msgspec.Struct, frozen=True):
    """The question, as tagsync understood it."""

    pattern: Annotated[str, Meta(description="the pattern as given")]
    repository: Annotated[str, Meta(description="the glob over full names of repositories")]
    tag: Annotated[
        str | None, Meta(description="the glob over names of tags; null if all tags are meant")
    ]
    from_: Annotated[
        Time | None,
        Meta(
            description="the first time; null means the first complete listing of each repository"
        ),
    ] = msgspec.field(name="from")
    to: Annotated[
        Time | None,
        Meta(description="the second time; null means the last complete listing of each one"),
    ]


class ReportRepository(msgspec.Struct, frozen=True):
    """A repository that the question is about."""

    repository: FullName
    from_: Annotated[
        Time | None,
        Meta(description="the first time for this repository; null if it was never listed"),
    ] = msgspec.field(name="from")
    to: Annotated[
        Time | None,
        Meta(description="the second time for this repository; null if it was never listed"),
    ]
    last_complete_at: Annotated[
        Time | None, Meta(description="the time of the last complete listing; null without one")
    ]


class ReportAnswer(msgspec.Struct, frozen=True):
    """The answer for one tag: its states at both times.

    The answers are in the order of the repositories and the tags. An answer without a tag says that
    complete listings of the repository do not cover one of the times.
    """

    repository: FullName
    tag: Annotated[
        str | None, Meta(description="the name of the tag; null in an answer about the repository")
    ]
    at_from: Annotated[
        Sequence[TagsAtRow],
        Meta(
            description="the states in which the tag may have been at the first time; empty if it"
            " certainly did not exist"
        ),
    ]
    at_to: Annotated[
        Sequence[TagsAtRow],
        Meta(
            description="the states in which the tag may have been at the second time; empty if it"
            " certainly did not exist"
        ),
    ]
    moves: Annotated[
        int, Meta(description="number of moves to another digest that may have been in between")
    ]
    changes: Annotated[int, Meta(description="number of changes that may have been in between")]


class ReportCounts(msgspec.Struct, frozen=True):
    """How many changes may have happened between the two times, by kind."""

    added: Annotated[int, Meta(description="number of tags that were added")]
    moved: Annotated[int, Meta(description="number of updates to another digest")]
    updated: Annotated[int, Meta(description="number of other updates")]
    deleted: Annotated[int, Meta(description="number of tags that were deleted")]

    @property
    def total(self) -> int:
        """The number of all changes."""
        return self.added + self.moved + self.updated + self.deleted


class ReportGap(msgspec.Struct, frozen=True):
    """A time without complete listings of a repository."""

    repository: FullName
    from_: Annotated[Time, Meta(description="the last complete listing before it")] = msgspec.field(
        name="from"
    )
    to: Annotated[Time, Meta(description="the first complete listing after it")]
    seconds: Annotated[float, Meta(description="the time between the two")]
    polls: Annotated[
        int,
        Meta(description="number of polls in the runs that failed or were held, and overlap it"),
    ]
    detail: Annotated[
        str | None, Meta(description="why the last of these polls failed; null without any")
    ]


class ReportLayer(msgspec.Struct, frozen=True):
    """A layer of an image. The lowest one is the first."""

    digest: Annotated[str, Meta(description="the digest of the layer")]
    size: Annotated[int | None, Meta(description="its size in bytes; null if not stated")]


class ReportPlatform(msgspec.Struct, frozen=True):
    """A manifest that an index references."""

    platform: Annotated[str, Meta(description="os/architecture/variant; empty if not stated")]
    digest: Annotated[str, Meta(description="the digest of the manifest")]


class ReportTag(msgspec.Struct, frozen=True):
    """An interval in which a tag pointed to an image, or to an index that leads to it."""

    repository: FullName
    tag: Annotated[str, Meta(description="the name of the tag")]
    not_before: Annotated[
        Time | None,
        Meta(
            description="the interval began after this time; null if the tag existed when its"
            " repository was first listed"
        ),
    ]
    valid_from: Annotated[Time, Meta(description="the interval began no later than this time")]
    still_at: Annotated[
        Time | None,
        Meta(description="the last time at which the tag is known to have; null if unknown"),
    ]
    valid_to: Annotated[
        Time | None,
        Meta(description="the tag did no longer at this time; null if it did in the last listing"),
    ]


class ReportImage(msgspec.Struct, frozen=True):
    """An image of the answer: what it consists of, and which tags had it.

    The images at the second time come first, then those at the first time, then those in between.
    """

    digest: Annotated[str, Meta(description="the digest of the manifest")]
    media_type: Annotated[
        str | None, Meta(description="as the manifest states it; null if unknown")
    ]
    size: Annotated[
        int | None, Meta(description="bytes of configuration and layers; null if unknown")
    ]
    verified: Annotated[
        bool | None,
        Meta(
            description="whether the recorded manifest hashes to the digest; null without a"
            " manifest"
        ),
    ]
    first_observed_at: Annotated[
        Time, Meta(description="the end of the first listing that contained the image")
    ]
    platforms: Annotated[
        Sequence[ReportPlatform], Meta(description="what an index references; otherwise empty")
    ]
    layers: Annotated[Sequence[ReportLayer], Meta(description="the layers, the lowest first")]
    tags_now: Annotated[int, Meta(description="number of tags that lead to it now")]
    tags_ever: Annotated[int, Meta(description="number of tags that ever led to it")]
    tags: Annotated[
        Sequence[ReportTag], Meta(description="some of these tags: at first those of now")
    ]


class ReportVerification(msgspec.Struct, frozen=True):
    """The last verification of the whole record that the daemon recorded."""

    at: Annotated[Time, Meta(description="when it ended")]
    result: Annotated[
        Literal["ok", "fault", "failed"],
        Meta(description="whether it found a fault, or could not be finished"),
    ]
    seconds: Annotated[float, Meta(description="how long it took")]
    detail: Annotated[
        str | None, Meta(description="the faults, or why it failed; null if it is ok")
    ]
    heads: Annotated[
        Sequence[HeadRow], Meta(description="the newest heads that were verified without a fault")
    ]


class ReportProof(msgspec.Struct, frozen=True):
    """The verification that was run for this report."""

    checks: Annotated[Sequence[VerifyRow], Meta(description="the rows of tagsync verify")]
    fault: Annotated[bool, Meta(description="whether a check found a fault")]
    conclusion: Annotated[str, Meta(description="what was proven, in words")]


class ReportQuery(msgspec.Struct, frozen=True):
    """A query in SQL that anyone can run on the database, with sqlite3."""

    answers: Annotated[str, Meta(description="what its rows are")]
    sql: Annotated[str, Meta(description="the query")]


class ReportList(msgspec.Struct, frozen=True):
    """How much of a list is in the report."""

    name: Annotated[ListName, Meta(description="the field of the report")]
    shown: Annotated[int, Meta(description="number of rows in the report")]
    total: Annotated[
        int | None, Meta(description="number of all rows; null if the list is cut and uncounted")
    ]
    command: Annotated[str, Meta(description="the command that gives all rows")]

    @property
    def is_cut(self) -> bool:
        """Whether rows are left out."""
        return self.total != self.shown


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A question about the record, its answer, and the evidence."""

    made_at: Annotated[Time, Meta(description="when the report was made")]
    version: Annotated[str, Meta(description="the version of tagsync that made it")]
    question: Annotated[ReportQuestion, Meta(description="the question")]
    repositories: Annotated[
        Sequence[ReportRepository], Meta(description="the repositories that the pattern matches")
    ]
    answers: Annotated[Sequence[ReportAnswer], Meta(description="the answer for each tag")]
    counts: Annotated[ReportCounts, Meta(description="how many changes are in between")]
    changes: Annotated[
        Sequence[LogRow],
        Meta(description="the changes in between without the baseline, the oldest first"),
    ]
    coverage: Annotated[
        Sequence[CoverageSummaryRow],
        Meta(description="how much of the time complete listings cover"),
    ]
    gaps: Annotated[Sequence[ReportGap], Meta(description="the gaps in coverage")]
    images: Annotated[Sequence[ReportImage], Meta(description="the images of the answer")]
    verification: Annotated[
        ReportVerification | None,
        Meta(description="the last verification by the daemon; null if none is recorded"),
    ]
    proof: Annotated[
        ReportProof | None, Meta(description="the verification for this report; null if none ran")
    ]
    heads: Annotated[Sequence[HeadRow], Meta(description="the heads of both hash chains")]
    queries: Annotated[Sequence[ReportQuery], Meta(description="the question in SQL")]
    check: Annotated[
        str, Meta(description="a Python script that recomputes the chain of changes up to its head")
    ]
    lists: Annotated[
        Sequence[ReportList], Meta(description="how much of each list is in the report")
    ]
    immutable: Annotated[
        Sequence[ImmutableLogRow],
        Meta(
            description="the changes in between that moved or deleted a tag that must not move,"
            " accepted ones included, the oldest first"
        ),
    ]

    def length_of(self, name: ListName) -> ReportList:
        """Return how much of a list is in the report."""
        return next(each for each in self.lists if each.name == name)
