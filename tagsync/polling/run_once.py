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

from tagsync.database.store import Store
from tagsync.errors import DamagedRecord
from tagsync.models import Repository
from tagsync.polling import log_lines
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
) -> list[Poll]:
    """Poll many repositories once.

    Args:
        jobs: At most one job per repository, in the order in which to start the polls.
        store: The database, which all threads share.
        pools: The threads by the name of the registry. They are closed when the pass ends.
        options: Options for every poll.
        on_poll: Called after each poll, in the thread that called `run_once`.

    Returns:
        The polls in the order of the jobs.

    Raises:
        StoreError: If the database failed. The remaining polls are not started then. If only the
            record of one repository is damaged, only the poll of that repository fails.
    """
    finished: SimpleQueue[Poll | BaseException] = SimpleQueue()
    polls: dict[Repository, Poll] = {}
    try:
        for job in jobs:
            pool = pools[job.repository.registry]
            pool.submit(partial(_poll_into, finished, job, store, options))
        for _ in jobs:
            result = finished.get()
            if isinstance(result, BaseException):
                raise result
            polls[result.repository] = result
            on_poll(result)
    finally:
        for pool in pools.values():
            pool.close(cancel=True)
    if not options.dry_run:
        _log_pass(polls.values(), store)
    return [polls[job.repository] for job in jobs]


def _poll_into(
    finished: SimpleQueue[Poll | BaseException], job: Job, store: Store, options: Options
) -> None:
    try:
        finished.put(_poll_or_report_damage(job, store, options))
    except BaseException as error:  # noqa: BLE001  raised again in the main thread
        finished.put(error)


def _poll_or_report_damage(job: Job, store: Store, options: Options) -> Poll:
    try:
        return poll(job, store, options)
    except DamagedRecord as error:
        log_lines.write_failure(job.repository, str(error))
        return Poll(job.repository, "failed", reasons=("damaged",), detail=str(error))


def _log_pass(polls: Collection[Poll], store: Store) -> None:
    """Log the end of the pass, with the head of the hash chain for witnesses."""
    head = store.durable_head()
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
