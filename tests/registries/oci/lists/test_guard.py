"""The guard: which digests of a list count, as a table and as properties."""

from collections.abc import Mapping
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tagsync.models import Tag
from tagsync.registries.oci.lists import guard
from tagsync.registries.oci.lists.guard import Rules
from tagsync.registries.oci.lists.protocol import Row

A, B = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
SAME, OTHER = Rules(same_store=True), Rules(same_store=False)
NAMES = [f"v{number}" for number in range(300)]


def outside_the_sample() -> str:
    """Return a tag that is not in the sample of `NAMES` in turn 0."""
    return min(set(NAMES) - guard.sample(NAMES, 0, 100))


TAG = outside_the_sample()


def believed(rows: list[Row], recorded: Mapping[str, Tag], rules: Rules, doubted: str = "") -> bool:
    """Return whether the digest of `TAG` counts, among 299 tags that are as recorded."""
    others = [name for name in NAMES if name != TAG]
    known = {name: Tag(name, A) for name in others} | dict(recorded)
    claims = guard.valid_digests([*(Row(name, A) for name in others), *rows])
    return TAG in guard.believed(claims, NAMES, known, {doubted}, 0, rules)


@pytest.mark.parametrize(
    ("rows", "recorded", "same_store", "other_store"),
    [
        # The list and the record have the same digest.
        ([Row(TAG, A)], A, True, True),
        ([Row(TAG, A), Row(TAG, A)], A, True, True),
        # The digest of the list differs from the record.
        ([Row(TAG, B)], A, False, False),
        # Nothing is recorded, or no digest is.
        ([Row(TAG, A)], "new", False, False),
        ([Row(TAG, A)], None, False, False),
        # The list has no digest, two digests, or no row.
        ([Row(TAG, None)], A, False, False),
        ([Row(TAG, A), Row(TAG, B)], A, False, False),
        ([Row(TAG, A), Row(TAG, None)], A, False, False),
        ([], A, False, False),
        # The digest is not one.
        ([Row(TAG, A[:-1])], A[:-1], False, False),
        ([Row(TAG, f"{A}0")], f"{A}0", False, False),
        ([Row(TAG, A.upper())], A.upper(), False, False),
        ([Row(TAG, f"md5:{'a' * 32}")], f"md5:{'a' * 32}", False, False),
        ([Row(TAG, f"{A}\n")], f"{A}\n", False, False),
        ([Row(TAG, "")], "", False, False),
    ],
)
def test_which_digests_count(
    rows: list[Row], recorded: str | None, same_store: bool, other_store: bool
) -> None:
    """A digest counts without HEAD only in the cases of the guard's table."""
    known = {} if recorded == "new" else {TAG: Tag(TAG, recorded)}
    assert believed(rows, known, SAME) == same_store
    assert believed(rows, known, OTHER) == other_store


def test_first_listing_takes_the_digests_of_the_same_store() -> None:
    """While nothing of the repository is recorded, a list of the same store is believed."""
    claims = guard.valid_digests([Row(name, A) for name in NAMES])
    assert TAG in guard.believed(claims, NAMES, {}, (), 0, SAME)
    assert TAG not in guard.believed(claims, NAMES, {}, (), 0, OTHER)


def test_doubted_tag_is_resolved() -> None:
    """A tag for which HEAD contradicted the list is resolved by HEAD in each poll."""
    assert believed([Row(TAG, A)], {TAG: Tag(TAG, A)}, SAME)
    assert not believed([Row(TAG, A)], {TAG: Tag(TAG, A)}, SAME, doubted=TAG)


def test_name_that_only_the_list_has_is_ignored() -> None:
    """The list does not decide which tags exist."""
    claims = guard.valid_digests([Row("v1", A), Row("ghost", A)])
    assert "ghost" not in guard.believed(claims, ["v1"], {}, (), 0, SAME)


