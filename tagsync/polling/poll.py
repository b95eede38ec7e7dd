"""One repository's poll as a short story, and a pass over many of them.

Look, decide, record, log: what a listing means is decided from one view of the records, and carried
out in a transaction in which the newest look is still the same. Otherwise the listing is dropped.
"""

from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from threading import Condition
from time import monotonic
from typing import Final, Literal

import msgspec
import structlog

from tagsync.clock import Clock, timestamp, utc_now
from tagsync.database.outcomes import (
    Entry,
    Failed,
    Finding,
    Held,
    Known,
    Recorded,
    Unlogged,
    fresh_in,
)
from tagsync.database.store import Store
from tagsync.errors import DamagedRecord, DatabaseLocked, NotFound, RegistryError, StoreError
from tagsync.models import GONE, Listing, Repository, Scope, Tag, Unchanged
from tagsync.polling.decide import diff, doubt
from tagsync.registries import Registry

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


class _Look(msgspec.Struct, frozen=True):
    """A poll before it is recorded.

    Attributes:
        job: what was polled.
        known: what was recorded when it began.
        poll: what it comes to, if nothing is recorded meanwhile.
        finished_at: when the listing had been read; null where the registry failed.
        unverified: its tags whose manifest is not what it claims to be.
        missing: the names of its tags whose manifest the registry denies.
        unfetched: why manifests could not be fetched.
        finding: what is to be recorded; null where nothing is.
    """

    job: Job
    known: Known
    poll: Poll
    finished_at: str | None = None
    unverified: Sequence[Tag] = ()
    missing: Sequence[str] = ()
    unfetched: str | None = None
    finding: Finding | None = None

    @property
    def size(self) -> int:
        """About how many bytes of memory it takes."""
        found = self.finding.found if self.finding else None
        return _SIZE_OF_A_POLL + (found.size if isinstance(found, Entry) else 0)


class _Lost(msgspec.Struct, frozen=True):
    """A poll that could not be made, as the database or tagsync itself failed."""

    repository: Repository
    error: BaseException


_DROPPED: Final = "another listing was recorded meanwhile"

_SIZE_OF_A_POLL: Final = 1024
"""About how many bytes of memory a poll takes that changed nothing."""

_SIZE_AT_ONCE: Final = 7 * 2**20
"""Beyond how many bytes of memory what was found is recorded, before more is.

These are 2,000 tags with their manifests. With twice as many a first import of 400 repositories of
100 tags had 119 MB at its peak, with this 107 MB.
"""

_LINGER: Final = 0.1
"""Seconds for which what was found may wait for more to be recorded with it."""


class _Inbox:
    """Where threads leave what they found, for the one that records it: many polls at a time."""

    def __init__(self, expected: int) -> None:
        self._changed = Condition()
        self._expected = expected
        self._looks: list[_Look | _Lost] = []
        self._size = 0
        self._closed = False

    def put(self, look: _Look | _Lost) -> None:
        """Leaves what a thread found, or failed by; waits while there is enough already."""
        size = look.size if isinstance(look, _Look) else 0
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._size < _SIZE_AT_ONCE)
            self._looks.append(look)
            self._size += size
            if self._is_enough():
                self._changed.notify_all()

    def take(self) -> list[_Look | _Lost]:
        """What was left since the last time, at least one; nothing where no more is to come."""
        with self._changed:
            looks: list[_Look | _Lost] = []
            while self._expected and not looks:
                self._changed.wait_for(self._is_enough, _LINGER)
                looks, self._looks, self._size = self._looks, [], 0
            self._expected -= len(looks)
            self._changed.notify_all()
            return looks

    def close(self) -> None:
        """Lets nobody wait any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _is_enough(self) -> bool:
        return self._size >= _SIZE_AT_ONCE or len(self._looks) == self._expected


def sync(job: Job, store: Store, options: Options = _AS_USUAL, clock: Clock = utc_now) -> Poll:
    """Polls one repository, records what it found, and logs it.

    A registry that fails is an outcome, not an exception.

    Raises:
        StoreError: the database failed; nothing of this poll was recorded.
    """
    (poll,) = _finish([_look(job, store, options, clock)], store)
    if isinstance(poll, _Lost):
        raise poll.error
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
        jobs: each of another repository, in the order in which they are begun.
        store: shared by all.
        concurrency: threads for each registry's name.
        options: for all of them.
        on_poll: called in this thread after each poll.

    Returns:
        The polls in the order of the jobs.

    Raises:
        StoreError: the database failed; polls that had not ended were not recorded. A repository
            whose record is damaged fails alone.
    """
    pools = {name: ThreadPoolExecutor(count, name) for name, count in concurrency.items()}
    waiting: dict[str, deque[Job]] = {name: deque() for name in concurrency}
    for job in jobs:
        waiting[job.repository.registry].append(job)
    inbox = _Inbox(len(jobs))
    polls: dict[Repository, Poll] = {}
    try:
        for name, count in concurrency.items():
            for _ in range(min(count, len(waiting[name]))):
                pools[name].submit(_leave_looks, inbox, waiting[name], store, options)
        while looks := inbox.take():
            ended = _finish([look for look in looks if isinstance(look, _Look)], store)
            lost = [look for look in looks if isinstance(look, _Lost)]
            for one in (*ended, *lost):
                poll = _told(one) if isinstance(one, _Lost) else one
                polls[poll.repository] = poll
                on_poll(poll)
    finally:
        for some in waiting.values():
            some.clear()
        inbox.close()
        for pool in pools.values():
            pool.shutdown(wait=False)
    if not options.dry_run:
        _log_pass(polls.values(), store)
    return [polls[job.repository] for job in jobs]


