"""Changes by day and kind, from the counts that the recorder keeps."""

from datetime import timedelta
from pathlib import Path

from tagsync.audit import activity
from tagsync.audit.activity import Day
from tagsync.audit.queries import Audit
from tagsync.database.connection import reading
from tagsync.models import Repository, Tag
from tests.support.audit import PollAt, pointing
from tests.support.clock import FakeClock
from tests.support.registries import REPOSITORY

DAY = 24 * 60
TODAY = FakeClock().now + timedelta(days=3)


def test_each_day_has_its_changes_by_kind(poll_at: PollAt, database: Path) -> None:
    """Every day is there, also without changes, and counts each kind."""
    poll_at(0, "a", "b")
    poll_at(5, pointing("a", "2"), "b", "c")
    poll_at(2 * DAY, Tag("a", "sha256:2", size=5), "c")
    with Audit.open(database) as audit:
        found = audit.charts.changes_by_day(TODAY, 5)
        same = audit.charts.changes_by_day(TODAY, 5, [REPOSITORY])
        others = audit.charts.changes_by_day(TODAY, 5, [Repository("swr", "team/other")])
    assert found == [
        Day("2026-05-02"),
        Day("2026-05-03", baseline=2, added=1, moved=1),
        Day("2026-05-04"),
        Day("2026-05-05", updated=1, deleted=1),
        Day("2026-05-06"),
    ]
    assert same == found
    assert others == [Day(day.day) for day in found]


def test_days_that_may_not_be_read_are_left_out(poll_at: PollAt, database: Path) -> None:
    """Of too many rows the newest days are read, and only those that are complete."""
    for day in range(3):
        poll_at(day * DAY, pointing("a", str(day)))
    with reading(database) as db:
        found = activity.changes_by_day(db, TODAY.date(), 5, most=2)
    assert found == [Day("2026-05-05", moved=1), Day("2026-05-06")]
