"""The pure part of a poll: differences between listings, suspicious deletions."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagsync.database.outcomes import fingerprint_of
from tagsync.models import Tag
from tagsync.polling.decide import apply, diff
from tagsync.polling.doubts import is_suspicious

NAMES = st.text(string.ascii_lowercase, min_size=1, max_size=2)
TAGS = st.builds(
    Tag,
    NAMES,
    digest=st.none() | st.sampled_from(["sha256:a", "sha256:b"]),
    size=st.none() | st.integers(0, 2),
    is_trusted=st.none() | st.booleans(),
    updated=st.none() | st.sampled_from(["2018-07-06T06:18:55Z", "2018-07-06T06:18:56Z"]),
)
LISTINGS = st.lists(TAGS, max_size=12).map(lambda tags: {tag.tag: tag for tag in tags})


@given(LISTINGS, LISTINGS)
def test_applied_difference_gives_the_new_listing(old: dict[str, Tag], new: dict[str, Tag]) -> None:
    """Applying the difference of two listings to the first gives the second."""
    changes = diff(old, new)
    assert apply(old, changes) == new
    assert len({change.tag for change in changes}) == len(changes)


@given(LISTINGS)
def test_equal_listings_do_not_differ(listing: dict[str, Tag]) -> None:
    """A listing has no difference from itself."""
    assert diff(listing, dict(listing)) == []


@given(LISTINGS, LISTINGS)
def test_changes_match_the_listings(old: dict[str, Tag], new: dict[str, Tag]) -> None:
    """The kind, digests and fields of a change follow from the two listings."""
    for change in diff(old, new):
        before, after = old.get(change.tag), new.get(change.tag)
        assert change.kind == (
            "added" if before is None else "deleted" if after is None else "updated"
        )
        assert change.old_digest == (before.digest if before else None)
        assert change.new_digest == (after.digest if after else None)
        known = None not in {change.old_digest, change.new_digest}
        assert change.moved == (change.kind == "updated" and known and "digest" in change.fields)
        for field, (was, is_now) in change.fields.items():
            assert was == getattr(before, field, None)
            assert is_now == getattr(after, field, None)
            assert was != is_now


@pytest.mark.parametrize(
    ("stored", "deleted", "suspicious"),
    [(0, 0, False), (5, 0, False), (1, 1, True), (9, 8, False), (19, 10, True), (20, 10, False)],
)
def test_which_deletions_are_suspicious(stored: int, deleted: int, suspicious: bool) -> None:
    """A deletion of every tag, or of more than half and at least ten, is suspicious."""
    assert is_suspicious(stored, deleted) == suspicious


@given(st.sets(NAMES, min_size=1), st.sets(NAMES, min_size=1))
def test_equal_fingerprints_are_equal_deletions(one: set[str], other: set[str]) -> None:
    """Fingerprints of two sets of deletions are equal exactly if the sets are."""
    first, second = fingerprint_of(*sorted(one)), fingerprint_of(*sorted(other))
    assert (first == second) == (one == other)
