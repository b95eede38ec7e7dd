"""The record as one answer sees it."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from tagsync.audit.queries import Audit
from tagsync.database.connection import Connection
from tagsync.database.decoding import check_timestamp, check_values
from tagsync.models import Repository, Watch, watch_of
from tagsync.schedule import stale

Query = Callable[[str, Mapping[str, object]], list[dict[str, Any]]]
"""A function that runs SQL with named parameters and returns rows as dictionaries."""


class Snapshot(NamedTuple):
    """The record at one moment: all queries of an answer see the same state.

    Attributes:
        audit: The queries of the commands.
        query: Runs SQL of a page. No value in its rows is bytes.
        watches: The watches of the configuration; empty if it has none.
        now: The time of the request.
        hosts: The names of the configured registries, by the host of their endpoints.
    """

    audit: Audit
    query: Query
    watches: Sequence[Watch]
    now: datetime
    hosts: Mapping[str, Sequence[str]] = MappingProxyType({})

    def stale(self, repository: Repository, last_complete_at: str | None) -> bool | None:
        """Return whether a repository is stale, as the command ``status`` judges it.

        The result is None if the configuration does not watch the repository.

        Args:
            repository: The repository.
            last_complete_at: Time of its last complete listing, if there was one.

        Raises:
            DamagedRecord: If the time is not one that tagsync wrote.
        """
        check_timestamp(last_complete_at, f"repository {repository.full_name}")
        watch = watch_of(repository, self.watches)
        return None if watch is None else stale(watch, last_complete_at, self.now)


def snapshot(
    db: Connection,
    path: Path,
    watches: Sequence[Watch],
    now: datetime,
    hosts: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Snapshot:
    """Return the record as a connection sees it.

    Args:
        db: An open connection, in a transaction.
        path: The database file, for messages.
        watches: The watches of the configuration.
        now: The time of the request.
        hosts: The names of the configured registries, by host.
    """

    def query(sql: str, parameters: Mapping[str, object]) -> list[dict[str, Any]]:
        rows = list(db.query(sql, parameters))
        for row in rows:
            check_values(row, "a row of this page")
        return rows

    return Snapshot(Audit(db, path), query, watches, now, hosts)
