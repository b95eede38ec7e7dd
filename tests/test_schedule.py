"""When a repository is due, when it is stale, and how long to back off."""

from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagsync.clock import timestamp
from tagsync.models import Repository, Watch
from tagsync.schedule import _stale_before, backoff, firings, next_due, spacing, stale

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
def test_next_due_time_is_within_one_interval(since: int, milliseconds: int, name: str) -> None:
    """A repository is due after the given moment, and at most one interval after it."""
    after = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(milliseconds=since)
    watch = every(milliseconds=milliseconds)
    repository = Repository("swr", f"team/{name}")
    due = next_due(watch, repository, after)
    slack = timedelta(microseconds=100)  # the precision of a float of seconds since 1970
    assert after < due <= after + watch.interval + slack
    following = next_due(watch, repository, due)
    assert abs(following - due - watch.interval) <= slack


def test_repositories_are_spread_over_the_interval() -> None:
    """A thousand repositories with the same interval are due evenly within it."""
    watch = every(minutes=10)
    dues = [next_due(watch, Repository("swr", f"team/r{n}"), MONDAY) for n in range(1000)]
    minutes = [int((due - MONDAY).total_seconds() // 60) for due in dues]
    assert all(50 < minutes.count(minute) < 150 for minute in range(10))


def test_cron_is_evaluated_in_utc() -> None:
    """With cron, due times are in UTC, whatever the time zone of `after`."""
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
def test_cron_follows_crontab(cron: str, after: str, due: str) -> None:
    """Sunday is 0 and 7; days of the month or of the week match, as in crontab(5)."""
    watch = Watch("swr", ("team/api",), cron=cron)
    moment = datetime.fromisoformat(after).replace(tzinfo=UTC)
    assert next_due(watch, REPOSITORY, moment) == datetime.fromisoformat(due).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("after", "due"),
    [
        ("2026-11-24T00:00", "2026-11-24T05:00"),
        ("2026-07-24T00:00", "2026-07-24T04:00"),
        ("2026-10-24T12:00", "2026-10-25T05:00"),
    ],
)
def test_cron_in_a_time_zone(after: str, due: str) -> None:
    """With CRON_TZ, polls are at six o'clock in Berlin, in summer and in winter."""
    watch = Watch("swr", ("team/api",), cron="CRON_TZ=Europe/Berlin 0 6 * * *")
    moment = datetime.fromisoformat(after).replace(tzinfo=UTC)
    assert next_due(watch, REPOSITORY, moment) == datetime.fromisoformat(due).replace(tzinfo=UTC)


def test_spacing_over_a_change_to_winter_time() -> None:
    """The night in which summer time ends is an hour longer, and so is the spacing."""
    watch = Watch("swr", ("team/api",), cron="CRON_TZ=Europe/Berlin 0 6 * * *")
    assert spacing(watch, datetime(2026, 10, 25, 12, tzinfo=UTC)) == timedelta(hours=25)
    assert spacing(watch, datetime(2026, 10, 27, 12, tzinfo=UTC)) == timedelta(hours=24)
    last = timestamp(datetime(2026, 10, 25, 5, tzinfo=UTC))
    assert not stale(watch, last, datetime(2026, 10, 28, 5, tzinfo=UTC))
    assert stale(watch, last, datetime(2026, 10, 28, 6, tzinfo=UTC))


def test_spacing_is_the_time_between_two_planned_polls() -> None:
    """Spacing spans a weekend without planned polls; on Monday it is ten minutes."""
    assert spacing(every(minutes=7), MONDAY) == timedelta(minutes=7)
    for seconds in (0, 0.5, 30, 599):
        assert spacing(OFFICE_HOURS, MONDAY + timedelta(seconds=seconds)) == MONDAY - FRIDAY
    assert spacing(OFFICE_HOURS, MONDAY + timedelta(minutes=10)) == timedelta(minutes=10)
    assert spacing(OFFICE_HOURS, MONDAY - timedelta(seconds=30)) == timedelta(minutes=10)


def test_stale_after_three_intervals() -> None:
    """A repository is stale after three intervals, or without any listing."""
    watch = every(minutes=5)
    last = timestamp(MONDAY)
    assert not stale(watch, last, MONDAY + timedelta(minutes=15))
    assert stale(watch, last, MONDAY + timedelta(minutes=15, milliseconds=1))
    assert stale(watch, None, MONDAY)


def test_stale_after_three_missed_runs_of_cron() -> None:
    """With cron, a repository is stale after three missed polls, however far apart."""
    last = timestamp(FRIDAY + timedelta(seconds=2))
    assert not stale(OFFICE_HOURS, last, MONDAY + timedelta(minutes=20))
    assert stale(OFFICE_HOURS, last, MONDAY + timedelta(minutes=20, seconds=1))


def test_backoff_doubles_up_to_its_limit() -> None:
    """The delay doubles up to its limit, or stays at a first delay that is longer."""
    minute = timedelta(minutes=1)
    assert [backoff(n, minute) / minute for n in (1, 2, 3, 4, 5, 6, 10_000)] == [
        1,
        2,
        4,
        8,
        15,
        15,
        15,
    ]
    assert backoff(7, 60 * minute) == 60 * minute
    assert backoff(3, minute / 2, minute) == minute


@pytest.mark.parametrize(
    "cron", ["29 2 * * *", "*/5 8-18 * * 1-5", "CRON_TZ=Europe/Berlin 30 2 * * *", "0 0 1 * *"]
)
@given(st.integers(0, 10**6), st.sampled_from([0, 1, 59_999]), st.integers(0, 200_000))
def test_three_polls_of_cron_are_counted_from_the_listing(
    cron: str, minute: int, milliseconds: int, age: int
) -> None:
    """The answer is that of the third planned poll after the listing, also if clocks change."""
    now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minute, milliseconds=milliseconds)
    last = now - timedelta(minutes=age)
    *_, third = islice(firings(cron, last), 3)
    watch = Watch("swr", ("a/b",), cron=cron)
    assert stale(watch, timestamp(last), now) == (now > third)


def test_many_repositories_share_the_planned_polls_of_their_watch() -> None:
    """The times of a cron expression are computed once, and not for each repository."""
    watch = Watch("swr", ("a/*",), cron="17 3 * * *")
    before = _stale_before.cache_info()
    for number in range(1000):
        stale(watch, timestamp(MONDAY - timedelta(seconds=number)), MONDAY)
    after = _stale_before.cache_info()
    assert (after.misses - before.misses, after.hits - before.hits) == (1, 999)


def test_listing_far_in_the_future_is_stale() -> None:
    """A listing is stale if its time is three intervals before or after the clock."""
    watch = Watch("swr", ("team/api",), interval=timedelta(minutes=5))
    for ahead, expected in ((0, False), (14, False), (16, True), (10**6, True), (-16, True)):
        at = timestamp(MONDAY + timedelta(minutes=ahead))
        assert stale(watch, at, MONDAY) == expected
