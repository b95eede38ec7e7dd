"""The guard: how far a registry's own list is believed. Pure.

A vendor's list may be empty, cut, stale or wrong, and still look well. The names of the tags come
from ``tags/list``, or from the list itself if the registry has only one store of names. For each of
these names:

==============================================================  ==================================
the list has                                                    the digest comes from
==============================================================  ==================================
no digest, several digests, or an invalid digest                HEAD
another digest than the one that is recorded                    HEAD
a digest, and no digest of this tag is recorded                 HEAD, but see below
a digest, and it is the turn of the tag in the sample           HEAD
a digest that an earlier answer to HEAD contradicted            HEAD
a digest in all other cases                                     the list
==============================================================  ==================================

The first listing of a repository takes the digests of a list that is read from the same store as
the answer to HEAD, unless HEAD contradicts one of its sample. Every later change has been seen by
HEAD.

A name that only the list has is ignored, because the list does not decide which tags exist. A list
without rows, or with fewer than half of the names, is not used at all.

**The sample.** Each tag has a slot that follows from its name. In each poll, tagsync resolves by
HEAD the tags whose slot has its turn, and then tags of the next slots until the sample has at least
three tags and the share that the period requires. The turn is the number of recorded polls, so a
restart does not change it, and each tag is resolved once within the period, whatever tags come and
go.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple
from zlib import crc32

from tagsync import manifests
from tagsync.models import Tag
from tagsync.registries.oci.lists.protocol import Row

SMALLEST_SAMPLE: Final = 3
"""Minimum number of tags that each poll resolves by HEAD, if the repository has as many."""


class Rules(NamedTuple):
    """The properties of a list that decide how far it is believed.

    Attributes:
        same_store: As in `TagList`.
        period: As `TagList.sample_period`.
    """

    same_store: bool = True
    period: int = 100


def why_unusable(rows: Iterable[Row], names: Collection[str]) -> str | None:
    """Return why a list is not used in this poll, in a phrase. None if it is used.

    Args:
        rows: The rows of the list.
        names: The names of the tags; if the list is also the list of names, the recorded ones.
    """
    listed = {row.name for row in rows}
    if not listed:
        return "the list has no rows"
    known = sum(name in listed for name in names)
    if 2 * known < len(names):
        return f"the list has only {known} of {len(names)} names"
    return None


def valid_digests(rows: Iterable[Row]) -> dict[str, Row]:
    """Return the row of each tag for which the list has exactly one valid digest."""
    found: dict[str, Row] = {}
    ambiguous: set[str] = set()
    for row in rows:
        before = found.setdefault(row.name, row)
        if before.digest != row.digest or row.digest is None or not manifests.is_digest(row.digest):
            ambiguous.add(row.name)
    return {name: row for name, row in found.items() if name not in ambiguous}


def believed(
    claims: Mapping[str, Row],
    names: Iterable[str],
    recorded: Mapping[str, Tag],
    doubted: Collection[str],
    turn: int,
    rules: Rules,
) -> dict[str, Row]:
    """Return the rows whose digest counts without a HEAD request.

    Args:
        claims: The result of `valid_digests`.
        names: The names of the tags that need a digest.
        recorded: The recorded tags by name.
        doubted: Tags for which HEAD contradicted the list, or failed, in an earlier poll.
        turn: Number of complete listings that are recorded.
        rules: The properties of the list.
    """
    plausible = {
        name: claims[name]
        for name in names
        if name in claims and name not in doubted and _agrees(claims[name], recorded, rules)
    }
    asked = sample(plausible, turn, rules.period)
    return {name: row for name, row in plausible.items() if name not in asked}


def _agrees(row: Row, recorded: Mapping[str, Tag], rules: Rules) -> bool:
    """Return whether a row has the recorded digest, or may do without a record."""
    if not recorded:
        return rules.same_store
    tag = recorded.get(row.name)
    return tag is not None and tag.digest is not None and tag.digest == row.digest


def sample(names: Collection[str], turn: int, period: int) -> set[str]:
    """Return the tags whose turn it is to be resolved by HEAD.

    Args:
        names: The tags to choose from.
        turn: Number of complete listings that are recorded.
        period: Number of turns within which each tag is chosen at least once.
    """
    waits = {name: (crc32(name.encode()) - turn) % period for name in names}
    due = sum(wait == 0 for wait in waits.values())
    size = max(due, sample_size(len(names), period))
    return set(sorted(waits, key=lambda name: (waits[name], name))[:size])


def sample_size(tags: int, period: int) -> int:
    """Return the minimum number of tags of a sample."""
    return min(tags, max(SMALLEST_SAMPLE, -(-tags // period)))