def _leave_looks(inbox: _Inbox, waiting: deque[Job], store: Store, options: Options) -> None:
    """Makes polls until no job waits any more, of which other threads take some."""
    while True:
        try:
            job = waiting.popleft()
        except IndexError:
            return
        try:
            inbox.put(_look(job, store, options, utc_now))
        except BaseException as error:  # noqa: BLE001  raised again by the thread that takes it
            inbox.put(_Lost(job.repository, error))


def _look(job: Job, store: Store, options: Options, clock: Clock) -> _Look:
    """Reads a repository's tags, and decides what that means."""
    began = monotonic()
    known = store.known(job.repository)
    try:
        listing = _read(job, store, known, clock)
        look = _decided(job, store, known, listing, options)
    except RegistryError as error:
        poll = Poll(job.repository, "failed", detail=str(error), error=error)
        found = Failed(str(error), _reason(error), timestamp(clock()))
        look = _Look(job, known, poll, finding=_finding(job, known, found))
    poll = msgspec.structs.replace(look.poll, seconds=monotonic() - began)
    finding = None if options.dry_run else look.finding
    return msgspec.structs.replace(look, poll=poll, finding=finding)


def _finding(job: Job, known: Known, found: Entry | Unchanged | Held | Failed) -> Finding:
    return Finding(job.repository, known, job.interval, found)


def _read(job: Job, store: Store, known: Known, clock: Clock) -> Listing | Unchanged:
    """Reads a listing, and where its pages were no snapshot, a second one to confirm deletions."""
    began = timestamp(clock())
    scope = Scope(job.tags, job.manifests, store.with_manifest)
    try:
        listing = job.registry.list_tags(job.repository.name, known.listing_hash, scope)
        if isinstance(listing, Unchanged) or (listing.pages == 1 and listing.steady):
            return listing
        with store.reading(job.repository) as view:
            mirrored = view.tags().keys()
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


def _decided(
    job: Job, store: Store, known: Known, listing: Listing | Unchanged, options: Options
) -> _Look:
    """What a listing means, decided from one view of the records."""
    poll = Poll(job.repository, "ok", requests=listing.requests, size=listing.size)
    look = _Look(job, known, poll, listing.finished_at)
    replace = msgspec.structs.replace
    if isinstance(listing, Unchanged):
        if not options.dry_run:
            return replace(look, finding=_finding(job, known, listing))
    else:
        look = replace(
            look,
            unverified=[listing.tags[name] for name in listing.unverified],
            missing=listing.missing,
            unfetched=listing.unfetched,
        )
    with store.reading(job.repository) as view:
        tags = view.count() if isinstance(listing, Unchanged) else len(listing.tags)
        poll = replace(poll, tags=tags, recovered_from=view.known.failures)
        # What began after the last look was recorded is newer than it, and nothing else surely is.
        # No clock is asked: it may have been set in between.
        if view.known.looks != known.looks:
            return replace(look, poll=_dropped(poll))
        if isinstance(listing, Unchanged):
            return replace(look, poll=poll)
        mirrored = view.tags()
        changes = diff(mirrored, _as_far_as_known(listing, mirrored))
        deleted = (change.tag for change in changes if change.kind == "deleted")
        reason = doubt(len(mirrored), deleted)
        held = view.held_in_a_row(reason) + 1 if reason else 0
        bare = view.bare(listing.images.keys() - fresh_in(listing, changes))
    if reason and not options.accept_deletions and held < job.agreeing_listings:
        found: Held | Entry = Held(reason, listing.finished_at, tags)
        poll = replace(poll, outcome="held", detail=reason)
    else:
        found = Entry(listing, changes, _remark(listing), bare)
        kinds = Counter(change.kind for change in changes)
        poll = replace(
            poll,
            added=kinds["added"],
            updated=kinds["updated"],
            deleted=kinds["deleted"],
            detail=found.detail,
        )
    return replace(look, poll=poll, finding=_finding(job, known, found))


