"""The rows of the commands that ask and prove, as types.

JSON, JSON lines, CSV and `tagsync.api` are made from these types, and so are the schemas in
``docs/schemas`` and the tables of fields in ``docs/output.md``. Each field has its meaning as a
description, which also says what None means. Fields are only added, at the end.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta

from tagsync.audit.certainty import Level
from tagsync.database.decoding import TIMESTAMP_PATTERN, Fields, damaged
from tagsync.database.hash_chain import Heads
from tagsync.manifests import Role
from tagsync.models import Kind

Time = Annotated[str, Meta(pattern=TIMESTAMP_PATTERN, extra_json_schema={"format": "date-time"})]
"""A time taken by tagsync: ISO 8601 in UTC, with milliseconds, as `tagsync.clock.timestamp`."""

FullName = Annotated[str, Meta(description="the full name, registry/namespace/name")]

DigestBefore = Annotated[
    str | None, Meta(description="the digest before the change; null if absent or not resolved")
]

DigestAfter = Annotated[
    str | None, Meta(description="the digest after the change; null if absent or not resolved")
]

ChangedFields = Annotated[
    Fields, Meta(description="each field that differs, as a list of its old and its new value")
]

UnsureFrom = Annotated[
    Time | None,
    Meta(
        description="the answer is not certain from this time on; null if it is certain, or if it"
        " is not certain for any earlier time"
    ),
]

UnsureUntil = Annotated[
    Time | None,
    Meta(
        description="the answer is not certain until this time; null if it is certain, or if the"
        " uncertainty has not ended"
    ),
]

_HASH: Final = Meta(pattern="^[0-9a-f]{64}$")


class StatusRow(msgspec.Struct, frozen=True):
    """How fresh the record of a repository is.

    The rows are in the order of the registries and their repositories. Configured repositories
    that were never polled have a row, too.
    """

    repository: FullName
    last_complete_at: Annotated[
        Time | None, Meta(description="the time of the last complete listing; null without one")
    ]
    tags: Annotated[
        int | None, Meta(description="number of tags now; null if the repository was never polled")
    ]
    outcome: Annotated[
        Literal["ok", "failed", "held"] | None,
        Meta(description="how the last poll ended; null if the repository was never polled"),
    ]
    failures: Annotated[int, Meta(description="number of failed polls since the last listing")]
    last_error: Annotated[
        str | None, Meta(description="why the last poll failed or was held; null if it was ok")
    ]
    stale: Annotated[
        bool | None,
        Meta(
            description="whether there was no complete listing for three poll intervals; null if"
            " the repository is not watched"
        ),
    ]
    distrust: Annotated[
        str | None,
        Meta(
            description="the tag, digests and times by which HEAD contradicted the registry's own"
            " list, which is then not used; null if it has not"
        ),
    ]


class TagsRow(msgspec.Struct, frozen=True):
    """A tag of the last complete listing.

    The rows are in the order of the registries, their repositories and the tags.
    """

    repository: FullName
    tag: Annotated[str, Meta(description="the name of the tag")]
    digest: Annotated[
        str | None, Meta(description="the digest that the tag points to; null if not resolved")
    ]
    image_id: Annotated[
        str | None, Meta(description="the digest of the image's configuration; null if unknown")
    ]
    size: Annotated[int | None, Meta(description="the image's size in bytes; null if unknown")]
    updated: Annotated[
        str | None,
        Meta(
            description="the time of the last push that the registry claims, as the registry sent"
            " it; null if it claims none"
        ),
    ]
    changed_at: Annotated[Time, Meta(description="observed_at of the tag's last change")]


class TagsAtRow(msgspec.Struct, frozen=True):
    """A state in which a tag may have been at a time.

    The rows are in the order of the registries, their repositories and the tags. A tag whose state
    is not certain has a row for each state that it may have had, in the order of time. A row
    without a tag says that nothing is known of the repository at this time.
    """

    repository: FullName
    tag: Annotated[
        str | None, Meta(description="the name of the tag; null if no tag is known for this time")
    ]
    digest: Annotated[
        str | None,
        Meta(description="the digest that the tag pointed to; null if absent or not resolved"),
    ]
    image_id: Annotated[
        str | None,
        Meta(
            description="the digest of the image's configuration, as the registry listed it; null"
            " if it listed none"
        ),
    ]
    size: Annotated[
        int | None,
        Meta(
            description="the image's size in bytes, as the registry listed it; null if it listed"
            " none"
        ),
    ]
    updated: Annotated[
        str | None,
        Meta(
            description="the time of the last push that the registry claimed, as the registry sent"
            " it; null if it claimed none"
        ),
    ]
    changed_at: Annotated[
        Time | None,
        Meta(
            description="observed_at of the change to this state; null in the state before the"
            " first change"
        ),
    ]
    present: Annotated[
        bool | None,
        Meta(description="whether the tag existed in this state; null without a tag"),
    ]
    certainty: Annotated[Level, Meta(description="how certain the row is, see docs/audit.md")]
    unsure_from: UnsureFrom
    unsure_until: UnsureUntil


class LogRow(msgspec.Struct, frozen=True):
    """A recorded change.

    The rows are in the order of ``id``, the oldest first; with ``--reverse`` the newest first.
    """

    id: Annotated[int, Meta(description="1, 2, 3 … without gaps")]
    observed_at: Annotated[Time, Meta(description="the change happened no later than this time")]
    not_before: Annotated[
        Time | None,
        Meta(
            description="the change happened after this time; null in the baseline: the tag existed"
            " when its repository was first listed"
        ),
    ]
    repository: FullName
    tag: Annotated[str, Meta(description="the name of the tag")]
    kind: Annotated[Kind, Meta(description="what happened to the tag")]
    moved: Annotated[bool, Meta(description="whether the tag was updated to another digest")]
    old_digest: DigestBefore
    new_digest: DigestAfter
    fields: ChangedFields
    hash: Annotated[
        str, _HASH, Meta(description="the hash of the change, a link of the chain of changes")
    ]


class ImmutableLogRow(LogRow, frozen=True):
    """A change that moved or deleted an immutable tag.

    The rows are in the order of ``id``, the oldest first; with ``--reverse`` the newest first.
    """

    violation: Annotated[
        Literal["immutable_moved", "immutable_deleted"],
        Meta(description="whether the tag moved, also after a deletion, or was deleted"),
    ]
    previous_digest: Annotated[
        str | None,
        Meta(description="the last digest that the tag had before; null if none was resolved"),
    ]
    pattern: Annotated[
        str, Meta(description="the glob of the key immutable that the tag matched at that time")
    ]
    accepted_at: Annotated[
        Time | None, Meta(description="when the change was accepted; null if it was not")
    ]
    accepted_by: Annotated[
        str | None, Meta(description="the user who accepted it; null if it was not accepted")
    ]
    reason: Annotated[
        str | None, Meta(description="why it was accepted; null if it was not accepted")
    ]


class DiffRow(msgspec.Struct, frozen=True):
    """A difference between the states of a tag at two times.

    The rows are in the order of the registries, their repositories and the tags. If the state of
    the tag is not certain, there is a row for each possible pair of different states. A row without
    a tag comes first in its repository, and says that complete listings do not cover one of the
    times.
    """

    repository: FullName
    tag: Annotated[
        str | None,
        Meta(description="the name of the tag; null in the row about the whole repository"),
    ]
    kind: Annotated[Kind | None, Meta(description="the kind of the difference; null without a tag")]
    old_digest: Annotated[
        str | None,
        Meta(description="the digest at the first time; null if absent or not resolved"),
    ]
    new_digest: Annotated[
        str | None,
        Meta(description="the digest at the second time; null if absent or not resolved"),
    ]
    fields: Annotated[
        Fields | None,
        Meta(
            description="each field that differs, as a list of its old and its new value; null"
            " without a tag"
        ),
    ]
    certainty: Annotated[
        Level, Meta(description="the lower certainty of the two states, see docs/audit.md")
    ]
    unsure_from: UnsureFrom
    unsure_until: UnsureUntil


class FindRow(msgspec.Struct, frozen=True):
    """An interval in which a tag led to a digest.

    The rows are in the order of the digests as given, and for each digest in the order of the
    full names, the tags and ``valid_from``. A digest to which no tag ever led has one row, with the
    role ``unknown``, in which only ``query`` and ``role`` have a value.
    """

    query: Annotated[str, Meta(description="the digest as given, completed if it is recorded")]
    repository: Annotated[
        str | None,
        Meta(description="the full name, registry/namespace/name; null for an unknown digest"),
    ]
    tag: Annotated[str | None, Meta(description="the name of the tag; null for an unknown digest")]
    role: Annotated[
        Role | Literal["unknown"],
        Meta(description="what the digest is the digest of"),
    ]
    digest: Annotated[
        str | None,
        Meta(description="the digest that the tag pointed to; null for an unknown digest"),
    ]
    platform: Annotated[
        str | None,
        Meta(
            description="the platform that an index states, if the tag led to the digest through an"
            " index; otherwise null"
        ),
    ]
    not_before: Annotated[
        Time | None,
        Meta(
            description="the interval began after this time; null if the tag existed when its"
            " repository was first listed, and for an unknown digest"
        ),
    ]
    valid_from: Annotated[
        Time | None,
        Meta(description="the interval began no later than this time; null for an unknown digest"),
    ]
    still_at: Annotated[
        Time | None,
        Meta(
            description="the last time at which the tag is known to have led to the digest; null"
            " for an unknown digest"
        ),
    ]
    valid_to: Annotated[
        Time | None,
        Meta(
            description="the tag led to the digest no longer at this time; null if it did in the"
            " last listing, and for an unknown digest"
        ),
    ]


class FindSummaryRow(msgspec.Struct, frozen=True):
    """How many tags lead, or led, to a digest.

    The rows are in the order of the digests as given.
    """

    query: Annotated[str, Meta(description="the digest as given, completed if it is recorded")]
    role: Annotated[
        Role | Literal["unknown"],
        Meta(description="what the digest is the digest of; unknown if no tag ever led to it"),
    ]
    tags_now: Annotated[
        int, Meta(description="number of tags that lead to the digest in the last listings")
    ]
    tags_ever: Annotated[int, Meta(description="number of tags that ever led to the digest")]
    repositories: Annotated[int, Meta(description="number of repositories of these tags")]


class CoverageRow(msgspec.Struct, frozen=True):
    """A run of polls with the same result, or a gap without any poll.

    The rows are in the order of the registries, their repositories and the time.
    """

    repository: FullName
    from_: Annotated[
        Time, Meta(description="the first poll of the run, or the start of the gap")
    ] = msgspec.field(name="from")
    to: Annotated[Time, Meta(description="the last poll of the run, or the end of the gap")]
    seconds: Annotated[float, Meta(description="the time between the two")]
    state: Annotated[
        Literal["looking", "failed", "held", "hole"],
        Meta(
            description="complete listings, failed polls, held listings, or a gap without any poll"
        ),
    ]
    polls: Annotated[int, Meta(description="number of polls; 0 for a gap")]
    detail: Annotated[
        str | None,
        Meta(
            description="why the polls failed or were held, or what is unusual; null if there is"
            " nothing to say"
        ),
    ]


class CoverageSummaryRow(msgspec.Struct, frozen=True):
    """How much of a repository's time complete listings cover.

    The rows are in the order of the registries and their repositories. The time that is summed up
    is that of the rows without ``--summary``, within ``--since`` and ``--until``.
    """

    repository: FullName
    from_: Annotated[Time, Meta(description="the start of the time that is summed up")] = (
        msgspec.field(name="from")
    )
    to: Annotated[Time, Meta(description="the end of the time that is summed up")]
    seconds: Annotated[float, Meta(description="the time between the two")]
    looking_seconds: Annotated[float, Meta(description="the part that complete listings cover")]
    percent: Annotated[float, Meta(description="the same part in percent, rounded down")]
    longest_gap_seconds: Annotated[
        float | None,
        Meta(description="the longest time without a complete listing; null if there is none"),
    ]
    longest_gap_from: Annotated[
        Time | None, Meta(description="the start of this gap; null if there is none")
    ]
    longest_gap_to: Annotated[
        Time | None, Meta(description="the end of this gap; null if there is none")
    ]


class VerifyRow(msgspec.Struct, frozen=True):
    """The result of a check.

    The rows are in the order in which the checks run, which docs/audit.md lists.
    """

    check: Annotated[str, Meta(description="the name of the check")]
    rows: Annotated[int, Meta(description="number of rows that the check read")]
    result: Annotated[Literal["ok", "fault"], Meta(description="whether the check found a fault")]
    detail: Annotated[
        str | None,
        Meta(
            description="the first fault, or the head that was computed; null if there is nothing"
            " to say"
        ),
    ]


class HeadRow(msgspec.Struct, frozen=True):
    """The newest link of a hash chain.

    There are two rows: ``changes`` and then ``observations``.
    """

    chain: Annotated[Literal["changes", "observations"], Meta(description="the hash chain")]
    id: Annotated[
        int,
        Meta(
            description="the id of the newest change, or the number (ended) of the observation that"
            " ended last; 0 if the chain is empty"
        ),
    ]
    hash: Annotated[str, _HASH, Meta(description="its hash; 64 zeros if the chain is empty")]


def head_rows(heads: Heads) -> list[HeadRow]:
    """Return the heads of both hash chains as rows."""
    changes, observations = heads.changes, heads.observations
    return [
        HeadRow("changes", changes.change_id, changes.hash),
        HeadRow("observations", observations.ended, observations.hash),
    ]


AnyRow = TypeVar("AnyRow", bound=msgspec.Struct)


def as_rows(rows: Iterable[Mapping[str, Any]], kind: type[AnyRow]) -> Iterator[AnyRow]:
    """Yield the rows of a query as their type. Keys that the type lacks are left out.

    Raises:
        DamagedRecord: If a value is not of its type, because tagsync did not write it.
    """
    for row in rows:
        try:
            typed = msgspec.convert(row, kind)
        except msgspec.ValidationError as error:
            raise damaged(_name(row), error) from error
        yield typed


def column_names(kind: type[msgspec.Struct]) -> tuple[str, ...]:
    """Return the names of the fields of a type, as the output has them."""
    return kind.__struct_encode_fields__


def _name(row: Mapping[str, Any]) -> str:
    words = (f"{key} {row[key]}" for key in ("id", "repository", "tag") if row.get(key) is not None)
    return f"a row of the result ({', '.join(words)})"
