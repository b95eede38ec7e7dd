"""Since when tags are unresolved, and what a change of such a tag can claim. Pure.

A listing may contain a tag without its digest: the registry has no manifest for the tag or fails to
send it, or the configuration excludes the tag. Such a listing does not prove that the tag still
points to the recorded digest. So a change of the digest happened after the last listing that proved
it, not after the last listing.
"""

from collections.abc import Iterable, Mapping

from tagsync.models import Change, Listing


def not_before_of(
    changes: Iterable[Change], last_listing: str | None, unresolved: Mapping[str, str]
) -> list[str | None]:
    """Return the time after which each change happened.

    Args:
        changes: The changes of a listing.
        last_listing: Start of the last recorded listing. None if this listing is the first.
        unresolved: Since when each unresolved tag is so, by tag, before this listing.

    Returns:
        ``last_listing`` for each change that keeps the digest, because a listing proves everything
        else even of an unresolved tag.
    """

    def after(change: Change) -> str | None:
        since = unresolved.get(change.tag)
        if since is None or last_listing is None or change.old_digest == change.new_digest:
            return last_listing
        # If the clock was set back, the last listing began earlier.
        return min(since, last_listing)

    return [after(change) for change in changes]


def unresolved_after(listing: Listing, unresolved: Mapping[str, str], began: str) -> dict[str, str]:
    """Return since when each unresolved tag is so after a listing, by tag.

    Args:
        listing: The listing to record.
        unresolved: The result for the last recorded listing.
        began: Start of the last recorded listing, or of this one if it is the first.
    """
    return {
        name: unresolved.get(name, began)
        for name, tag in listing.tags.items()
        if tag.digest is None
    }
