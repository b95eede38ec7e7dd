"""Pure: what changed between two listings of a repository, and whether it is believable."""

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any, Final

from msgspec.structs import astuple

from tagsync.models import FIELDS, Change, Tag

_NOTHING: Final = (None,) * len(FIELDS)


def diff(old: Mapping[str, Tag], new: Mapping[str, Tag]) -> list[Change]:
    """What happened to each tag between two listings, in the order of the tags' names.

    Applying the result to ``old`` (see `apply`) gives ``new``; equal listings give nothing.
    """
    if not old:
        return [_added(new[name]) for name in sorted(new)]
    touched = [name for name, tag in new.items() if old.get(name) != tag]
    touched += old.keys() - new.keys()
    return [_change(old.get(name), new.get(name)) for name in sorted(touched)]


def apply(old: Mapping[str, Tag], changes: Iterable[Change]) -> dict[str, Tag]:
    """The listing that results when the changes happen to ``old``: the inverse of `diff`."""
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


def doubt(known: int, deleted: Iterable[str]) -> str | None:
    """Why a listing is not believed at once, or null if it is.

    An emptied registry, a lost permission and a broken proxy look like deletions. So a listing that
    deletes every tag, or more than half of them and at least ten, has to be seen more than once.

    Args:
        known: how many tags the mirror holds.
        deleted: the names that the listing lacks.

    Returns:
        A sentence that holds a fingerprint of the names: two listings agree when their sentences
        are equal.
    """
    names = sorted(deleted)
    count = len(names)
    if not count or (count < known and not (count >= 10 and 2 * count > known)):  # noqa: PLR2004  the rule above, in its own figures
        return None
    fingerprint = sha256("\0".join(names).encode()).hexdigest()[:12]
    return (
        f"the listing would delete {count} of {known} tags (set {fingerprint}): if that is meant,"
        " tagsync sync --accept-deletions records it at once"
    )


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
