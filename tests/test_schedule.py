"""When a repository is due, when it is stale, and how long what keeps failing rests."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagsync.clock import timestamp
from tagsync.models import Repository, Watch
from tagsync.schedule import next_due, rest, spacing, stale

REPOSITORY = Repository("swr", "team/api")
FRIDAY = datetime(2026, 11, 20, 17, 50, tzinfo=UTC)
MONDAY = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
OFFICE_HOURS = Watch("swr", ("team/api",), cron="*/10 9-17 * * 1-5")


def every(**interval: float) -> Watch:
    return Watch("swr", ("team/api",), interval=timedelta(**interval))


@given(
    st.integers(0, 100 * 366 * 86400 * 1000),
    st.integers(1, 400_000_000),
    st.text(min_size=1),
)
def test_the_next_time_is_later_and_within_one_interval(
    since: int, milliseconds: int, name: str
) -> None:
    """Whatever the interval, a repository is due later, and no later than one interval."""
    after = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(milliseconds=since)
    watch = every(milliseconds=milliseconds)
    repository = Repository("swr", f"team/{name}")
    due = next_due(watch, repository, after)
    slack = timedelta(microseconds=100)  # what a float of seconds since 1970 can tell apart
    assert after < due <= after + watch.interval + slack
    following = next_due(watch, repository, due)
    assert abs(following - due - watch.interval) <= slack


def test_repositories_are_spread_over_the_interval() -> None:
    """A thousand repositories of one interval are due evenly within it, not all at once."""
    watch = every(minutes=10)
    dues = [next_due(watch, Repository("swr", f"team/r{n}"), MONDAY) for n in range(1000)]
    minutes = [int((due - MONDAY).total_seconds() // 60) for due in dues]
    assert all(50 < minutes.count(minute) < 150 for minute in range(10))


def test_a_crontab_is_followed_in_utc() -> None:
    """With cron a repository is due at cron's moments, whatever zone the question is asked in."""
    assert next_due(OFFICE_HOURS, REPOSITORY, FRIDAY) == MONDAY
    abroad = FRIDAY.astimezone(datetime.fromisoformat("2026-01-01T00:00:00+05:30").tzinfo)
    assert next_due(OFFICE_HOURS, REPOSITORY, abroad) == MONDAY


@pytest.mark.parametrize(
    ("cron", "after", "due"),
    [
        ("0 0 * * 0", "2026-11-24T00:00", "2026-11-29T00:00"),
        ("0 0 * * 7", "2026-11-24T00:00", "2026-11-29T00:00"),
        ("0 0 1 * 1", "2026-11-24T00:00", "2026-11-30T00:00"),
        ("0 0 29 2 *", "2026-11-24T00:00", "2028-02-29T00:00"),
    ],
)
def test_cron_is_the_cron_that_people_know(cron: str, after: str, due: str) -> None:
    """Sunday is 0 and 7, and a day of the month and of the week both count, as crontab(5) says."""
    watch = Watch("swr", ("team/api",), cron=cron)
    moment = datetime.fromisoformat(after).replace(tzinfo=UTC)
    assert next_due(watch, REPOSITORY, moment) == datetime.fromisoformat(due).replace(tzinfo=UTC)


def test_polls_are_as_far_apart_as_they_are_meant_to_be() -> None:
    """Over a weekend without polls the spacing is the weekend, on Monday it is ten minutes."""
    assert spacing(every(minutes=7), MONDAY) == timedelta(minutes=7)
    for seconds in (0, 0.5, 30, 599):
        assert spacing(OFFICE_HOURS, MONDAY + timedelta(seconds=seconds)) == MONDAY - FRIDAY
    assert spacing(OFFICE_HOURS, MONDAY + timedelta(minutes=10)) == timedelta(minutes=10)
    assert spacing(OFFICE_HOURS, MONDAY - timedelta(seconds=30)) == timedelta(minutes=10)


def test_stale_after_three_intervals() -> None:
    """Three intervals without a complete listing are too long, and so is never."""
    watch = every(minutes=5)
    last = timestamp(MONDAY)
    assert not stale(watch, last, MONDAY + timedelta(minutes=15))
    assert stale(watch, last, MONDAY + timedelta(minutes=15, milliseconds=1))
    assert stale(watch, None, MONDAY)


def test_stale_after_three_moments_of_cron() -> None:
    """With cron three missed moments are too many, and a weekend without any is none."""
    last = timestamp(FRIDAY + timedelta(seconds=2))
    assert not stale(OFFICE_HOURS, last, MONDAY + timedelta(minutes=20))
    assert stale(OFFICE_HOURS, last, MONDAY + timedelta(minutes=20, seconds=1))


def test_what_keeps_failing_rests_longer_each_time() -> None:
    """The rest doubles up to its limit, and is never shorter than the first."""
    minute = timedelta(minutes=1)
    assert [rest(n, minute) / minute for n in (1, 2, 3, 4, 5, 6, 10_000)] == [
        1,
        2,
        4,
        8,
        15,
        15,
        15,
    ]
    assert rest(7, 60 * minute) == 60 * minute
    assert rest(3, minute / 2, minute) == minute
