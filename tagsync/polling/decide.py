"""Decide whether a complete listing is accepted or held.

The outcome depends on the stored tags that the listing deletes:

======================================  ====================  ===================================
the listing deletes                     agreeing listings     outcome
======================================  ====================  ===================================
no tag, or a few                        -                     accepted
every tag, or most of them              too few so far        held: suspicious deletion
every tag, or most of them              enough                accepted
======================================  ====================  ===================================

"Most of them" means more than half of the stored tags, and at least ten tags. A repository that no
longer exists is treated as a listing without tags. Listings agree if they are consecutive and
delete the same set of tags. Failed polls between two listings are ignored. If one listing is
enough, as with ``--accept-deletions``, every listing is accepted.

The functions of this module are pure: they do not read or write the database.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from msgspec.structs import astuple

from tagsync import manifests
from tagsync.database.outcomes import Accepted, Held, Reason, fingerprint_of
from tagsync.database.state import HeldRun
from tagsync.escaping import truncate
from tagsync.models import FIELDS, Change, Image, Listing, Tag

_FEW: Final = 10
"""A smaller number of deletions is suspicious only if no stored tag remains."""

_SHOWN: Final = 128
"""Maximum length of a tag's name in a message, in characters."""

_SHOWN_DIGESTS: Final = 10
"""Maximum number of digests of wrong manifests in a message."""

_NOTHING: Final = (None,) * len(FIELDS)


def decide(
    listing: Listing, stored: Mapping[str, Tag], held: HeldRun, *, agreeing_listings: int
) -> Accepted | Held:
    """Return the outcome of a listing, by the table in this module's docstring.

    Args:
        listing: The listing that was read.
        stored: The stored tags of the repository, by name.
        held: The held listings directly before this listing.
        agreeing_listings: How many consecutive listings have to agree before a suspicious deletion
            is recorded, this listing included. With 1, every listing is accepted.
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
    oddities = list(_oddities(listing))
    reasons = tuple(oddity.reason for oddity in oddities)
    about = [text for oddity in oddities for text in (oddity.reason, *sorted(oddity.about))]
    detail = "; ".join(oddity.sentence for oddity in oddities) or None
    return Accepted(listing, changes, reasons, fingerprint_of(*about) if about else None, detail)


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


def is_suspicious(stored: int, deleted: int) -> bool:
    """Return whether so many tags are missing that an error is the likelier reason.

    The error may be that the registry was emptied, that the credential lost a permission, or that a
    proxy answered instead of the registry.

    Args:
        stored: Number of stored tags.
        deleted: Number of stored tags that the listing lacks.
    """
    return deleted > 0 and (deleted == stored or (deleted >= _FEW and 2 * deleted > stored))


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
        source=second.source,
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
    if listing.bad_fields:
        fields = [f"{tag} {field}" for tag, many in listing.bad_fields.items() for field in many]
        yield _Oddity("bad_field", fields, _about_fields(listing))


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


def _suspicion(stored: int, deleted: int, key: str) -> str:
    return (
        f"the listing would delete {deleted} of {stored} tags (set {key}): if these deletions are"
        " intended, tagsync sync --accept-deletions records them at once"
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
