"""One repository's poll as a short story, and a pass over many of them.

Decide first, act after: what a listing means is decided from one view of the records, and carried
out in a transaction in which the newest look is still the same. Otherwise the listing is dropped.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import timedelta
from time import monotonic
from typing import Final, Literal

import msgspec
import structlog

from tagsync.diff import diff, doubt
from tagsync.errors import NotFound, RegistryError
from tagsync.models import (
    GONE,
    Change,
    Clock,
    Listing,
    Repository,
    Scope,
    Tag,
    Unchanged,
    Watch,
    timestamp,
    utc_now,
)
from tagsync.registries import Registry
from tagsync.store import Entry, Known, Ledger, Store

Outcome = Literal["ok", "failed", "held", "dropped"]
"""How a poll ended; ``dropped`` where another process had recorded a listing meanwhile."""

log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger()


class Job(msgspec.Struct, frozen=True):
    """One repository to poll.

    Attributes:
        interval: how often it is meant to be polled: a longer gap is a hole in the observations.
        agreeing_listings: how many in a row have to agree on a deletion that is hard to believe.
        tags: globs over the tags that are resolved.
        manifests: whether manifests are fetched.
    """

    repository: Repository
    registry: Registry
    interval: timedelta
    agreeing_listings: int = 2
    tags: tuple[str, ...] = ("*",)
    manifests: bool = False


class Options(msgspec.Struct, frozen=True):
    """How a pass is made.

    Attributes:
        accept_deletions: believe every listing, however much it would delete.
        dry_run: decide and tell, but record nothing.
    """

    accept_deletions: bool = False
    dry_run: bool = False


_AS_USUAL: Final = Options()


class Poll(msgspec.Struct, frozen=True):
    """What one poll came to; the counts are of what was recorded, or in a dry run would be.

    ``error`` is what failed at the registry, if something did; ``recovered_from`` how many polls in
    a row had failed before this one did not.
    """

    repository: Repository
    outcome: Outcome
    tags: int | None = None
    added: int = 0
    updated: int = 0
    deleted: int = 0
    detail: str | None = None
    error: RegistryError | None = None
    recovered_from: int = 0
    requests: int = 0
    size: int = 0
    seconds: float = 0.0


class _Decision(msgspec.Struct, frozen=True):
    outcome: Outcome
    changes: Sequence[Change] = ()
    detail: str | None = None


_DROPPED: Final = _Decision("dropped", detail="another listing was recorded meanwhile")


def sync(job: Job, store: Store, options: Options = _AS_USUAL, clock: Clock = utc_now) -> Poll:
    """Polls one repository, records what it found, and logs it.

    A registry that fails is an outcome, not an exception.

    Raises:
        StoreError: the database failed; nothing of this poll was recorded.
    """
    began = monotonic()
    known = store.known(job.repository)
    owed = known.unlogged_from is not None
    try:
        listing = _read(job, store, known, clock)
        poll = _record(job, store, known, listing, options)
        owed = owed or isinstance(listing, Listing)
    except RegistryError as error:
        poll = Poll(job.repository, "failed", detail=str(error), error=error)
        if not options.dry_run:
            with store.recording(job.repository) as ledger:
                ledger.fail(str(error), _reason(error), timestamp(clock()), interval=job.interval)
    poll = msgspec.structs.replace(poll, seconds=monotonic() - began)
    if owed and not options.dry_run:
        _log_changes(job.repository, store)
    _log_poll(poll)
    return poll


def sync_all(
    jobs: Sequence[Job],
    store: Store,
    concurrency: Mapping[str, int],
    options: Options = _AS_USUAL,
    on_poll: Callable[[Poll], None] = lambda _: None,
) -> list[Poll]:
    """Polls many repositories, those of each registry by as many threads as it may be asked by.

    Args:
        jobs: in the order in which they are begun.
        store: shared by all.
        concurrency: threads for each registry's name.
        options: for all of them.
        on_poll: called in this thread after each poll.

    Returns:
        The polls in the order of the jobs.

    Raises:
        StoreError: the database failed; polls that had not begun were not made.
    """
    pools = {name: ThreadPoolExecutor(count, name) for name, count in concurrency.items()}
    polls: dict[Repository, Poll] = {}
    try:
        futures = [pools[job.repository.registry].submit(sync, job, store, options) for job in jobs]
        for future in as_completed(futures):
            poll = future.result()
            polls[poll.repository] = poll
            on_poll(poll)
    finally:
        for pool in pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
    if not options.dry_run:
        _log_pass(polls.values(), store)
    return [polls[job.repository] for job in jobs]


def discover(
    watches: Sequence[Watch], registries: Mapping[str, Registry]
) -> tuple[set[Repository], list[Poll]]:
    """Finds the repositories that the watches' globs match at their registries.

    A watch whose discovery fails keeps the repositories that are recorded already: what it would
    have added is unknown, and nothing is taken away.

    Returns:
        What was found, and for each glob that could not be expanded a failed poll of its name.
    """
    found: set[Repository] = set()
    failures: list[Poll] = []
    for watch in watches:
        if not watch.globs:
            continue
        about = {"registry": watch.registry, "repositories": list(watch.globs)}
        try:
            names = registries[watch.registry].list_repositories(watch.globs, shared=watch.shared)
        except RegistryError as error:
            log.error("discovery.failed", **about, error=str(error))
            detail = f"discovery failed: {error}"
            failures += [
                Poll(Repository(watch.registry, glob), "failed", detail=detail, error=error)
                for glob in watch.globs
            ]
            continue
        log.debug("discovery.finished", **about, found=len(names))
        found |= {Repository(watch.registry, name) for name in names}
    return found, failures


def _read(job: Job, store: Store, known: Known, clock: Clock) -> Listing | Unchanged:
    """Reads a listing, and where its pages were no snapshot, a second one to confirm deletions."""
    began = timestamp(clock())
    scope = Scope(job.tags, job.manifests, store.with_manifest)
    try:
        listing = job.registry.list_tags(job.repository.name, known.listing_hash, scope)
        if isinstance(listing, Unchanged) or (listing.pages == 1 and listing.steady):
            return listing
        with store.reading(job.repository) as ledger:
            mirrored = ledger.tags().keys()
        if mirrored <= listing.tags.keys():
            return listing
        seen = {name: tag for name, tag in listing.tags.items() if name not in listing.missing}
        scope = msgspec.structs.replace(scope, seen=seen)
        again = job.registry.list_tags(job.repository.name, scope=scope)
    except NotFound:
        if known.last_complete_at is None:
            raise
        # A repository that was known and is gone is an empty listing, as hard to believe as any.
        return Listing({}, {}, began, timestamp(clock()), fingerprint=None, exists=False)
    assert isinstance(again, Listing), "without a fingerprint there is nothing to equal"  # noqa: S101  tells the type checker
    return _either(listing, again)


def _either(first: Listing, second: Listing) -> Listing:
    """The listing in which a tag is missing only if two reads lacked it.

    Its bytes are no one's, so it has no fingerprint unless the two agree on what there is.
    """
    return msgspec.structs.replace(
        second,
        tags={**first.tags, **second.tags},
        images={**second.images, **first.images},
        children={**first.children, **second.children},
        unverified=tuple({*first.unverified, *second.unverified}),
        missing=tuple({*first.missing} - second.tags.keys() | {*second.missing}),
        unfetched=first.unfetched or second.unfetched,
        started_at=first.started_at,
        fingerprint=second.fingerprint if first.tags.keys() <= second.tags.keys() else None,
        requests=first.requests + second.requests,
        size=first.size + second.size,
    )


def _record(
    job: Job, store: Store, known: Known, listing: Listing | Unchanged, options: Options
) -> Poll:
    """Decides what the listing means, and unless this is a dry run, carries it out.

    Args:
        job: which repository.
        store: where it is recorded.
        known: what was recorded before the listing was begun.
        listing: what was read.
        options: how the pass is made.
    """
    decision = _Decision("ok")
    if options.dry_run or isinstance(listing, Listing):
        with store.reading(job.repository) as ledger:
            decision = _decide(ledger, known, listing, job, options)
            count = ledger.count() if isinstance(listing, Unchanged) else len(listing.tags)
    if not options.dry_run:
        # Made before the transaction, which others wait for. What was decided still holds in it, if
        # the last look is the same: nothing else changes a mirror.
        entry = Entry(listing, decision.changes) if isinstance(listing, Listing) else None
        with store.recording(job.repository, known) as ledger:
            if ledger.known.looks != known.looks:
                decision = _DROPPED
            count = _act(ledger, listing, entry, decision, job)
    dropped = decision.outcome == "dropped"
    _log_oddities(job.repository, listing)
    if not dropped:
        _log_clock(job.repository, known, listing)
    kinds = Counter(change.kind for change in decision.changes)
    return Poll(
        job.repository,
        decision.outcome,
        tags=count,
        added=kinds["added"],
        updated=kinds["updated"],
        deleted=kinds["deleted"],
        detail=decision.detail,
        recovered_from=0 if dropped else ledger.known.failures,
        requests=listing.requests,
        size=listing.size,
    )


def _decide(
    ledger: Ledger, known: Known, listing: Listing | Unchanged, job: Job, options: Options
) -> _Decision:
    # What began after the last look was recorded is newer than it, and nothing else surely is. No
    # clock is asked: it may have been set in between.
    if ledger.known.looks != known.looks:
        return _DROPPED
    if isinstance(listing, Unchanged):
        return _Decision("ok")
    mirrored = ledger.tags()
    changes = diff(mirrored, _as_far_as_known(listing, mirrored))
    reason = doubt(len(mirrored), (change.tag for change in changes if change.kind == "deleted"))
    if (
        reason
        and not options.accept_deletions
        and ledger.held_in_a_row(reason) + 1 < job.agreeing_listings
    ):
        return _Decision("held", detail=reason)
    return _Decision("ok", changes, _remark(listing))


def _act(
    ledger: Ledger,
    listing: Listing | Unchanged,
    entry: Entry | None,
    decision: _Decision,
    job: Job,
) -> int:
    """Carries a decision out; returns how many tags the listing had."""
    if isinstance(listing, Unchanged):
        if decision.outcome == "dropped":
            return ledger.count()
        return ledger.confirm(listing, interval=job.interval)
    if decision.outcome == "held":
        ledger.hold(
            decision.detail or "", listing.finished_at, len(listing.tags), interval=job.interval
        )
    elif decision.outcome == "ok" and entry is not None:
        ledger.complete(entry, interval=job.interval, detail=decision.detail)
    return len(listing.tags)


def _as_far_as_known(listing: Listing, mirrored: Mapping[str, Tag]) -> Mapping[str, Tag]:
    """The listing, in which a tag whose manifest the registry denies keeps the digest it had.

    It is being deleted, or the registry is broken: neither tells what the tag points to, and so
    nothing is recorded but the remark of the observation.
    """
    kept = {name: mirrored[name] for name in listing.missing if name in mirrored}
    return {**listing.tags, **kept} if kept else listing.tags


def _remark(listing: Listing) -> str | None:
    """What an observation should say of a listing that was recorded.

    It stays the same while what it tells of does, so that this is one row.
    """
    if not listing.exists:
        return GONE
    remarks = []
    if listing.unverified:
        tags = _some_of(listing.unverified)
        remarks.append(f"the manifest of {tags} is not what its digest or image_id says")
    if listing.missing:
        remarks.append(f"the registry lists {_some_of(listing.missing)} but denies the manifest")
    if listing.unfetched:
        remarks.append("some manifests could not be fetched yet")
    return "; ".join(remarks) or None


def _some_of(tags: Sequence[str]) -> str:
    first, *others = sorted(tags)
    return f"{first[:128]} and {len(others)} more" if others else first[:128]


def _reason(error: RegistryError) -> str:
    """What of an error stays the same from poll to poll: a server's text may hold request ids."""
    if error.status is not None:
        return f"{type(error).__name__}: status {error.status}, code {error.code or 'none'}"
    return str(error)


