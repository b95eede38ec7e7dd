"""Decide whether a complete listing is accepted or held.

The outcome depends on the doubts about the listing (`tagsync.polling.doubts`), and on the listings
directly before it:

==========================  ==========================================  =========================
doubts                      listings that agree                         outcome
==========================  ==========================================  =========================
none                        -                                           accepted
suspicious deletion         too few, or the first of them is too young  held
stale listing               too few, or the first of them is too young  held
both                        not enough for both                         held: both reasons
any                         enough, and the first of them is old enough  accepted
any                         - (``--accept-deletions``)                  accepted
==========================  ==========================================  =========================

With any outcome, the reasons also contain ``alternating`` if two states of the repository take
turns (`tagsync.polling.alternation`).

A decision has three steps. `compare` derives what a listing changes, and the doubts about it. The
caller then reads the repository's recorded past, as far as `runs_needed` and `flips_needed_since`
say. `decide` returns the outcome.

The functions of this module are pure: they do not read or write the database.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, NamedTuple

from msgspec.structs import astuple

from tagsync import manifests
from tagsync.clock import parse_timestamp, timestamp
from tagsync.database.outcomes import Accepted, Alternation, Held, Reason, fingerprint_of
from tagsync.database.past import Past
from tagsync.database.state import RepositoryState
from tagsync.escaping import truncate
from tagsync.models import FIELDS, Change, Distrust, Image, Listing, Tag
from tagsync.polling.alternation import (
    describe,
    flips_among,
    held_alternates,
    longest_rest,
    recorded_alternates,
    tags_for,
)
from tagsync.polling.doubts import (
    Agreement,
    Doubt,
    Rules,
    agreement,
    doubts_about,
    forecast,
    key_of,
)

_SHOWN: Final = 128
"""Maximum length of a tag's name in a message, in characters."""

_SHOWN_DIGESTS: Final = 10
"""Maximum number of digests of wrong manifests in a message."""

_RUNS: Final = 3
"""How many runs show that listings agree, or that two states alternate."""

_CAUGHT_UP: Final = timedelta(minutes=1)
"""A clock that is behind the record by no more than this counts as right again."""

_NOTHING: Final = (None,) * len(FIELDS)


class Comparison(NamedTuple):
    """A listing, compared with the stored tags.

    Attributes:
        listing: The listing that was read.
        changes: The differences between the stored tags and the listing.
        flips: The changes that add, delete or move a tag.
        doubts: The reasons not to believe the listing at once.
    """

    listing: Listing
    changes: list[Change]
    flips: list[Change]
    doubts: list[Doubt]


def compare(listing: Listing, stored: Mapping[str, Tag]) -> Comparison:
    """Compare a listing with what is stored.

    Args:
        listing: The listing that was read.
        stored: The stored tags of the repository, by name.
    """
    changes = diff(stored, keep_unresolved_digests(listing, stored))
    deleted = [change.tag for change in changes if change.kind == "deleted"]
    doubts = doubts_about(listing, stored, deleted)
    return Comparison(listing, changes, flips_among(changes), doubts)


def runs_needed(comparison: Comparison, state: RepositoryState) -> int:
    """Return how many of the newest runs `decide` needs."""
    return _RUNS if comparison.doubts or state.alternating else 0


def flips_needed_since(listing: Listing, rules: Rules) -> str:
    """Return the time since when `decide` needs the recorded flips of a repository."""
    return timestamp(parse_timestamp(listing.finished_at) - 2 * longest_rest(rules.interval))


def decide(
    comparison: Comparison, state: RepositoryState, past: Past, rules: Rules
) -> Accepted | Held:
    """Return the outcome of a listing, by the table in this module's docstring.

    Args:
        comparison: The listing, compared with the stored tags.
        state: The recorded state of the repository.
        past: The recorded past of the repository.
        rules: When listings agree.
    """
    listing, doubts = comparison.listing, comparison.doubts
    rest = longest_rest(rules.interval)
    if doubts and not rules.accept:
        newest = past.runs[0] if past.runs else None
        behind = _is_behind(listing.finished_at, state.last_attempt_at)
        agreed = agreement(doubts, listing, newest, rules, behind=behind)
        if agreed.missing:
            names = [name for doubt in doubts for name in doubt.tags]
            alternates = held_alternates(key_of(doubts), past, listing.finished_at, rest)
            return _hold(comparison, agreed, _alternation(names, past, alternates=alternates))
    names = [change.tag for change in comparison.flips]
    alternates = recorded_alternates(comparison.flips, past, listing.finished_at, rest)
    return _accept(comparison, _alternation(names, past, alternates=alternates))


def _is_behind(finished_at: str, recorded: str | None) -> bool:
    """Return whether the clock is still behind the last recorded time.

    Polls that follow each other while the clock is behind are recorded a millisecond apart, so a
    clock that is right again may seem to be behind by as many milliseconds.
    """
    if recorded is None:
        return False
    return parse_timestamp(finished_at) + _CAUGHT_UP < parse_timestamp(recorded)


