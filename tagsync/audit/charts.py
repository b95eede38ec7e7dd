"""The data of charts and pages, each with a bounded cost, on one connection."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from tagsync.audit import (
    activity,
    alarms,
    at_moment,
    coverage_strips,
    images,
    lanes,
    overview,
    tag_pages,
)
from tagsync.audit.lanes import Lanes
from tagsync.audit.ranges import Range, latest
from tagsync.clock import timestamp
from tagsync.database import migrations
from tagsync.database.connection import Connection
from tagsync.models import Repository, Watch

Row = dict[str, Any]

PAGE_OF_TAGS: Final = 100
"""Maximum number of tags on a page of `Charts.tags_at`."""


_FIRST_SQL: Final = "SELECT min(first_observed_at) FROM repositories"


class Charts:
    """Queries for charts and pages. `tagsync.audit.queries.Audit.charts` returns it.

    Repositories are exact names, not patterns. Times in results are texts, as
    `tagsync.clock.timestamp` writes them. Each method may raise `DamagedRecord`, if a row is not
    what tagsync wrote; those with a repository raise `UnknownRepository`, if it is not recorded.
    """

    def __init__(self, db: Connection, path: str) -> None:
        """Query through an open connection.

        Raises:
            UnusableDatabase: If an older tagsync wrote the database last.
        """
        migrations.check_current(db, path)
        self._db = db

    def range(self, span: str, now: datetime, repository: Repository | None = None) -> Range:
        """Return the range that a key of `tagsync.audit.ranges.SPANS` means now.

        Args:
            span: The key. ``all`` begins with the first complete listing.
            now: The current time.
            repository: Whose first listing counts for ``all``. None means any repository.
        """
        if repository is None:
            (first,) = self._db.execute(
                "SELECT min(first_observed_at) FROM repositories"
            ).fetchone()
        else:
            first = lanes.first_observed_at(self._db, repository)
        return latest(span, now, first)

    def first_listing(self, repository: Repository) -> str | None:
        """Return the time of a repository's first complete listing, or None without one."""
        return lanes.first_observed_at(self._db, repository)

    def last_listing(self, repository: Repository) -> str | None:
        """Return the time of a repository's last complete listing, or None without one."""
        return lanes.last_complete_at(self._db, repository)

    def lanes(self, repository: Repository, period: Range, before: int | None = None) -> Lanes:
        """Return a page of the lanes of a repository; see `tagsync.audit.lanes.lanes`."""
        return lanes.lanes(self._db, repository, period, before)

    def tag_lane(self, repository: Repository, tag: str, period: Range) -> Lanes:
        """Return the lane of a tag; see `tagsync.audit.lanes.tag_lane`."""
        return lanes.tag_lane(self._db, repository, tag, period)

    def gaps(
        self, repository: Repository, period: Range
    ) -> tuple[list[coverage_strips.CoverageGap], Range]:
        """Return the gaps in coverage of a repository, and the range that was searched."""
        return lanes.gaps(self._db, repository, period)

    def changes_by_day(
        self, now: datetime, days: int = 30, repositories: Sequence[Repository] | None = None
    ) -> list[activity.Day]:
        """Return the changes of each of the last days; see `activity.changes_by_day`."""
        today = datetime.fromisoformat(timestamp(now)).date()
        return activity.changes_by_day(self._db, today, days, repositories)

    def number_of_changes(self, repositories: Sequence[Repository]) -> int:
        """Return how many changes some repositories have; see `activity.number_of_changes`."""
        return activity.number_of_changes(self._db, repositories)

    def registry_strips(
        self, period: Range, slices: int = coverage_strips.SLICES
    ) -> coverage_strips.Strips:
        """Return a strip for each registry; see `coverage_strips.registry_strips`."""
        return coverage_strips.registry_strips(self._db, period, slices)

    def repository_strips(
        self,
        repositories: Sequence[Repository],
        period: Range,
        page: int = 1,
        slices: int = coverage_strips.SLICES,
    ) -> coverage_strips.Strips:
        """Return a strip for each repository of a page; see `coverage_strips`."""
        return coverage_strips.repository_strips(self._db, repositories, period, page, slices)

    def longest_gaps(
        self, period: Range, page: int = 1, *, longer_than: timedelta = timedelta()
    ) -> coverage_strips.Gaps:
        """Return the gaps of all repositories, the longest first; see `coverage_strips`."""
        least = longer_than.total_seconds()
        return coverage_strips.longest_gaps(self._db, period, page, longer_than=least)

    def alarms(
        self,
        watches: Mapping[Repository, Watch | None],
        now: datetime,
        *,
        newest: int = alarms.NEWEST,
        most: int = alarms.MOST_CHANGES,
    ) -> alarms.Alarms:
        """Return the newest alarms; see `tagsync.audit.alarms.newest_alarms`."""
        return alarms.newest_alarms(self._db, watches, now, newest=newest, most=most)

    def image(self, digest: str) -> images.ImageDetails | None:
        """Return an image by its whole digest, or None; see `tagsync.audit.images.image`."""
        return images.image(self._db, digest)

    def layer(self, digest: str) -> images.LayerUse:
        """Return the images with a layer; see `tagsync.audit.images.layer`."""
        return images.layer(self._db, digest)

    def overview_at(self, moment: str) -> overview.Overview:
        """Return the whole record as of a moment; see `overview.overview_at`."""
        return overview.overview_at(self._db, moment)

    def repositories_at(self, moment: str) -> list[overview.RepositoryAt]:
        """Return the repositories that were listed until a moment, sorted by full name."""
        return overview.repositories_at(self._db, moment)

    def tags_after(
        self, repository: Repository, after: str = "", most: int = tag_pages.MOST_CHANGES
    ) -> tag_pages.TagPage:
        """Return a page of tags with a bounded number of changes; see `tag_pages`."""
        return tag_pages.tags_after(self._db, repository, after, most)

    def changed_between(
        self,
        repository: Repository,
        start: str,
        end: str | None,
        after: str = "",
        most: int = tag_pages.MOST_CHANGES,
    ) -> tag_pages.TagPage:
        """Return a page of tags that may differ between two moments; see `tag_pages`."""
        return tag_pages.changed_between(self._db, repository, start, end, after, most)

    def tag_names(
        self, repository: Repository, after: str = "", limit: int = PAGE_OF_TAGS
    ) -> list[str]:
        """Return a page of the tags that were ever recorded; see `at_moment.tag_names`."""
        return at_moment.tag_names(self._db, repository, after, limit)

    def tags_at(
        self, repository: Repository, moment: str, tags: Sequence[str] | None = None
    ) -> Iterator[Row]:
        """Yield the rows of ``tags --at`` for some tags; see `at_moment.tags_at`."""
        return at_moment.tags_at(self._db, repository, moment, tags)

    def diff(
        self,
        repository: Repository,
        start: str,
        end: str | None,
        tags: Sequence[str] | None = None,
    ) -> Iterator[Row]:
        """Yield the rows of ``diff`` for some tags; see `at_moment.diff`."""
        return at_moment.diff(self._db, repository, start, end, tags)
