"""One poll: read a repository's tags, decide what they mean, record that, and log it.

**Held**: a listing is held if it deletes suspiciously many tags and too few consecutive listings
agree on that; `tagsync.polling.decide` has the rules. The stored tags then stay as they are.

**Dropped**: a listing is dropped if another listing of the same repository was recorded since this
poll began, because this one may be older. The recorder compares versions inside its transaction.

**If recording fails**, `poll` raises StoreError and the database holds nothing of this poll. The
changes are not lost: the next poll finds the same differences again.

**If the log cannot be written**, the lines stay pending in the database. The changes are already
committed, and the next poll of this repository writes the lines: each is logged at least once.

**Retries** happen below and above this module. Below, the registry's client retries requests after
transient errors for a bounded time. If that does not help, the poll is ``failed``, and above, the
next poll comes as scheduled (the daemon backs off) or with the next ``tagsync sync``.
"""

from collections import Counter
from contextlib import suppress
from time import monotonic
from typing import Final

from msgspec.structs import replace

from tagsync.clock import Clock, timestamp, utc_now
from tagsync.database.outcomes import (
    NO_LINES,
    Failed,
    Held,
    Outcome,
    PendingLog,
    failed,
)
from tagsync.database.state import RepositoryState
from tagsync.database.store import Store
from tagsync.errors import NotFound, RegistryError, StoreError
from tagsync.models import Listing, Repository, Scope, Unchanged
from tagsync.polling import log_lines
from tagsync.polling.decide import decide, merge_reads
from tagsync.polling.jobs import Job, Options, Poll

_DEFAULTS: Final = Options()


def poll(job: Job, store: Store, options: Options = _DEFAULTS, clock: Clock = utc_now) -> Poll:
    """Poll one repository. A registry that fails is an outcome, not an exception.

    Raises:
        StoreError: If the database failed; nothing of this poll was recorded.
    """
    began = monotonic()
    state = store.state(job.repository)
    outcome: Outcome
    error: RegistryError | None = None
    try:
        listing = read_listing(job, store, state, clock)
        stored = {} if isinstance(listing, Unchanged) else store.tags(job.repository)
        outcome = decide(
            listing,
            state,
            stored,
            agreeing_listings=job.agreeing_listings,
            accept_deletions=options.accept_deletions,
        )
    except RegistryError as caught:
        error, outcome = caught, failed(caught, timestamp(clock()))
    pending = _record(job, store, outcome, state, options)
    result = _summarize(job.repository, outcome, state, error, was_dropped=pending is None)
    result = replace(result, seconds=monotonic() - began)
    log_lines.write_warnings(result, outcome, state)
    if pending and log_lines.write_changes(job.repository, pending):
        _acknowledge(job, store, pending)
    log_lines.write_result(result)
    return result


def read_listing(
    job: Job, store: Store, state: RepositoryState, clock: Clock
) -> Listing | Unchanged:
    """Read a listing; if it is not a snapshot, confirm its deletions by a second read.

    A known repository that does not exist any more is an empty listing, and its deletions are as
    suspicious as any.

    Raises:
        RegistryError: If no complete listing could be read.
    """
    began = timestamp(clock())
    try:
        scope = Scope(job.tags, job.manifests, store.with_manifest)
        listing = job.registry.list_tags(job.repository.name, state.listing_hash, scope)
        if isinstance(listing, Unchanged) or (listing.pages == 1 and listing.steady):
            return listing
        if store.tags(job.repository).keys() <= listing.tags.keys():
            return listing
        seen = {name: tag for name, tag in listing.tags.items() if name not in listing.missing}
        again = job.registry.list_tags(job.repository.name, scope=replace(scope, seen=seen))
    except NotFound:
        if state.last_complete_at is None:
            raise
        return Listing({}, {}, began, timestamp(clock()), fingerprint=None, exists=False)
    assert isinstance(again, Listing), "without a fingerprint no listing is unchanged"  # noqa: S101  tells the type checker
    return merge_reads(listing, again)


def _record(
    job: Job, store: Store, outcome: Outcome, state: RepositoryState, options: Options
) -> PendingLog | None:
    """Record the outcome; return the log lines that are due, or None if it was dropped."""
    if options.dry_run:
        return None if store.would_drop(job.repository, outcome, state) else NO_LINES
    return store.record(job.repository, outcome, state, job.interval)


def _acknowledge(job: Job, store: Store, pending: PendingLog) -> None:
    # If this fails, the lines stay pending and the next poll writes them again.
    with suppress(StoreError):
        store.acknowledge(job.repository, pending.through)


def _summarize(
    repository: Repository,
    outcome: Outcome,
    state: RepositoryState,
    error: RegistryError | None,
    *,
    was_dropped: bool,
) -> Poll:
    if isinstance(outcome, Failed):
        return Poll(
            repository, "failed", reasons=outcome.reasons, detail=outcome.error, error=error
        )
    if isinstance(outcome, Unchanged):
        result = Poll(repository, "ok", state.tags, requests=outcome.requests, size=outcome.size)
    else:
        kinds = Counter(change.kind for change in getattr(outcome, "changes", ()))
        result = Poll(
            repository,
            "held" if isinstance(outcome, Held) else "ok",
            len(outcome.listing.tags),
            kinds["added"],
            kinds["updated"],
            kinds["deleted"],
            outcome.reasons,
            outcome.detail,
            requests=outcome.listing.requests,
            size=outcome.listing.size,
        )
    if was_dropped:
        return Poll(
            repository,
            "dropped",
            result.tags,
            detail="another listing was recorded meanwhile",
            requests=result.requests,
            size=result.size,
        )
    return replace(result, recovered_from=state.failures)