def _log_oddities(repository: Repository, listing: Listing | Unchanged) -> None:
    if isinstance(listing, Unchanged):
        return
    about = {"registry": repository.registry, "repository": repository.full_name}
    for name in listing.unverified:
        tag = listing.tags[name]
        log.warning("image.unverified", **about, tag=name, digest=tag.digest, image_id=tag.image_id)
    for name in listing.missing:
        log.warning("tag.unresolved", **about, tag=name)
    if listing.unfetched:
        log.warning("manifests.unfetched", **about, error=listing.unfetched)


def _log_clock(repository: Repository, known: Known, listing: Listing | Unchanged) -> None:
    if known.last_attempt_at is not None and listing.finished_at < known.last_attempt_at:
        log.warning(
            "clock.behind",
            registry=repository.registry,
            repository=repository.full_name,
            clock=listing.finished_at,
            recorded=known.last_attempt_at,
        )


def _log_changes(repository: Repository, store: Store) -> None:
    """Writes the lines of what is committed, also those that a killed process still owed.

    Where one cannot be written they stay owed.
    """
    unlogged = store.unlogged(repository)
    if unlogged is None:
        return
    about = {"registry": repository.registry, "repository": repository.full_name}
    if unlogged.baseline is not None:
        written = log.info("repository.baselined", **about, tags=unlogged.baseline)
        if written is False:
            return
    for change in unlogged.changes:
        moved = {"moved": change.moved} if change.kind == "updated" else {}
        written = log.info(
            f"tag.{change.kind}",
            **about,
            tag=change.tag,
            **moved,
            old_digest=change.old_digest,
            new_digest=change.new_digest,
            not_before=change.not_before,
            observed_at=change.observed_at,
            change_id=change.id,
        )
        if written is False:
            return
    store.acknowledge(repository, unlogged.through)


