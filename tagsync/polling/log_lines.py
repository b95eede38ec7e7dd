"""Write the log lines of a poll."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import structlog

from tagsync.database.outcomes import Failed, Outcome, PendingLog, Reason
from tagsync.database.state import RepositoryState
from tagsync.escaping import truncate
from tagsync.models import Distrust, Listing, Repository, Unchanged
from tagsync.polling.jobs import Poll

_NAMES: Final = 10
"""Maximum number of invalid names in a log line."""

log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger()


def write_changes(repository: Repository, pending: PendingLog) -> bool:
    """Write the pending log lines of committed changes.

    Lines that earlier polls could not write are also pending.

    Returns:
        True if there were pending lines and all of them were written. The caller then acknowledges
        these lines. Lines that are not acknowledged stay pending.
    """
    lines = list(_lines(pending))
    about = about_repository(repository)
    # A log method returns False if the line could not be written; see `tagsync.log`.
    written = all(write(event, **about, **fields) is not False for write, event, fields in lines)
    return bool(lines) and written


def _lines(pending: PendingLog) -> Iterator[tuple[Callable[..., Any], str, dict[str, Any]]]:
    """Yield the log method, the event and the fields of each pending line.

    A change that breaks the promise of an immutable tag has a second line.
    """
    if pending.baseline is not None:
        yield log.info, "repository.baselined", {"tags": pending.baseline}
    for change in pending.changes:
        moved = {"moved": change.moved} if change.kind == "updated" else {}
        digests = {"old_digest": change.old_digest, "new_digest": change.new_digest}
        times = {"not_before": change.not_before, "observed_at": change.observed_at}
        number = {"change_id": change.id}
        tag = {"tag": change.tag}
        yield log.info, f"tag.{change.kind}", tag | moved | digests | times | number
        if violation := pending.violations.get(change.id):
            promise = {"previous_digest": violation.previous_digest, "pattern": violation.pattern}
            fields = tag | promise | {"new_digest": change.new_digest} | times | number
            yield log.warning, f"tag.{violation.kind}", fields


def write_warnings(poll: Poll, outcome: Outcome, state: RepositoryState) -> None:
    """Write a warning for each problem of a listing, and one if the clock was behind.

    The clock was behind if it showed an earlier time than the last recorded poll.

    Args:
        poll: The result of the poll.
        outcome: The outcome that the result was made from.
        state: The recorded state of the repository when the poll began.
    """
    if isinstance(outcome, Failed):
        return
    about = about_repository(poll.repository)
    listing = outcome if isinstance(outcome, Unchanged) else outcome.listing
    if isinstance(listing, Listing):
        _write_problems(about, listing)
    last = state.last_attempt_at
    if poll.outcome != "dropped" and last is not None and listing.finished_at < last:
        log.warning("clock.behind", **about, clock=listing.finished_at, recorded=last)


def _write_problems(about: dict[str, str], listing: Listing) -> None:
    """Write a warning for each problem of a listing."""
    for name in listing.unverified:
        tag = listing.tags[name]
        wrong = listing.wrong_manifests.get(name)
        what = {"digest": tag.digest, "image_id": tag.image_id, "manifest_digest": wrong}
        log.warning("image.unverified", **about, tag=name, **what)
    for name in listing.missing:
        log.warning("tag.unresolved", **about, tag=name)
    for name, error in sorted(listing.failed.items()):
        log.warning("tag.unresolved", **about, tag=name, error=error)
    if listing.bad_names:
        names = [truncate(name) for name in sorted(listing.bad_names)[:_NAMES]]
        log.warning("tag.skipped", **about, names=names, count=len(listing.bad_names))
    for name, fields in listing.bad_fields.items():
        log.warning("tag.bad_field", **about, tag=name, fields=list(fields))
    if listing.distrust and listing.distrust.confirmed_at >= listing.started_at:
        log.warning("list.distrusted", **about, **_about_distrust(listing.distrust))
    if listing.unfetched:
        log.warning("manifests.unfetched", **about, error=listing.unfetched)


def _about_distrust(distrust: Distrust) -> dict[str, str]:
    """Return the fields about a list that is no longer used."""
    return {
        "list": distrust.source,
        "tag": distrust.tag,
        "list_digest": distrust.listed,
        "head_digest": distrust.head,
        "first_at": distrust.first_at,
        "confirmed_at": distrust.confirmed_at,
    }


def write_result(poll: Poll) -> None:
    """Write a line about the result of a poll.

    A line before it says if the repository recovered, and another one if an alternation begins or
    ends.
    """
    about = about_repository(poll.repository)
    counts = {
        "tags": poll.tags,
        "added": poll.added,
        "updated": poll.updated,
        "deleted": poll.deleted,
    }
    cost = {"requests": poll.requests, "bytes": poll.size, "seconds": round(poll.seconds, 3)}
    if poll.recovered_from:
        log.info("sync.recovered", **about, failures=poll.recovered_from)
    if poll.alternation is not None and poll.alternation.phase != "lasts":
        level = log.warning if poll.alternation.phase == "began" else log.info
        tags, phase = list(poll.alternation.tags), poll.alternation.phase
        level("listings.alternating", **about, phase=phase, tags=tags)
    match poll.outcome:
        case "ok":
            level = log.info if poll.added or poll.updated or poll.deleted else log.debug
            level("sync.finished", **about, **counts, **cost, detail=poll.detail)
        case "dropped":
            log.debug("sync.dropped", **about, **cost, detail=poll.detail)
        case "held":
            when = {"counts_from": poll.counts_from}
            log.warning("sync.held", **about, tags=poll.tags, **when, **cost, detail=poll.detail)
        case "failed":
            write_failure(poll.repository, poll.detail, poll.reasons, seconds=cost["seconds"])


def write_failure(
    repository: Repository, error: str | None, reasons: Sequence[Reason] = (), **more: float
) -> None:
    """Write the line about a failed poll.

    Args:
        repository: The repository that was polled.
        error: A sentence that says why the poll failed.
        reasons: The words for it in the column ``observations.reasons``.
        **more: Further fields of the line.
    """
    log.error(
        "sync.failed",
        **about_repository(repository),
        reasons=",".join(reasons),
        **more,
        error=error,
    )


def about_repository(repository: Repository) -> dict[str, str]:
    """Return the fields that name a repository in every log line."""
    return {"registry": repository.registry, "repository": repository.full_name}
