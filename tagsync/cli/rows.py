"""The rows of commands that use registries or destinations; see `tagsync.audit.rows`."""

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from tagsync.audit.rows import ChangedFields, DigestAfter, DigestBefore, FullName, Time
from tagsync.models import Kind
from tagsync.notify.targets import TargetKind
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


class NotifyPreviewRow(msgspec.Struct, frozen=True):
    """A message that a destination would have been sent.

    The rows are in the order of the destinations in the configuration, and of the events.
    """

    destination: Annotated[str, Meta(description="the name of the destination")]
    first_event: Annotated[int, Meta(description="the id of the first event of the message")]
    last_event: Annotated[int, Meta(description="the id of the last event of the message")]
    events: Annotated[int, Meta(description="how many events the message stands for")]
    at: Annotated[Time, Meta(description="when the last of the events was observed")]
    subject: Annotated[str, Meta(description="the subject")]
    text: Annotated[str, Meta(description="the text for people")]


class NotifyStatusRow(msgspec.Struct, frozen=True):
    """How far a destination of notifications has got.

    The rows are in the order of the destinations in the configuration. Those that the configuration
    no longer has follow, in the order of their names.
    """

    destination: Annotated[str, Meta(description="the name of the destination")]
    kind: Annotated[
        TargetKind | None,
        Meta(description="how it is reached; null if the configuration does not have it"),
    ]
    cursor: Annotated[
        int | None,
        Meta(
            description="the id of an event: this and all earlier ones were accepted or are not"
            " wanted; null if nothing was ever sent"
        ),
    ]
    newest: Annotated[int, Meta(description="the id of the newest event; 0 if there is none")]
    waiting: Annotated[
        int, Meta(description="how many events its filter lets through, but it has not accepted")
    ]
    sending: Annotated[int, Meta(description="how many of them are being sent, or were in vain")]
    sequence: Annotated[
        int, Meta(description="the number of the last event that it accepted; 0 if there is none")
    ]
    failures: Annotated[int, Meta(description="how many attempts in a row have failed")]
    failing_since: Annotated[
        Time | None, Meta(description="when the first of them failed; null if none has")
    ]
    last_error: Annotated[str | None, Meta(description="why the last one failed; null if none has")]
    retry_at: Annotated[
        Time | None, Meta(description="when the next attempt is due; null if none has failed")
    ]
    last_accepted_at: Annotated[
        Time | None, Meta(description="when it last accepted a message; null if it never has")
    ]
    lease_holder: Annotated[
        str | None, Meta(description="the process that may send at the moment; null if none")
    ]