def _hold(comparison: Comparison, agreed: Agreement, alternation: Alternation | None) -> Held:
    listing, doubts = comparison.listing, comparison.doubts
    reasons: list[Reason] = [doubt.reason for doubt in doubts]
    sentences = [doubt.sentence for doubt in doubts]
    sentences.append(forecast(agreed, listing.finished_at))
    if not listing.exists:
        reasons.append("gone")
    if alternation is not None and alternation.phase != "ended":
        reasons.append("alternating")
        sentences.append(describe(alternation.tags))
    return Held(
        listing,
        tuple(sorted(reasons)),
        key_of(doubts),
        "; ".join(sentences),
        timestamp(agreed.counts_from),
        alternation,
    )


def _accept(comparison: Comparison, alternation: Alternation | None) -> Accepted:
    listing = comparison.listing
    oddities = list(_oddities(listing))
    if alternation is not None and alternation.phase != "ended":
        tags = alternation.tags
        oddities.append(_Oddity("alternating", tags, describe(tags)))
    reasons = tuple(oddity.reason for oddity in oddities)
    about = [text for oddity in oddities for text in (oddity.reason, *sorted(oddity.about))]
    detail = "; ".join(oddity.sentence for oddity in oddities) or None
    key = fingerprint_of(*about) if about else None
    return Accepted(listing, comparison.changes, reasons, key, detail, alternation)


def _alternation(names: Sequence[str], past: Past, *, alternates: bool) -> Alternation | None:
    """Return the alternation that a listing is part of, or ends.

    Args:
        names: Names of the tags in which the listing differs from the stored tags.
        past: The recorded past of the repository.
        alternates: Whether the listing is part of an alternation.
    """
    did_before = bool(past.runs) and past.runs[0].alternating
    if alternates:
        return Alternation("lasts" if did_before else "began", tags_for(names, past.runs))
    return Alternation("ended", tags_for((), past.runs)) if did_before else None


def diff(old: Mapping[str, Tag], new: Mapping[str, Tag]) -> list[Change]:
    """Return the changes from the tags in ``old`` to those in ``new``, sorted by tag.

    `apply` with ``old`` and the result gives ``new``. If ``old`` and ``new`` are equal, the result
    is empty.
    """
    if not old:
        return [_added(new[name]) for name in sorted(new)]
    touched = [name for name, tag in new.items() if old.get(name) != tag]
    touched += old.keys() - new.keys()
    return [_change(old.get(name), new.get(name)) for name in sorted(touched)]


def apply(old: Mapping[str, Tag], changes: Iterable[Change]) -> dict[str, Tag]:
    """Apply changes to some tags and return the new tags: the inverse of `diff`."""
    tags = dict(old)
    for change in changes:
        if change.kind == "deleted":
            del tags[change.tag]
            continue
        before = tags.get(change.tag, Tag(change.tag))
        values = {name: getattr(before, name) for name in FIELDS}
        values |= {name: new for name, (_, new) in change.fields.items()}
        tags[change.tag] = Tag(tag=change.tag, **values)
    return tags


def merge_reads(first: Listing, second: Listing) -> Listing:
    """Merge two reads of a repository into one listing.

    The result lacks a tag only if both reads lack it. If both reads have a tag, the result has the
    tag of the second read. If the second read lacks a tag of the first read, the result has no
    fingerprint, because the fingerprint of the second read does not cover this tag.
    """
    tags = {**first.tags, **second.tags}
    images = _merge_images(first.images, second.images)
    children = _merge_images(first.children, second.children)
    complete = first.tags.keys() <= second.tags.keys()
    gone = first.tags.keys() - second.tags.keys()
    return Listing(
        tags=tags,
        images=images,
        started_at=first.started_at,
        finished_at=second.finished_at,
        fingerprint=second.fingerprint if complete else None,
        pages=second.pages,
        requests=first.requests + second.requests,
        size=first.size + second.size,
        unverified=tuple({*first.unverified, *second.unverified}),
        wrong_manifests={**first.wrong_manifests, **second.wrong_manifests},
        children=_reachable({tag.digest for tag in tags.values()}, images, children),
        steady=second.steady,
        missing=tuple({*first.missing} & gone | {*second.missing}),
        failed={name: error for name, error in first.failed.items() if name in gone}
        | {**second.failed},
        bad_names=tuple({*first.bad_names, *second.bad_names}),
        unfetched=first.unfetched or second.unfetched,
        bad_fields={**first.bad_fields, **second.bad_fields},
        source=first.source,
        distrust=second.distrust or first.distrust,
    )


def _merge_images(first: Mapping[str, Image], second: Mapping[str, Image]) -> dict[str, Image]:
    """Merge the images of two reads: those of the first read, unless only the second has it right.

    Both reads may name the same digest, one of them without its manifest or with a wrong one.
    """
    verified = {digest: image for digest, image in second.items() if image.verified}
    return {**second, **first, **verified}


