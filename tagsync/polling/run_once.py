"""One pass: poll many repositories once.

Each registry has its own threads. Repositories that hang do not keep the others waiting; see
`tagsync.registries.lanes`.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Final

import structlog
from msgspec.structs import replace

from tagsync.clock import Clock, timestamp, utc_now
from tagsync.database.store import Store
from tagsync.models import Repository
from tagsync.polling.jobs import Job, Options, Poll
from tagsync.polling.poll import poll
from tagsync.registries.lanes import LanePool

log: Final[structlog.stdlib.BoundLogger] = structlog.get_logger()

_DEFAULTS: Final = Options()


def run_once(
    jobs: Sequence[Job],
    store: Store,
    pools: Mapping[str, LanePool],
    options: Options = _DEFAULTS,
    on_poll: Callable[[Poll], None] = lambda _: None,
    clock: Clock = utc_now,
) -> list[Poll]:
    """Poll many repositories once, and end all observations that can no longer grow.

    Args:
        jobs: At most one job per repository, in the order in which to start the polls.
        store: The database, which all threads share.
        pools: The threads by the name of the registry. They are closed when the pass ends.
        options: Options for every poll.
        on_poll: Called after each poll, in the thread that called `run_once`.
        clock: Returns the current time.

    Returns:
        The polls in the order of the jobs, without `Poll.changes`, which only ``on_poll`` gets.

    Raises:
        StoreError: If the database failed. The remaining polls are not started then. If only the
            record of one repository is damaged, only the poll of that repository fails.
    """
    finished: SimpleQueue[Poll | BaseException] = SimpleQueue()
    polls: dict[Repository, Poll] = {}
    try:
        for job in jobs:
            pool = pools[job.repository.registry]
            pool.submit(partial(_poll_into, finished, job, store, options, clock))
        for _ in jobs:
            result = finished.get()
            if isinstance(result, BaseException):
                raise result
            on_poll(result)
            # Memory must not grow with the changes of all repositories of a dry run.
            polls[result.repository] = replace(result, changes=())
    finally:
        for pool in pools.values():
            pool.close(cancel=True)
    if not options.dry_run:
        store.end_past_observations(timestamp(clock())[:10])
        _log_pass(polls.values(), store)
    return [polls[job.repository] for job in jobs]


def _poll_into(
    finished: SimpleQueue[Poll | BaseException],
    job: Job,
    store: Store,
    options: Options,
    clock: Clock,
) -> None:
    try:
        finished.put(poll(job, store, options, clock))
    except BaseException as error:  # noqa: BLE001  raised again in the main thread
        finished.put(error)


def _log_pass(polls: Collection[Poll], store: Store) -> None:
    """Log the end of the pass, with the heads of both hash chains for witnesses."""
    heads = store.durable_heads()
    outcomes = Counter(poll.outcome for poll in polls)
    log.info(
        "pass.finished",
        repositories=len(polls),
        failed=outcomes["failed"],
        held=outcomes["held"],
        added=sum(poll.added for poll in polls),
        updated=sum(poll.updated for poll in polls),
        deleted=sum(poll.deleted for poll in polls),
        **heads.log_fields(),
    )