def _dropped(poll: Poll) -> Poll:
    return Poll(
        poll.repository,
        "dropped",
        tags=poll.tags,
        detail=_DROPPED,
        requests=poll.requests,
        size=poll.size,
        seconds=poll.seconds,
    )


def _finish(looks: Sequence[_Look], store: Store) -> list[Poll | _Lost]:
    """Records what was found, and logs it; returns the polls, or why one was not recorded."""
    findings = [look.finding for look in looks if look.finding is not None]
    results = iter(_record(findings, store) if findings else ())
    polls: list[Poll | _Lost] = []
    logged: dict[int, list[Repository]] = {}
    for look in looks:
        recorded = next(results) if look.finding is not None else None
        if isinstance(recorded, StoreError):
            polls.append(_Lost(look.job.repository, recorded))
            continue
        poll = _with_what_was_recorded(look.poll, recorded) if recorded else look.poll
        _log_oddities(look)
        if poll.outcome != "dropped":
            _log_clock(look)
        unlogged = recorded.unlogged if recorded else None
        if unlogged and _log_changes(poll.repository, unlogged):
            logged.setdefault(unlogged.through, []).append(poll.repository)
        _log_poll(poll)
        polls.append(poll)
    for through, repositories in logged.items():
        # Otherwise they stay owed, and are written again: what was recorded is recorded.
        with suppress(StoreError):
            store.acknowledge(repositories, through)
    return polls


def _record(findings: Sequence[Finding], store: Store) -> list[Recorded | StoreError]:
    """Records all together, or if that fails, each alone: only one of them may be at fault."""
    try:
        with store.recording() as ledger:
            return [*ledger.record(findings)]
    except DatabaseLocked as error:
        return [error] * len(findings)
    except StoreError as error:
        if len(findings) == 1:
            return [error]
    results: list[Recorded | StoreError] = []
    for finding in findings:
        (result,) = _record([finding], store)
        results.append(result)
        if isinstance(result, DatabaseLocked):
            # Whoever locks it would be waited for once more for each.
            break
    return results + results[-1:] * (len(findings) - len(results))


def _with_what_was_recorded(poll: Poll, recorded: Recorded) -> Poll:
    if poll.outcome == "failed":
        return poll
    poll = msgspec.structs.replace(poll, tags=recorded.tags, recovered_from=recorded.known.failures)
    return _dropped(poll) if recorded.dropped else poll


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


def _about(repository: Repository) -> dict[str, str]:
    return {"registry": repository.registry, "repository": repository.full_name}


def _log_oddities(look: _Look) -> None:
    about = _about(look.job.repository)
    for tag in look.unverified:
        log.warning(
            "image.unverified", **about, tag=tag.tag, digest=tag.digest, image_id=tag.image_id
        )
    for name in look.missing:
        log.warning("tag.unresolved", **about, tag=name)
    if look.unfetched:
        log.warning("manifests.unfetched", **about, error=look.unfetched)


def _log_clock(look: _Look) -> None:
    clock, recorded = look.finished_at, look.known.last_attempt_at
    if clock is not None and recorded is not None and clock < recorded:
        log.warning("clock.behind", **_about(look.job.repository), clock=clock, recorded=recorded)


def _told(lost: _Lost) -> Poll:
    """The failed poll of a repository whose record is damaged, logged.

    Raises:
        StoreError: it was lost for any other reason, which is no matter of the repository.
    """
    if not isinstance(lost.error, DamagedRecord):
        raise lost.error
    log.error("sync.failed", **_about(lost.repository), error=str(lost.error))
    return Poll(lost.repository, "failed", detail=str(lost.error))


def _log_changes(repository: Repository, unlogged: Unlogged) -> bool:
    """Writes the lines of what is committed, also those that a killed process still owed.

    Returns:
        Whether all were written; otherwise they stay owed.
    """
    about = _about(repository)
    if unlogged.baseline is not None:
        written = log.info("repository.baselined", **about, tags=unlogged.baseline)
        if written is False:
            return False
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
            return False
    return True


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
    about = _about(poll.repository)
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