def _reachable(
    digests: Iterable[str | None], images: Mapping[str, Image], children: Mapping[str, Image]
) -> dict[str, Image]:
    """Return the children that the images with these digests reference, also through an index.

    A tag that moves between two reads leaves the children of its old index behind.
    """
    found: dict[str, Image] = {}
    queue = [images[digest] for digest in digests if digest and digest in images]
    while queue:
        for digest in manifests.children(queue.pop()):
            if digest in children and digest not in found:
                found[digest] = children[digest]
                queue.append(children[digest])
    return found


def keep_unresolved_digests(listing: Listing, stored: Mapping[str, Tag]) -> Mapping[str, Tag]:
    """Return the listed tags, with the stored tag in place of each unresolved tag.

    If a registry lists a tag, but its manifest is missing or cannot be read, the tag is being
    deleted or the registry is broken. In both cases, the digest of the tag is unknown. The result
    therefore has the stored tag, so that no change is recorded. Only the observation shows the
    problem.
    """
    unresolved = (*listing.missing, *listing.failed)
    kept = {name: stored[name] for name in unresolved if name in stored}
    return {**listing.tags, **kept} if kept else listing.tags


class _Oddity(NamedTuple):
    """An unusual property of a listing: its reason, what has it, and a sentence about it."""

    reason: Reason
    about: Sequence[str]
    sentence: str


def _oddities(listing: Listing) -> Iterator[_Oddity]:
    """Yield the unusual properties of a listing."""
    if not listing.exists:
        sentence = "the registry answers that the repository does not exist"
        yield _Oddity("gone", (), sentence)
        return
    if listing.unverified:
        about = [f"{name} {listing.wrong_manifests.get(name, '')}" for name in listing.unverified]
        yield _Oddity("unverified", about, _about_unverified(listing))
    if unresolved := (*listing.missing, *listing.failed):
        yield _Oddity("unresolved", unresolved, _about_unresolved(listing))
    if listing.unfetched:
        yield _Oddity("unfetched", (), "some manifests could not be fetched yet")
    if listing.bad_names:
        names = _some_of([repr(truncate(name)) for name in listing.bad_names])
        sentence = f"the registry lists {names}, which cannot be a tag and is left out"
        yield _Oddity("bad_name", listing.bad_names, sentence)
    if listing.distrust:
        about = [listing.distrust.tag, listing.distrust.listed, listing.distrust.head]
        yield _Oddity("list_distrusted", about, _about_distrust(listing.distrust))
    if listing.bad_fields:
        fields = [f"{tag} {field}" for tag, many in listing.bad_fields.items() for field in many]
        yield _Oddity("bad_field", fields, _about_fields(listing))


def _about_distrust(distrust: Distrust) -> str:
    return (
        f"HEAD contradicted the registry's own list ({distrust.source}) at {distrust.first_at} and"
        f" {distrust.confirmed_at}: for {distrust.tag}, the list gave {distrust.listed} and HEAD"
        f" {distrust.head}, so the list is not used until the next start"
    )


def _about_unverified(listing: Listing) -> str:
    tags = _some_of(listing.unverified)
    sentence = f"the manifest of {tags} does not match its digest or image_id"
    if not listing.wrong_manifests:
        return sentence
    digests = sorted(set(listing.wrong_manifests.values()))
    others = len(digests) - _SHOWN_DIGESTS
    more = f" and {others} more" if others > 0 else ""
    return f"{sentence} (the registry sent {', '.join(digests[:_SHOWN_DIGESTS])}{more})"


def _about_unresolved(listing: Listing) -> str:
    sentences = []
    if listing.missing:
        sentences.append(
            f"the registry lists {_some_of(listing.missing)} but has no manifest for it"
        )
    if listing.failed:
        tags, error = _some_of([*listing.failed]), listing.failed[min(listing.failed)]
        sentences.append(f"the manifest of {tags} could not be read ({error})")
    return "; ".join(sentences)


def _about_fields(listing: Listing) -> str:
    tag, fields = min(listing.bad_fields.items())
    others = len(listing.bad_fields) - 1
    more = f" (and of {others} more)" if others else ""
    return (
        f"the registry sent {', '.join(fields)} of {tag[:_SHOWN]}{more} in another type than"
        " documented, so it is recorded as null"
    )


def _some_of(tags: Sequence[str]) -> str:
    first, *others = sorted(tags)
    return f"{first[:_SHOWN]} and {len(others)} more" if others else first[:_SHOWN]


def _change(old: Tag | None, new: Tag | None) -> Change:
    if old is None:
        assert new is not None, "a tag that changed is in one of the listings"  # noqa: S101  tells the type checker
        return _added(new)
    if new is None:
        return Change(old.tag, "deleted", old.digest, None, _fields(old, None))
    return Change(old.tag, "updated", old.digest, new.digest, _fields(old, new))


def _added(tag: Tag) -> Change:
    return Change(tag.tag, "added", None, tag.digest, _fields(None, tag))


def _fields(old: Tag | None, new: Tag | None) -> dict[str, tuple[Any, Any]]:
    rows = zip(FIELDS, _values(old), _values(new), strict=True)
    return {name: (before, after) for name, before, after in rows if before != after}


def _values(tag: Tag | None) -> tuple[Any, ...]:
    return _NOTHING if tag is None else astuple(tag)[1:]
