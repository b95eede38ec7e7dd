"""Summarize the outcome of a poll. Pure."""

from collections import Counter
from typing import Final

from msgspec.structs import replace

from tagsync.database.outcomes import Failed, Held, Outcome
from tagsync.database.state import RepositoryState
from tagsync.models import Listing, Repository, Unchanged
from tagsync.polling.jobs import Poll

_DROPPED: Final = "another listing of the repository was recorded while this poll ran"


def summarize(
    repository: Repository,
    outcome: Outcome,
    state: RepositoryState,
    *,
    was_dropped: bool,
    failures: int = 0,
) -> Poll:
    """Return the result of a poll.

    Args:
        repository: The repository that was polled.
        outcome: The outcome of the poll.
        state: The recorded state of the repository when the poll began.
        was_dropped: Whether the listing was dropped.
        failures: Number of failed polls directly before this poll that the caller knows of.
    """
    if isinstance(outcome, Failed):
        error = outcome.error
        return Poll(repository, "failed", reasons=outcome.reasons, detail=str(error), error=error)
    listing = outcome if isinstance(outcome, Unchanged) else outcome.listing
    tags = len(listing.tags) if isinstance(listing, Listing) else state.tags
    result = Poll(repository, "ok", tags, requests=listing.requests, size=listing.size)
    result = replace(result, distrust=listing.distrust)
    if was_dropped:
        return replace(result, outcome="dropped", detail=_DROPPED)
    result = replace(result, recovered_from=max(state.failures, failures))
    if isinstance(outcome, Unchanged):
        return result
    result = replace(
        result, reasons=outcome.reasons, detail=outcome.detail, alternation=outcome.alternation
    )
    if isinstance(outcome, Held):
        return replace(result, outcome="held", counts_from=outcome.counts_from)
    kinds = Counter(change.kind for change in outcome.changes)
    return replace(
        result,
        added=kinds["added"],
        updated=kinds["updated"],
        deleted=kinds["deleted"],
        moved=sum(change.moved for change in outcome.changes),
        first=state.last_complete_at is None,
    )