def _log_pass(polls: Collection[Poll], store: Store) -> None:
    """Writes the head of the chain, which makes the log a witness of all changes until then."""
    head = store.head()
    outcomes = Counter(poll.outcome for poll in polls)
    log.info(
        "pass.finished",
        repositories=len(polls),
        failed=outcomes["failed"],
        held=outcomes["held"],
        added=sum(poll.added for poll in polls),
        updated=sum(poll.updated for poll in polls),
        deleted=sum(poll.deleted for poll in polls),
        change_id=head.change_id,
        head=head.hash,
    )


def _log_poll(poll: Poll) -> None:
    about = {"registry": poll.repository.registry, "repository": poll.repository.full_name}
    counts = {
        "tags": poll.tags,
        "added": poll.added,
        "updated": poll.updated,
        "deleted": poll.deleted,
    }
    cost = {"requests": poll.requests, "bytes": poll.size, "seconds": round(poll.seconds, 3)}
    if poll.recovered_from:
        log.info("sync.recovered", **about, failures=poll.recovered_from)
    match poll.outcome:
        case "ok":
            level = log.info if poll.added or poll.updated or poll.deleted else log.debug
            level("sync.finished", **about, **counts, **cost, detail=poll.detail)
        case "dropped":
            log.debug("sync.dropped", **about, **cost, detail=poll.detail)
        case "held":
            log.warning("sync.held", **about, tags=poll.tags, **cost, detail=poll.detail)
        case "failed":
            log.error("sync.failed", **about, seconds=cost["seconds"], error=poll.detail)
