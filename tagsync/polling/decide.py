"""Decide what a listing means. Pure.

The outcome of a complete listing:

======================================  ====================  ===================================
the listing deletes                     agreeing listings     outcome
======================================  ====================  ===================================
no tag, or a few                        -                     accepted
every tag, or most of them              too few so far        held: suspicious deletion
every tag, or most of them              enough                accepted
every tag, or most of them              1 is enough, as with  accepted
                                        --accept-deletions
======================================  ====================  ===================================

"Most" is more than half of the stored tags and at least ten. A repository that no longer exists is
treated as an empty listing. Listings agree if they are consecutive and delete the same set of tags;
failed polls between them do not count.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from msgspec.structs import astuple

from tagsync.database.outcomes import Accepted, Held, Reason, fingerprint_of
from tagsync.database.state import HeldRun
from tagsync.escaping import truncate
from tagsync.models import FIELDS, Change, Listing, Tag

_FEW: Final = 10
"""Fewer deletions than this are suspicious only if they are all stored tags."""

_SHOWN: Final = 128
"""Maximum length of a tag's name in a message, in characters."""

_NOTHING: Final = (None,) * len(FIELDS)


def decide(
    listing: Listing, stored: Mapping[str, Tag], held: HeldRun, *, agreeing_listings: int
) -> Accepted | Held:
    """Return the outcome of a listing; see the table above.

    Args:
        listing: The listing that was read.
        stored: The stored tags.
        held: The listings directly before this one, if they were held.
        agreeing_listings: How many consecutive listings have to agree on a suspicious deletion.
            1 accepts every listing.
    """
    changes = diff(stored, keep_unresolved_digests(listing, stored))
    deleted = [change.tag for change in changes if change.kind == "deleted"]
    if is_suspicious(len(stored), len(deleted)):
        key = fingerprint_of(*deleted)
        agreeing = 1 + (held.polls if held.reason_key == key else 0)
        if agreeing < agreeing_listings:
            gone: tuple[Reason, ...] = () if listing.exists else ("gone",)
            sentence = _suspicion(len(stored), len(deleted), key)
            return Held(listing, (*gone, "suspicious_deletion"), key, sentence)
    reasons, about, detail = _oddities(listing)
    about_key = fingerprint_of(*about) if reasons else None
    return Accepted(listing, changes, reasons, about_key, detail)


def diff(old: Mapping[str, Tag], new: Mapping[str, Tag]) -> list[Change]:
    """Return the changes that turn one listing into another, sorted by tag.

    Applying the result to ``old`` (see `apply`) gives ``new``. If the listings are equal, the
    result is empty.
    """
    if not old:
        return [_added(new[name]) for name in sorted(new)]
    touched = [name for name, tag in new.items() if old.get(name) != tag]
    touched += old.keys() - new.keys()
    return [_change(old.get(name), new.get(name)) for name in sorted(touched)]


def apply(old: Mapping[str, Tag], changes: Iterable[Change]) -> dict[str, Tag]:
    """Return the listing that results from applying changes: the inverse of `diff`."""
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


def is_suspicious(stored: int, deleted: int) -> bool:
    """Return whether so many tags are missing that an error is the likelier reason.

    Such an error may be an emptied registry, a lost permission, or a proxy that answers instead of
    the registry.

    Args:
        stored: Number of stored tags.
        deleted: Number of stored tags that the listing lacks.
    """
    return deleted > 0 and (deleted == stored or (deleted >= _FEW and 2 * deleted > stored))


def merge_reads(first: Listing, second: Listing) -> Listing:
    """Merge two reads of a listing. A tag counts as deleted if both lack it.

    The result has a fingerprint only if the second read has every tag of the first.
    """
    complete = first.tags.keys() <= second.tags.keys()
    gone = first.tags.keys() - second.tags.keys()
    return Listing(
        tags={**first.tags, **second.tags},
        images={**second.images, **first.images},
        started_at=first.started_at,
        finished_at=second.finished_at,
        fingerprint=second.fingerprint if complete else None,
        pages=second.pages,
        requests=first.requests + second.requests,
        size=first.size + second.size,
        unverified=tuple({*first.unverified, *second.unverified}),
        children={**first.children, **second.children},
        steady=second.steady,
        missing=tuple({*first.missing} & gone | {*second.missing}),
        failed={name: error for name, error in first.failed.items() if name in gone}
        | {**second.failed},
        bad_names=tuple({*first.bad_names, *second.bad_names}),
        unfetched=first.unfetched or second.unfetched,
        source=second.source,
    )


def keep_unresolved_digests(listing: Listing, stored: Mapping[str, Tag]) -> Mapping[str, Tag]:
    """Return the listed tags, but the stored tag for each tag without a manifest.

    If a registry lists a tag and has no manifest for it, the tag is being deleted or the registry
    is broken. The digest is unknown in both cases. So the tag does not change, and only the
    observation shows the problem.
    """
    unresolved = (*listing.missing, *listing.failed)
    kept = {name: stored[name] for name in unresolved if name in stored}
    return {**listing.tags, **kept} if kept else listing.tags


def _oddities(listing: Listing) -> tuple[tuple[Reason, ...], Sequence[str], str | None]:
    """Return what is unusual about a listing: reasons, their tags, and a sentence."""
    if not listing.exists:
        return ("gone",), (), "the registry answers that the repository does not exist"
    reasons: list[Reason] = []
    sentences = []
    if listing.unverified:
        reasons.append("unverified")
        tags = _some_of(listing.unverified)
        sentences.append(f"the manifest of {tags} does not match its digest or image_id")
    if listing.missing or listing.failed:
        reasons.append("unresolved")
    if listing.missing:
        sentences.append(
            f"the registry lists {_some_of(listing.missing)} but has no manifest for it"
        )
    if listing.failed:
        tags, error = _some_of([*listing.failed]), listing.failed[min(listing.failed)]
        sentences.append(f"the manifest of {tags} could not be read ({error})")
    if listing.unfetched:
        reasons.append("unfetched")
        sentences.append("some manifests could not be fetched yet")
    if listing.bad_names:
        reasons.append("bad_name")
        names = _some_of([repr(truncate(name)) for name in listing.bad_names])
        sentences.append(f"the registry lists {names}, which cannot be a tag and is left out")
    unresolved = sorted((*listing.missing, *listing.failed))
    about = (*sorted(listing.unverified), "", *unresolved)
    if listing.bad_names:
        about = (*about, "", *sorted(listing.bad_names))
    return tuple(reasons), about, "; ".join(sentences) or None


def _suspicion(stored: int, deleted: int, key: str) -> str:
    return (
        f"the listing would delete {deleted} of {stored} tags (set {key}): if that is intended,"
        " tagsync sync --accept-deletions records it at once"
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
