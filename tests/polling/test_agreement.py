"""Agreement in time: how far apart the listings that confirm a deletion have to be."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tagsync.database.store import Store
from tagsync.errors import Unreachable
from tagsync.models import Repository, Watch
from tagsync.polling.jobs import Job, Options, Poll
from tagsync.polling.poll import poll
from tests.support.clock import FakeClock
from tests.support.record import assert_history_is_whole
from tests.support.registries import Scripted

Query = Callable[..., list[tuple[Any, ...]]]
Events = list[dict[str, Any]]

MINUTE = timedelta(minutes=1)
AGREE_AFTER = timedelta(minutes=3)


class Polls:
    """Polls a scripted repository, each time after some minutes."""

    def __init__(self, job: Job, scripted: Scripted, store: Store, clock: FakeClock) -> None:
        self._job, self._scripted, self._store, self._clock = job, scripted, store, clock

    def __call__(
        self, *tags: str, after: float = 1, fails: bool = False, accept: bool = False, **keys: Any
    ) -> Poll:
        self._clock.advance(minutes=after)
        if fails:
            self._scripted.script.append(Unreachable("for a moment"))
        else:
            self._scripted.then(*tags)
        job = msgspec.structs.replace(self._job, **({"agree_after": AGREE_AFTER} | keys))
        return poll(job, self._store, Options(accept_deletions=accept), self._clock)


@pytest.fixture
def poll_after(job: Job, scripted: Scripted, store: Store, clock: FakeClock) -> Polls:
    polls = Polls(job, scripted, store, clock)
    assert polls("a", "b").outcome == "ok"
    return polls


@pytest.mark.parametrize(
    ("cron", "interval", "configured", "expected"),
    [
        (None, timedelta(minutes=5), None, timedelta(minutes=2.5)),
        (None, timedelta(seconds=10), None, MINUTE),
        (None, timedelta(days=1), timedelta(), timedelta()),
        (None, timedelta(days=1), timedelta(seconds=1), timedelta(seconds=1)),
        ("0 * * * *", timedelta(minutes=5), None, timedelta(minutes=30)),
        ("0 6,8 * * *", timedelta(minutes=5), None, timedelta(hours=11)),
        ("0 6,8 * * *", timedelta(minutes=5), MINUTE, MINUTE),
    ],
)
def test_default_is_half_the_time_between_two_polls(
    scripted: Scripted,
    clock: FakeClock,
    cron: str | None,
    interval: timedelta,
    configured: timedelta | None,
    expected: timedelta,
) -> None:
    """Without the key it is half the planned time between two polls, at least a minute."""
    clock.advance(hours=-5)  # 07:00: the last two firings of the last rows are 08:00 and 06:00
    watch = Watch("swr", ("team/api",), interval=interval, cron=cron, agree_after=configured)
    (repository,) = watch.named
    assert Job.of(repository, watch, scripted, clock()).agree_after == expected


def test_two_listings_within_one_outage_are_held(
    poll_after: Polls, query: Query, logged: Events, database: Path
) -> None:
    """A second listing that comes too early is held, and says when the next one counts."""
    assert poll_after().outcome == "held"
    early = poll_after(after=0.02)
    assert (early.outcome, early.counts_from) == ("held", "2026-05-03T12:05:00.000Z")
    assert early.detail is not None
    assert early.detail.endswith(
        "; a listing after 2026-05-03 12:05:00Z that says the same will be recorded"
    )
    held = [entry for entry in logged if entry["event"] == "sync.held"]
    assert [entry["counts_from"] for entry in held] == ["2026-05-03T12:05:00.000Z"] * 2
    assert [entry["detail"] for entry in held] == [early.detail] * 2
    assert query("SELECT outcome, detail, polls FROM observations ORDER BY id") == [
        ("ok", None, 1),
        ("held", early.detail, 2),
    ]
    assert query("SELECT last_error FROM repositories") == [(early.detail,)]
    assert poll_after(after=2.97).outcome == "held"
    assert poll_after(after=0.02).deleted == 2
    assert_history_is_whole(database)


class Step(NamedTuple):
    """A poll in the tables below: minutes after the one before, and what it finds."""

    after: float
    finds: str
    outcome: str


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([Step(1, "none", "held"), Step(3, "none", "ok")], id="exactly after"),
        pytest.param(
            [Step(1, "none", "held"), Step(1, "fails", "failed"), Step(2, "none", "ok")],
            id="failed poll between",
        ),
        pytest.param(
            [Step(1, "none", "held"), Step(1, "fails", "failed"), Step(1, "none", "held")],
            id="failed poll counts as no time",
        ),
        pytest.param([Step(1, "none", "held"), Step(60, "none", "ok")], id="gap between"),
        pytest.param(
            [Step(719, "none", "held"), Step(2, "none", "held")], id="midnight, too early"
        ),
        pytest.param(
            [Step(717, "none", "held"), Step(2, "none", "held"), Step(2, "none", "ok")],
            id="midnight between",
        ),
        pytest.param(
            [Step(1, "none", "held"), Step(2, "both", "ok"), Step(2, "none", "held")],
            id="whole listing between",
        ),
        pytest.param(
            [Step(1, "none", "held"), Step(3, "other", "ok")], id="same deletions, a tag more"
        ),
    ],
)
def test_when_listings_agree(
    job: Job, scripted: Scripted, store: Store, clock: FakeClock, steps: list[Step]
) -> None:
    """Listings that delete the same tags agree across failures, gaps and midnight."""
    finds = {"none": (), "both": ("a", "b"), "other": ("c",)}
    poll_after = Polls(job, scripted, store, clock)
    poll_after("a", "b", after=0)
    for after, what, outcome in steps:
        tags = finds.get(what, ())
        assert poll_after(*tags, after=after, fails=what == "fails").outcome == outcome


def test_midnight_row_counts_with_the_row_before(poll_after: Polls, query: Query) -> None:
    """A row that begins only because of midnight adds to the count of the row before it."""
    keys: dict[str, Any] = {"agreeing_listings": 4, "agree_after": MINUTE}
    outcomes = [poll_after(after=after, **keys).outcome for after in (717, 1, 1, 0.5)]
    assert outcomes == ["held"] * 4
    assert query("SELECT first_at, last_at, polls FROM observations WHERE outcome = 'held'") == [
        ("2026-05-03T23:58:00.000Z", "2026-05-03T23:59:00.000Z", 2),
        ("2026-05-03T23:59:00.000Z", "2026-05-04T00:00:30.000Z", 2),
    ]
    assert poll_after(after=0.5, **keys).outcome == "ok"


def test_more_listings_need_more_time(poll_after: Polls) -> None:
    """With three listings, the first of them has to be twice `agree_after` old."""
    details = [poll_after(after=after, agreeing_listings=3).detail for after in (1, 1, 1, 3.9)]
    first, *others = [(detail or "").rpartition("; ")[2] for detail in details]
    assert first == (
        "it will be recorded if 2 more listings say the same, the last one after"
        " 2026-05-03 12:08:00Z"
    )
    assert (
        others == ["a listing after 2026-05-03 12:08:00Z that says the same will be recorded"] * 3
    )
    assert poll_after(after=0.1, agreeing_listings=3).outcome == "ok"


def test_without_agree_after_the_next_listing_counts(poll_after: Polls) -> None:
    """With `agree_after` of 0, the next listing counts, however early it comes."""
    held = poll_after(agree_after=timedelta())
    assert (held.detail or "").endswith("; the next listing that says the same will be recorded")
    assert poll_after(after=0, agree_after=timedelta()).outcome == "ok"


def test_accepted_deletions_need_no_time(poll_after: Polls) -> None:
    """With `accept_deletions`, a listing is recorded at once."""
    assert poll_after().outcome == "held"
    assert poll_after(after=0, accept=True).deleted == 2


def test_listing_that_began_too_early_does_not_count(
    poll_after: Polls, scripted: Scripted, job: Job, store: Store, clock: FakeClock
) -> None:
    """The start of a listing counts, because a slow one may be as old as its start."""
    poll_after()
    clock.advance(minutes=4)
    scripted.then(started_at="2026-05-03T12:03:00.000Z")
    strict = msgspec.structs.replace(job, agree_after=AGREE_AFTER)
    assert poll(strict, store, clock=clock).outcome == "held"


@pytest.mark.parametrize(
    ("steps", "outcomes"),
    [
        # Set back between the two listings: the age is unknown, and counted anew.
        ([0, -120, 2, 2], ["held", "held", "held", "ok"]),
        # Set back before the first listing: both have times of the same clock.
        ([-120, 2, 2], ["held", "held", "ok"]),
        # Set back before the first listing, and right again at the second.
        ([-120, 124, 2, 2], ["held", "held", "held", "ok"]),
        # The same, with the time of the last listing before: its record is a millisecond later.
        ([-120, 120, 2, 2, 2], ["held", "held", "held", "held", "ok"]),
        # Set back for one listing only.
        ([0, -60, 60.5, 2, 2], ["held", "held", "held", "held", "ok"]),
    ],
)
def test_clock_that_was_set_back_makes_no_listing_count_earlier(
    poll_after: Polls, steps: list[float], outcomes: list[str]
) -> None:
    """A clock that was set back, or is right again, begins the age anew."""
    assert [poll_after(after=after).outcome for after in steps] == outcomes


# --- any sequence of listings ---------------------------------------------------------------------

TAGS = tuple("abcd")
LISTED = [TAGS, (), ("a",), ("x", "y"), ("a", "b", "c")]
STEPS = st.lists(
    st.tuples(
        st.sampled_from([None, *LISTED]),  # None: the poll fails
        st.sampled_from([0, 0.5, 1, 2, 3, 6, 30]),  # minutes since the poll before
        st.sampled_from([0, 0, 0, -24]),  # hours by which the clock is wrong
    ),
    max_size=12,
)

numbers = count()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Store.open(tmp_path_factory.mktemp("agreement") / "tagsync.db") as store:
        yield store


@given(STEPS, st.integers(1, 3), st.sampled_from([0, 1, 3]))
@example([((), 0, -24), ((), 0, 0)], 2, 1)
def test_no_suspicious_deletion_is_recorded_before_the_rule_allows(
    shared: Store,
    steps: list[tuple[tuple[str, ...] | None, float, int]],
    agreeing: int,
    minutes: int,
) -> None:
    """A deletion of every tag needs enough equal listings, the first of them old enough.

    The test compares with the true time, also while the clock is a day behind.
    """
    clock = FakeClock()
    scripted = Scripted(clock)
    repository = Repository("swr", f"team/{next(numbers)}")
    job = Job(repository, scripted, timedelta(minutes=5), agreeing, minutes * MINUTE)
    true, offset = clock(), timedelta()
    agreed: list[tuple[frozenset[str], Any]] = []
    for tags, after, hours in [(TAGS, 0.0, 0), *steps]:
        true += after * MINUTE
        offset = timedelta(hours=hours)
        clock.now = true + offset
        if tags is None:
            scripted.script.append(Unreachable("for a moment"))
            assert poll(job, shared, clock=clock).outcome == "failed"
            continue
        stored = shared.tags(repository).keys()
        missing = frozenset(stored - set(tags))
        scripted.then(*tags)
        result = poll(job, shared, clock=clock)
        if not stored or missing != stored:
            assert result.outcome == "ok"
            agreed = []
            continue
        agreed = [(what, at) for what, at in agreed if what == missing] + [(missing, true)]
        if result.outcome == "held":
            continue
        assert len(agreed) >= agreeing
        assert true - agreed[0][1] >= (agreeing - 1) * minutes * MINUTE
        agreed = []