@pytest.mark.parametrize(
    ("rows", "names", "unusable"),
    [
        (0, 4, True),
        (0, 0, True),
        (1, 4, True),
        (2, 4, False),
        (2, 5, True),
        (3, 5, False),
        (4, 0, False),
        (4, 4, False),
    ],
)
def test_list_that_is_empty_or_too_short_is_not_used(rows: int, names: int, unusable: bool) -> None:
    """A list is used only if it has rows, and at least half of the names."""
    listed = [Row(f"v{number}", A) for number in range(rows)]
    reason = guard.why_unusable(listed, [f"v{number}" for number in range(names)])
    assert (reason is not None) == unusable


def test_rows_of_other_names_do_not_make_a_list_usable() -> None:
    """Only rows whose names exist count as a part of the list."""
    listed = [Row(f"other{number}", A) for number in range(10)]
    assert guard.why_unusable(listed, ["v1", "v2"]) is not None


TURNS = st.integers(min_value=0, max_value=10_000)


@given(st.sets(st.text(max_size=12), max_size=400), TURNS, st.sampled_from([1, 7, 20, 100]))
def test_sample_is_large_enough(names: set[str], turn: int, period: int) -> None:
    """Each sample has at least three tags and the period's share, or all tags."""
    chosen = guard.sample(names, turn, period)
    assert chosen <= names
    assert len(chosen) >= min(len(names), 3)
    assert len(chosen) * period >= len(names)


def test_all_tags_that_are_due_are_sampled() -> None:
    """Tags that share a slot are all chosen in its turn, also if they are many."""
    names = [f"build-{number}" for number in range(3000)]
    same = {name for name in names if crc32(name.encode()) % 100 == 0}
    assert len(same) > 20
    assert guard.sample(same, 0, 100) == same


@pytest.mark.parametrize(
    ("tags", "period", "size"),
    [(0, 100, 0), (2, 100, 2), (3, 100, 3), (300, 100, 3), (301, 100, 4), (301, 20, 16)],
)
def test_size_of_a_sample(tags: int, period: int, size: int) -> None:
    """A sample has the share of the period, rounded up, and at least three tags."""
    assert guard.sample_size(tags, period) == size


@given(st.text(max_size=12), st.lists(st.sets(st.text(max_size=12)), min_size=1), TURNS)
def test_each_tag_is_sampled_within_the_period(
    name: str, others: list[set[str]], first: int
) -> None:
    """A tag is chosen within 100 turns, whatever other tags come and go between the turns."""
    turns = range(first, first + 100)
    chosen = (guard.sample({name, *others[turn % len(others)]}, turn, 100) for turn in turns)
    assert any(name in sample for sample in chosen)


def test_sample_of_many_tags_is_small() -> None:
    """A hundred samples of 10,000 tags have few more than 100 requests each."""
    names = [f"build-{number}" for number in range(10_000)]
    sizes = [len(guard.sample(names, turn, 100)) for turn in range(100)]
    assert min(sizes) >= 100
    assert max(sizes) < 150


DIGESTS = st.sampled_from([A, B, None, "sha256:short", ""])


@given(
    st.lists(st.tuples(st.sampled_from(NAMES[:20]), DIGESTS), max_size=60),
    st.dictionaries(st.sampled_from(NAMES[:20]), st.sampled_from([A, B, None])),
    TURNS,
    st.booleans(),
)
def test_believed_digest_never_contradicts_the_record(
    pairs: list[tuple[str, str | None]],
    recorded: dict[str, str | None],
    turn: int,
    same_store: bool,
) -> None:
    """Without HEAD, a list never changes a recorded digest, whatever its rows are."""
    rows = [Row(*pair) for pair in pairs]
    known = {name: Tag(name, digest) for name, digest in recorded.items()}
    rules = Rules(same_store, 100)
    found = guard.believed(guard.valid_digests(rows), NAMES[:20], known, (), turn, rules)
    for name, row in found.items():
        assert row.digest in {A, B}
        assert {digest for other, digest in pairs if other == name} == {row.digest}
        if recorded.get(name) is not None:
            assert recorded[name] == row.digest
        elif recorded or not same_store:
            raise AssertionError("nothing is recorded of the tag, so HEAD decides")
