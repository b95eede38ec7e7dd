"""One poll: read a repository's tags, decide the outcome, record it, and log it.

**Held**: a listing that would delete suspiciously many tags, or that is stale, is held until enough
consecutive listings, this one included, say the same; `tagsync.polling.decide` has the rules. Until
then, the stored tags stay as they are.

**Dropped**: a listing is dropped if another listing of the same repository was recorded after this
poll began, because the listing of this poll may be the older one. `Store.record` detects the other
listing by the repository's version, a number that every recorded or held listing increments.

**If recording fails**, `poll` raises StoreError and the database holds nothing of this poll. The
changes are not lost: the next poll finds the same differences again.

**If the log cannot be written**, the lines stay pending in the database. The changes are already
committed, and the next poll of the repository writes the lines. Each line is therefore written at
least once. If a line was written but could not be acknowledged, it is written again.

**Retries** do not happen here. A request that fails with a transient error is retried by the
registry's client, for a bounded time. If the retries fail too, the poll is ``failed``, and the next
poll of the repository is the next attempt. The daemon schedules the next poll, with a longer delay
after each failure. Without a daemon, the next ``tagsync sync`` is the next poll.

A **dry run** decides and logs the outcome, but records nothing.
"""

from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Final

from msgspec.structs import replace

from tagsync.clock import Clock, timestamp, utc_now
from tagsync.database.outcomes import (
    NO_LINES,
    Accepted,
    Damaged,
    Failed,
    Outcome,
    PendingLog,
)
from tagsync.database.state import RepositoryState
from tagsync.database.store import Store
from tagsync.errors import DamagedRecord, NotFound, RegistryError, StoreError
from tagsync.models import Listing, Scope, Unchanged
from tagsync.polling import log_lines
from tagsync.polling.decide import (
    compare,
    decide,
    flips_needed_since,
    merge_reads,
    runs_needed,
)
from tagsync.polling.doubts import Rules
from tagsync.polling.jobs import Job, Options, Poll
from tagsync.polling.summary import summarize

_DEFAULTS: Final = Options()


def poll(job: Job, store: Store, options: Options = _DEFAULTS, clock: Clock = utc_now) -> Poll:
    """Poll one repository. An error of the registry is an outcome, not an exception.

    So is damage of the repository's own record: the poll fails, and the record stays as it is.

    Raises:
        StoreError: If the database cannot be read or written. It then holds nothing of this poll.
    """
    try:
        return _poll(job, store, options, clock)
    except DamagedRecord as error:
        return _report_damage(job, store, options, error, timestamp(clock()))


def _poll(job: Job, store: Store, options: Options, clock: Clock) -> Poll:
    began = monotonic()
    state = store.state(job.repository)
    outcome: Outcome
    try:
        listing = read_listing(job, store, state, clock)
        if isinstance(listing, Unchanged):
            outcome = listing
        else:
            outcome = _decide(job, store, options, listing, state)
    except RegistryError as error:
        outcome = Failed(error, timestamp(clock()))
    pending = _record_unless_dry_run(job, store, outcome, state, options)
    was_dropped = pending is None
    result = summarize(
        job.repository, outcome, state, was_dropped=was_dropped, failures=job.failures
    )
    result = replace(result, seconds=monotonic() - began)
    if options.dry_run and result.outcome == "ok" and isinstance(outcome, Accepted):
        result = replace(result, changes=outcome.changes)
    log_lines.write_warnings(result, outcome, state)
    if pending is not None:
        _log_changes(job, store, pending)
    log_lines.write_result(result)
    return result


def read_listing(
    job: Job, store: Store, state: RepositoryState, clock: Clock
) -> Listing | Unchanged:
    """Read a listing; read it again if it lacks stored tags and may be inconsistent.

    A listing may be inconsistent if it was read from several pages, because tags may have moved
    from one page to another between two requests. It may also be inconsistent if the registry is
    not steady; see `Listing`. Only a tag that both reads lack counts as deleted.

    If a repository was listed before and no longer exists, the result is a listing without tags.
    The result is the same if only discovery found the repository, because some catalogues contain
    repositories whose last tag is gone.

    Raises:
        RegistryError: If no complete listing could be read.
    """
    began = timestamp(clock())
    try:
        scope = Scope(
            job.tags,
            job.exclude_tags,
            job.manifests,
            recorded=store.with_manifest,
            # Both begin with the date: missing manifests are confirmed at least once a day.
            confirm_missing=(state.last_complete_at or "")[:10] != began[:10],
            stored=partial(store.tags, job.repository),
            turn=state.version,
            left_at=partial(store.left_at, job.repository),
        )
        # If two states alternate, each listing decides whether they still do.
        known = None if state.alternating else state.listing_hash
        listing = job.registry.list_tags(job.repository.name, known, scope)
        if isinstance(listing, Unchanged) or (listing.pages == 1 and listing.steady):
            return listing
        if store.tags(job.repository).keys() <= listing.tags.keys():
            return listing
        # The second read skips the requests for tags that the first read has resolved.
        unresolved = {*listing.missing, *listing.failed}
        seen = {name: tag for name, tag in listing.tags.items() if name not in unresolved}
        scope = replace(scope, seen=seen, confirms=True)
        again = job.registry.list_tags(job.repository.name, scope=scope)
    except NotFound:
        if state.last_complete_at is None and not job.discovered:
            raise
        return Listing({}, {}, began, timestamp(clock()), fingerprint=None, exists=False)
    assert isinstance(again, Listing), "a read without a fingerprint to compare is never Unchanged"  # noqa: S101  tells the type checker
    return merge_reads(listing, again)


def _decide(
    job: Job, store: Store, options: Options, listing: Listing, state: RepositoryState
) -> Outcome:
    rules = Rules(
        job.agreeing_listings, job.agree_after, job.interval, accept=options.accept_deletions
    )
    comparison = compare(listing, store.tags(job.repository))
    since = flips_needed_since(listing, rules)
    past = store.past(job.repository, comparison.flips, since, runs_needed(comparison, state))
    return decide(comparison, state, past, rules)


def _record_unless_dry_run(
    job: Job, store: Store, outcome: Outcome, state: RepositoryState, options: Options
) -> PendingLog | None:
    """Record an outcome. Return the pending log lines, or None if it was dropped.

    In a dry run, nothing is recorded and no line is pending.
    """
    if options.dry_run:
        return None if store.would_drop(job.repository, outcome, state) else NO_LINES
    return store.record(job.repository, outcome, state, job.interval, job.immutable)


def _report_damage(job: Job, store: Store, options: Options, error: DamagedRecord, at: str) -> Poll:
    """Record and log that a poll failed because the repository's record is damaged."""
    if not options.dry_run:
        # If the observations are damaged, too, only the log has the failure.
        with suppress(DamagedRecord):
            store.record_damage(job.repository, Damaged(error.row, at), job.interval)
    result = Poll(job.repository, "failed", reasons=("damaged",), detail=str(error))
    log_lines.write_failure(job.repository, result.detail, result.reasons)
    return result


def _log_changes(job: Job, store: Store, pending: PendingLog) -> None:
    if log_lines.write_changes(job.repository, pending):
        # If this fails, the lines stay pending and the next poll writes them again.
        with suppress(StoreError):
            store.acknowledge(job.repository, pending.through)
