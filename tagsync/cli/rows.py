"""The rows of the commands that use registries, as types; see `tagsync.audit.rows`."""

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from tagsync.audit.rows import ChangedFields, DigestAfter, DigestBefore, FullName
from tagsync.models import Kind
from tagsync.polling.jobs import PollOutcome


class SyncRow(msgspec.Struct, frozen=True):
    """The result of a poll.

    The rows are in the order of the registries and their repositories, after the rows of globs.
    """

    repository: Annotated[
        FullName,
        Meta(description="the full name; the glob, if it could not be expanded or matches nothing"),
    ]
    outcome: Annotated[
        PollOutcome,
        Meta(description="how the poll ended; dropped: another process recorded a newer listing"),
    ]
    tags: Annotated[
        int | None, Meta(description="number of tags in the listing; null if there is none")
    ]
    added: Annotated[int, Meta(description="number of added tags")]
    updated: Annotated[int, Meta(description="number of updated tags")]
    deleted: Annotated[int, Meta(description="number of deleted tags")]
    detail: Annotated[
        str | None,
        Meta(
            description="why the poll failed, was held or dropped, or what is unusual about the"
            " listing; null if there is nothing to say"
        ),
    ]


class ExpectedChange(msgspec.Struct, frozen=True):
    """A change that a pass would record. The changes are in the order of the tags."""

    tag: Annotated[str, Meta(description="the name of the tag")]
    kind: Annotated[Kind, Meta(description="what would happen to the tag")]
    moved: Annotated[bool, Meta(description="whether the tag would be updated to another digest")]
    old_digest: DigestBefore
    new_digest: DigestAfter
    fields: ChangedFields


class SyncDryRunRow(SyncRow, frozen=True):
    """The result that a poll would have.

    The rows are in the order of the registries and their repositories, after the rows of globs.
    """

    dry_run: Annotated[bool, Meta(description="true: nothing was recorded")]
    changes: Annotated[
        Sequence[ExpectedChange], Meta(description="the changes that a pass would record")
    ]


class CheckRow(msgspec.Struct, frozen=True):
    """The result for one thing that was checked.

    The rows with the result ``ok`` come first, then ``warning``, then ``failed``. Those with the
    same result are in the order in which the command checks.
    """

    subject: Annotated[str, Meta(description="what was checked, such as glob swr/team/*")]
    result: Annotated[
        Literal["ok", "warning", "failed"],
        Meta(description="whether it works; failed also makes the command fail"),
    ]
    detail: Annotated[str, Meta(description="the reason for the result")]
    advice: Annotated[str | None, Meta(description="what to do; null if the result is ok")]
