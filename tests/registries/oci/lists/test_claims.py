"""What one read of a list leads to: suspicions from poll to poll, and distrust."""

from collections.abc import Mapping
from datetime import timedelta

from tagsync.clock import timestamp
from tagsync.models import Distrust, Scope
from tagsync.registries.oci.lists.claims import Claims, Notes
from tagsync.registries.oci.lists.protocol import Row, Rows
from tests.support.clock import FakeClock
from tests.support.plain_list import PlainList

A, B, C = (f"sha256:{letter * 64}" for letter in "abc")
LATER = PlainList.lag + timedelta(seconds=1)


class Reads:
    """Reads of a list, each compared with answers to HEAD."""

    def __init__(self, clock: FakeClock) -> None:
        self.notes = Notes()
        self._clock = clock

    def compare(
        self,
        listed: Mapping[str, str | None],
        answers: Mapping[str, str | None],
        left: str | None = None,
        after: timedelta = LATER,
    ) -> Distrust | None:
        """Compare a read with answers, some time after the last one."""
        self._clock.now += after
        rows = Rows([Row(*item) for item in listed.items()])
        claims = Claims(PlainList.__new__(PlainList), rows, self.notes, lambda _: None)
        scope = Scope(left_at=lambda _, digest: left if digest == A else None)
        return claims.compare(answers, scope, self._clock())


def test_contradiction_that_lasts_is_distrusted(clock: FakeClock) -> None:
    """The same wrong digest, contradicted again after the lag, ends the use of the list."""
    reads = Reads(clock)
    assert reads.compare({"v1": A}, {"v1": B}) is None
    first = clock.now
    found = reads.compare({"v1": A}, {"v1": C})
    assert found == Distrust("plain", "v1", A, C, timestamp(first), timestamp(clock.now))


def test_contradiction_within_the_lag_is_not_distrusted(clock: FakeClock) -> None:
    """A list may be behind for as long as its lag."""
    reads = Reads(clock)
    assert reads.compare({"v1": A}, {"v1": B}) is None
    assert reads.compare({"v1": A}, {"v1": B}, after=PlainList.lag) is None
    assert reads.compare({"v1": A}, {"v1": B}, after=timedelta(seconds=1)) is not None


def test_suspicion_restarts_at_another_digest_of_the_list(clock: FakeClock) -> None:
    """A list that is behind, but goes on, has each digest for a short time only."""
    reads = Reads(clock)
    assert reads.compare({"v1": A}, {"v1": B}) is None
    assert reads.compare({"v1": B}, {"v1": C}) is None
    assert reads.compare({"v1": B}, {"v1": C}) is not None


def test_agreement_ends_a_suspicion(clock: FakeClock) -> None:
    """If HEAD agrees with the list, or the list has no digest, a suspicion is over."""
    for listed in ({"v1": A}, {"v1": None}, {}):
        reads = Reads(clock)
        assert reads.compare({"v1": A}, {"v1": B}) is None
        assert reads.compare(listed, {"v1": A}) is None
        assert reads.notes.suspicions == {}
        assert reads.compare({"v1": A}, {"v1": B}) is None


def test_failed_head_raises_a_suspicion_and_confirms_none(clock: FakeClock) -> None:
    """A HEAD request that failed shows no other digest, however often it fails."""
    reads = Reads(clock)
    for _ in range(3):
        assert reads.compare({"v1": A}, {"v1": None}) is None
    assert list(reads.notes.suspicions) == ["v1"]
    assert reads.compare({"v1": A}, {"v1": B}) is not None


def test_record_shows_since_when_the_list_is_behind(clock: FakeClock) -> None:
    """A digest that the tag left longer ago than the lag is distrusted at once."""
    left = timestamp(clock.now)
    found = Reads(clock).compare({"v1": A}, {"v1": B}, left)
    assert found is not None
    assert found.first_at == left
    assert Reads(clock).compare({"v1": C}, {"v1": B}, left) is None
    recently = timestamp(clock.now)
    assert Reads(clock).compare({"v1": A}, {"v1": B}, recently, after=PlainList.lag) is None


def test_oldest_contradiction_is_the_reason(clock: FakeClock) -> None:
    """Of several contradictions, the one that has lasted longest is reported."""
    reads = Reads(clock)
    reads.compare({"v1": C, "v2": A}, {"v2": B})
    reads.compare({"v1": C, "v2": A}, {"v1": B}, after=timedelta(seconds=1))
    found = reads.compare({"v1": C, "v2": A}, {"v1": B, "v2": B})
    assert found is not None
    assert found.tag == "v2"
